//! `kubectl registry …`: what people run, from their own machine, about private registries.
//!
//! | file | command |
//! |---|---|
//! | `list`, `status` | which registries are there, how is one? |
//! | `repos`, `search`, `tags`, `inspect`, `layers`, `diff` | what is in a registry? |
//! | `copy` | an image comes from one repository or registry into another |
//! | `save`, `load` | images come into a file, and out of one |
//! | `export` | the files of an image come into a tar archive |
//! | `import` | a tar archive of files becomes an image |
//! | `commit` | an image gets another layer, and another name |
//! | `rm` | an image goes, and what would go with it is said before |
//! | `users` | who may log in |
//! | `start`, `stop`, `restart` | whether it runs |
//! | `doctor`, `report` | why does a pull fail? what does somebody need who is to find out? |
//! | `events`, `logs` | what happened, and what its pods write |
//! | `login`, `logout` | docker and podman know a registry's login |
//! | `can-i` | may somebody do something, and by which rule? |
//! | [`check`] | are these manifests valid? |
//! | [`render`] | what would be made of them? |
//! | `csr`, `set-certificate` | a request for a certificate to have signed, and the answer |
//! | `rotate` | a new certificate, a new authority |
//! | `trust` | this machine, or a node, accepts a registry's certificate |
//! | `man` | the help of all commands, as pages |
//!
//! What a registry is, and what is made of it, is the operator's library; nothing here decides it a second time.

mod access;
mod archive;
mod aside;
mod called;
mod can_i;
mod change;
pub mod check;
mod chosen;
mod cluster;
mod commit;
mod configuration;
mod copy;
mod csr;
mod diff;
mod docker_config;
mod doctor;
mod events;
mod export;
mod filesystem;
mod hashed;
mod import;
mod inspect;
mod layers;
mod list;
mod load;
mod login;
mod logout;
mod logs;
mod man;
mod manifests;
mod output;
mod platform;
mod prepared;
mod progress;
mod registry_client;
pub mod render;
mod report;
mod repos;
mod restart;
mod rm;
mod rotate;
mod save;
mod search;
mod set_certificate;
mod shell;
mod start;
mod status;
mod stop;
mod structure;
mod tags;
mod transfer;
mod trust;
mod users;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// What `kubectl registry` understands.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-registry",
    bin_name = "kubectl registry",
    version = private_registry_operator::VERSION,
    about = "What people do with private registries, beside their manifests"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the registries of a namespace, or of all, in a line each: address, whether it is ready and why not, version of the image.
    #[command(after_help = "Examples:\n  \
        kubectl registry list\n  \
        kubectl registry list --all-namespaces\n  \
        kubectl registry list -A -o json | jq '.items[].status.address'")]
    List(list::Options),
    /// Show how a registry is: addresses, certificate, users, storage, what is not well and what to do, its last events.
    ///
    /// Exit code 0: it is as its manifest says; 1: it is not, or cannot be read. With -o json or yaml, 0 if it can be read.
    #[command(after_help = "Examples:\n  \
        kubectl registry status team-a\n  \
        kubectl registry status team-a --namespace registries -o json | jq -r .certificate.notAfter")]
    Status(status::Options),
    /// Find out why an image cannot be pulled: looks at each step from this machine, from pods and from nodes to a registry, and says what to do.
    ///
    /// √ is good, ‼ a warning, × a failure, and - could not be known or was not looked at. Each fault has a cure and a page of the documentation. Nothing is
    /// changed. What somebody has no right to see is skipped, and says which right that is.
    ///
    /// Exit code 0: nothing failed; 1: something did.
    #[command(after_help = "Examples:\n  \
        kubectl registry doctor                                  # the operator, and every registry of the namespace\n  \
        kubectl registry doctor team-a --image registry.example.com/shop/web:1.4 --node worker-1\n  \
        kubectl registry doctor team-a --wait 5m -o short         # after a change, until nothing fails\n  \
        kubectl registry doctor team-a -o json | jq '.sections[].checks[] | select(.outcome == \"failed\")'")]
    Doctor(doctor::Options),
    /// Pack what somebody needs who is to find a fault without access to the cluster, in a ZIP.
    ///
    /// Manifests of the registry and of what belongs to it, events, logs of its pods and of the operator, versions, runtimes of nodes, and what doctor says.
    /// What is secret is blanked: of Secrets only the lengths of values stay, of variables only the names; passwords, tokens, hashes, private keys and logins
    /// in addresses go out of manifests and logs. Look through it all the same before you give it away: nobody knows every form.
    ///
    /// The file appears when it is whole, and nobody else can read it. What could not be read is named in it.
    #[command(after_help = "Examples:\n  \
        kubectl registry report team-a\n  \
        kubectl registry report -n registries -o fault.zip       # every registry of the namespace")]
    Report(report::Options),
    /// Show and change who may log in: list, add, passwd, rotate, remove.
    #[command(subcommand)]
    Users(users::Command),
    /// Stop a registry, and keep everything that it has: its manifest says spec.suspend: true.
    ///
    /// Waits until the operator says that it is stopped. Pulls and pushes under way are given time to end.
    #[command(after_help = "Examples:\n  \
        kubectl registry stop team-a")]
    Stop(stop::Options),
    /// Start a registry again, whatever stopped it: its manifest, somebody who scaled it to zero, or a process that ended.
    ///
    /// Waits until it answers.
    #[command(after_help = "Examples:\n  \
        kubectl registry start team-a\n  \
        kubectl registry start team-a --timeout 10m")]
    Start(start::Options),
    /// Replace the pods of a registry, as kubectl rollout restart does.
    ///
    /// Waits until the new ones answer. Needed for nothing that the operator does itself. With one replica on a volume of one node there is a gap of seconds.
    #[command(after_help = "Examples:\n  \
        kubectl registry restart team-a")]
    Restart(restart::Options),
    /// Show the events of a registry and of what belongs to it, pods that are gone included.
    #[command(after_help = "Examples:\n  \
        kubectl registry events team-a\n  \
        kubectl registry events team-a --warnings")]
    Events(events::Options),
    /// Show what the pods of a registry write.
    #[command(after_help = "Examples:\n  \
        kubectl registry logs team-a --tail 50\n  \
        kubectl registry logs team-a --follow --since 10m\n  \
        kubectl registry logs team-a --previous          # of the process before, which ended\n  \
        kubectl registry logs team-a --container frontend   # nginx, where there is one")]
    Logs(logs::Options),
    /// Let docker, podman and what is like them know a registry's login.
    ///
    /// It is that of the generated admin, which is read from the cluster, or of --user. It is tried first: what the registry refuses is not written. A
    /// credential helper that the file names (credsStore, credHelpers) keeps it; else the file does, which nobody else can read.
    ///
    /// The login stands under the address that image names begin with, or under --address. It takes the rights to read the registry and its Secret
    /// NAME-admin, and to forward ports of pods: kubectl auth can-i create pods/portforward.
    #[command(after_help = "Examples:\n  \
        kubectl registry login team-a\n  \
        pass show team-a/ci | kubectl registry login team-a --user ci --password-stdin\n  \
        kubectl registry login team-a --authfile \"$XDG_RUNTIME_DIR/containers/auth.json\"    # podman's own file\n  \
        kubectl registry login team-a --address localhost:5000    # as it is called here, with kubectl port-forward service/team-a 5000")]
    Login(login::Options),
    /// Take a registry's logins out of where docker and podman keep them, under each of its addresses.
    #[command(after_help = "Examples:\n  \
        kubectl registry logout team-a\n  \
        kubectl registry logout team-a --address registry.example.com    # also when the registry is gone")]
    Logout(logout::Options),
    /// Show the repositories of a registry.
    #[command(after_help = "Examples:\n  \
        kubectl registry repos team-a\n  \
        kubectl registry repos team-a --user ci --address registry.example.com -o json")]
    Repos(repos::Options),
    /// Show the tags of a repository.
    #[command(after_help = "Examples:\n  \
        kubectl registry tags team-a shop/web\n  \
        kubectl registry tags team-a shop/web -o name | xargs -n 1 kubectl registry inspect team-a")]
    Tags(tags::Options),
    /// Show what is in an image without pulling it: digest, platforms, sizes, layers, labels, entrypoint.
    #[command(after_help = "Examples:\n  \
        kubectl registry inspect team-a shop/web:1.4\n  \
        kubectl registry inspect team-a shop/web:1.4 -o name      # with its digest\n  \
        kubectl registry inspect team-a shop/web -o json | jq '.images[].compressedBytes'")]
    Inspect(inspect::Options),
    /// Find repositories and tags by a part of their name, or by a pattern.
    ///
    /// A text is a part of a name. With * (any characters but /), ** (any) or ? (one), it is the whole name. With a colon, repository and tag are
    /// looked for together; without one, each of them.
    #[command(after_help = "Examples:\n  \
        kubectl registry search team-a web\n  \
        kubectl registry search team-a 'shop/**:1.*' -o name\n  \
        kubectl registry search team-a web --repositories         # looks at no tags, which is faster in large registries")]
    Search(search::Options),
    /// Show the layers of an image with their sizes, and which of them its platforms share; of two images, what both share.
    #[command(after_help = "Examples:\n  \
        kubectl registry layers team-a shop/web:1.4\n  \
        kubectl registry layers team-a shop/web:1.4 shop/web:1.5\n  \
        kubectl registry layers team-a shop/web:1.4 shop/web:1.5 -o json | jq .shared.bytes")]
    Layers(layers::Options),
    /// Show how two images differ: layers, entrypoint, environment, labels, platforms. Nothing is pulled.
    ///
    /// Exit code 0: they are the same; 1: they differ; 2: one of them cannot be read.
    #[command(after_help = "Examples:\n  \
        kubectl registry diff team-a shop/web:1.4 shop/web:1.5\n  \
        kubectl registry diff team-a shop/web:1.4 shop/web:1.5 -o name       # only what differs")]
    Diff(diff::Options),
    /// Copy an image, with all its platforms, within a registry or to another one.
    ///
    /// What is there already is not sent, and within a registry nothing is: it is linked. Every digest is compared on the way, and is the same in the
    /// end. Indexes, charts, signatures and whatever else has a manifest are copied alike. Run it again after a failure: it goes on.
    #[command(after_help = "Examples:\n  \
        kubectl registry copy team-a shop/web:1.4 shop/web:stable\n  \
        kubectl registry copy team-a shop/web:1.4 archive/web              # with the same tag\n  \
        kubectl registry copy team-a shop/web:1.4 shop/web --to production/team-b\n  \
        kubectl registry copy team-a shop/web:1.4 shop/web:arm --platform linux/arm64")]
    Copy(copy::Options),
    /// Save images, with all their platforms, in a file or a folder.
    ///
    /// It is the OCI's layout, packed as a tar archive or not, with Docker's table beside it: kubectl registry load, docker load, podman load, skopeo
    /// (oci-archive: and docker-archive:) and ctr images import read it. Docker's table has the platform of this machine.
    ///
    /// Every digest is compared. A file appears under its name when it is whole; a folder keeps what it has, and only the rest is fetched.
    #[command(after_help = "Examples:\n  \
        kubectl registry save team-a shop/web:1.4 -o web.tar\n  \
        kubectl registry save team-a shop/web:1.4 shop/api:2 -o images/      # a folder, in which both share their layers\n  \
        kubectl registry save team-a shop/web:1.4 --platform linux/amd64 -o - | docker load")]
    Save(save::Options),
    /// Load images from a file or a folder into a registry.
    ///
    /// It takes what docker save, podman save, buildah, skopeo and kubectl registry save write, also packed with gzip. Images are called as the archive
    /// says, without the host; one that has no name there must be given one. What the registry has is not sent: run it again after a failure, and it goes
    /// on. What is missing or not what its digest says ends it before anything has a name.
    #[command(after_help = "Examples:\n  \
        kubectl registry load team-a -i web.tar\n  \
        docker save shop/web:1.4 | kubectl registry load team-a -i -\n  \
        kubectl registry load team-a shop/web:1.4 -i layout/")]
    Load(load::Options),
    /// Write the files of an image as one tar archive, without its layers and its configuration.
    ///
    /// It is what a container of it finds: what upper layers replace or delete is not there. Owners, modes, times, links and attributes are as in the
    /// layers. Every digest is compared before anything is written; until then layers lie in $TMPDIR, as they were sent.
    ///
    /// Of several platforms it takes the one of --platform, else that of this machine.
    #[command(after_help = "Examples:\n  \
        kubectl registry export team-a shop/web:1.4 -o web.tar\n  \
        kubectl registry export team-a shop/web:1.4 -o - | tar -tv\n  \
        kubectl registry export team-a shop/web:1.4 --platform linux/arm64 -o - | docker import - web:flat")]
    Export(export::Options),
    /// Make an image of one layer of a tar archive of files, as docker import does.
    ///
    /// The archive becomes the layer as it is, packed with gzip. What it runs is said with --entrypoint, --cmd, --env and --workdir. The same input gives the
    /// same digest: without --created the image is of 1970, and no clock is asked.
    ///
    /// It passes through $TMPDIR. What is cut off, begins with a slash, leads out of the image or would delete something becomes no image.
    #[command(after_help = "Examples:\n  \
        kubectl registry import team-a rootfs.tar.gz shop/base:1 --cmd /bin/sh\n  \
        tar -c -C rootfs . | kubectl registry import team-a - shop/base:1 --platform linux/arm64\n  \
        kubectl registry export team-a shop/web:1 -o - | kubectl registry import team-a - shop/web:flat --entrypoint '[\"/web\", \"--quiet\"]'")]
    Import(import::Options),
    /// Make an image of another one, with files added and deleted in one more layer, as docker commit leaves it.
    ///
    /// The layers of before are shared: within a registry they are linked, to another one (--to) what it does not have is sent. The same input gives the same
    /// digest: files are in order, and all times are 1970, or those of --created.
    ///
    /// Of a folder, files are root's and keep their modes; a folder that is not empty leaves that of the image as it is. Of an archive, owners, modes and
    /// attributes stay. What is deleted must be there, and what is no folder becomes one only if it is deleted as well: to know that, the image's layers are
    /// fetched into $TMPDIR. What is deleted stays in them, and can be read by who has the image.
    #[command(after_help = "Examples:\n  \
        kubectl registry commit team-a shop/web:1.4 shop/web:1.4-fixed --add fix/ -a 'Ann Smith' -m 'newer certificates'\n  \
        kubectl registry commit team-a shop/web:1.4 shop/web:slim --delete /usr/share/doc --delete /etc/motd\n  \
        kubectl registry commit team-a shop/web:1.4 shop/web:debug --add tools.tar.gz --cmd '[\"/bin/sh\"]' --created 2026-11-30T12:00:00Z")]
    Commit(Box<commit::Options>),
    /// Delete an image, after showing which tags go with it and what space comes free.
    ///
    /// A tag alone is taken off if other tags share its digest, and they stay. If none does, the image is deleted with the platforms that no other image
    /// uses. With a digest, all tags of that digest go. Space comes free with the next garbage collection.
    ///
    /// The registry must allow deletes: spec.config.allowDeletes.
    #[command(after_help = "Examples:\n  \
        kubectl registry rm team-a shop/web:1.4 --dry-run\n  \
        kubectl registry rm team-a shop/web:1.4 --yes\n  \
        kubectl registry rm team-a shop/web@sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1")]
    Rm(rm::Options),
    /// Show whether somebody may do something with a repository, and which rule says so.
    ///
    /// Exit code 0: yes; 1: no, or it cannot be said.
    #[command(after_help = "Examples:\n  \
        kubectl registry can-i team-a push red/app --as alice\n  \
        kubectl registry can-i team-a pull public/app     # without a login\n  \
        kubectl registry can-i team-a catalog --as robot -f registry.yaml     # before it is applied")]
    CanI(can_i::Options),
    /// Validate manifests without a cluster, with the rules that the API server applies.
    ///
    /// Exit code 0: all are valid; 1: some are not or cannot be read, and each line says file, object, field and reason.
    ///
    /// Objects of other kinds are passed over. What only the cluster knows (Secrets, StorageClasses, an older version of the same
    /// registry) is not checked.
    #[command(after_help = "Examples:\n  \
        kubectl registry check -f registry.yaml\n  \
        kubectl registry check -f registries/ -f more.yaml\n  \
        kubectl kustomize overlays/production | kubectl registry check -f -")]
    Check(check::Options),
    /// Print every object that the operator would make of a manifest; secrets appear as a placeholder.
    ///
    /// Exit code 0: everything was rendered; 1: a manifest is invalid, and standard error says why.
    #[command(after_help = "Examples:\n  \
        kubectl registry render -f registry.yaml\n  \
        kubectl kustomize overlays/production | kubectl registry render -f - > children.yaml\n\n\
        What only the cluster knows (certificates, password hashes, addresses) is the text PLACEHOLDER, so the output is\n\
        for reading and comparing, not for kubectl apply.")]
    Render(render::Options),
    /// Print the request for a certificate, for a CA that somebody else runs.
    ///
    /// For registries with spec.tls.certificateSigningRequest. Their private key stays in the cluster. Reads the ConfigMap NAME-csr, so that no right to
    /// read Secrets is needed.
    #[command(after_help = "Examples:\n  \
        kubectl registry csr team-a > team-a.csr\n  \
        openssl req -in team-a.csr -noout -text -verify     # what it asks for\n  \
        openssl x509 -req -in team-a.csr -CA ca.crt -CAkey ca.key -days 365 -copy_extensions copyall -out chain.pem")]
    Csr(csr::Options),
    /// Check a certificate that somebody signed on the registry's request, and hand it over to the operator.
    ///
    /// The file holds the certificate and its intermediates, PEM; the root, too, if clients do not know it. What is wrong is said, and then nothing is
    /// stored. Without signerName only: the answers of a signer of the cluster are taken by the operator itself.
    ///
    /// Exit code 0: it is stored in the Secret NAME-signed; 1: it is not, and a line says why.
    #[command(after_help = "Examples:\n  \
        kubectl registry set-certificate team-a -f chain.pem\n  \
        cat server.crt intermediate.crt root.crt | kubectl registry set-certificate team-a -n registries -f -")]
    SetCertificate(set_certificate::Options),
    /// Ask for a new serving certificate, or for a new authority.
    ///
    /// Sets the annotation privateregistry.dev/renew, with a value that no request had before, and says how to follow. The right to
    /// patch the registry is enough.
    #[command(after_help = "Examples:\n  \
        kubectl registry rotate leaf team-a\n  \
        kubectl registry rotate ca team-a --namespace registries\n  \
        kubectl registry rotate ca team-a --now --yes       # the key was stolen: clients are cut off until they have the new authority")]
    Rotate(rotate::Options),
    /// Make this machine accept a registry's certificate, or print what a node's platform needs for it.
    ///
    /// Without --install nothing is written. Files that this command did not write are never changed. Runtimes read the files at the
    /// next pull; none has to be restarted. Without --docker, --containerd, --podman or --system, for what is installed.
    ///
    /// Exit code 0: everything is, or would be, as it should; 1: something is in the way, and a line says what.
    #[command(after_help = "Examples:\n  \
        kubectl registry trust team-a                       # what would be written here\n  \
        sudo kubectl-registry trust team-a --kubeconfig ~/.kube/config --install\n  \
        sudo kubectl-registry trust team-a --uninstall\n  \
        kubectl registry trust team-a --print talos         # also k3s, rke2, gke, openshift, cloud-init, macos, windows\n  \
        kubectl-registry trust team-a --ca ca.crt --address registry.example.com:5000 --docker    # without a cluster")]
    Trust(trust::Options),
    /// Print the manual page of a command, or write those of all.
    ///
    /// man finds pages in the folder man1 below one of its own folders, which manpath shows.
    #[command(after_help = "Examples:\n  \
        kubectl registry man users add | man -l -\n  \
        kubectl registry man --to ~/.local/share/man/man1     # then: man kubectl-registry-copy")]
    Man(man::Options),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  \
        source <(kubectl registry completions bash)\n  \
        kubectl registry completions zsh > \"${fpath[1]}/_kubectl-registry\"\n  \
        kubectl registry completions fish > ~/.config/fish/completions/kubectl-registry.fish\n\n\
        They complete the program kubectl-registry itself.")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = called::command(Cli::command()).get_matches();
    match Cli::from_arg_matches(&arguments) {
        Ok(cli) => ExitCode::from(run(cli)),
        Err(error) => error.exit(),
    }
}

/// The exit code: 0 if it was done and all is as it should be.
#[must_use]
pub fn run(cli: Cli) -> u8 {
    let done = match cli.command {
        Command::List(options) => list::run(&options).map(|()| true),
        Command::Status(options) => status::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Report(options) => report::run(&options).map(|()| true),
        Command::Users(command) => users::run(&command).map(|()| true),
        Command::Stop(options) => stop::run(&options).map(|()| true),
        Command::Start(options) => start::run(&options).map(|()| true),
        Command::Restart(options) => restart::run(&options).map(|()| true),
        Command::Events(options) => events::run(&options).map(|()| true),
        Command::Logs(options) => logs::run(&options).map(|()| true),
        Command::Login(options) => login::run(&options).map(|()| true),
        Command::Logout(options) => logout::run(&options).map(|()| true),
        Command::Repos(options) => repos::run(&options).map(|()| true),
        Command::Tags(options) => tags::run(&options).map(|()| true),
        Command::Inspect(options) => inspect::run(&options).map(|()| true),
        Command::CanI(options) => can_i::run(&options),
        Command::Search(options) => search::run(&options).map(|()| true),
        Command::Layers(options) => layers::run(&options).map(|()| true),
        Command::Diff(options) => match diff::run(&options) {
            Err(error) => {
                complain(&error);
                return 2;
            }
            done => done,
        },
        Command::Copy(options) => copy::run(&options).map(|()| true),
        Command::Save(options) => save::run(&options).map(|()| true),
        Command::Load(options) => load::run(&options).map(|()| true),
        Command::Export(options) => export::run(&options).map(|()| true),
        Command::Import(options) => import::run(&options).map(|()| true),
        Command::Commit(options) => commit::run(&options).map(|()| true),
        Command::Rm(options) => rm::run(&options).map(|()| true),
        Command::Check(options) => Ok(check::run(&options)),
        Command::Render(options) => Ok(render::run(&options)),
        Command::Csr(options) => csr::run(&options).map(|()| true),
        Command::SetCertificate(options) => set_certificate::run(&options).map(|()| true),
        Command::Rotate(options) => rotate::run(&options).map(|()| true),
        Command::Trust(options) => trust::run(&options),
        Command::Man(options) => man::run(&options, called::command(Cli::command())).map(|()| true),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-registry", &mut script);
            shell::print(&String::from_utf8_lossy(&script));
            Ok(true)
        }
    };
    match done {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(error) => {
            complain(&error);
            1
        }
    }
}

fn complain(error: &anyhow::Error) {
    shell::complain(&format!("kubectl registry: {error:#}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
