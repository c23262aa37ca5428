//! `trust`: makes this machine, or a node that somebody else sets up, accept a registry's certificate.

mod forms;
mod install;
mod machine;
mod subject;
mod uninstall;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use private_registry_operator::model::{HostPort, RegistryName};
use private_registry_operator::node::trust_files::{File, Owner, Runtime};
use strum::IntoEnumIterator as _;

use self::forms::Form;
use self::machine::Machine;
use self::subject::Subject;
use crate::cluster::{self, Place, Registry};
use crate::shell;

/// Options of `trust`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// For Docker's daemon
    #[arg(long)]
    docker: bool,
    /// For containerd, and so for most kubelets
    #[arg(long)]
    containerd: bool,
    /// For podman, buildah, skopeo and CRI-O
    #[arg(long)]
    podman: bool,
    /// For every program of the system, and for every host that the authority signs
    #[arg(long)]
    system: bool,
    /// Write the files
    #[arg(long)]
    install: bool,
    /// Remove them again, also when the registry is gone
    #[arg(long, conflicts_with_all = ["install", "ca"])]
    uninstall: bool,
    /// Print the configuration that somebody else wants
    #[arg(long, value_name = "FOR", num_args = 0..=1, default_missing_value = "files", conflicts_with_all = ["install", "uninstall"])]
    print: Option<Form>,
    /// Ask no questions
    #[arg(short, long)]
    yes: bool,
    /// The authority, in PEM, instead of what the cluster says; needs --address
    #[arg(long, value_name = "FILE", requires = "address")]
    ca: Option<PathBuf>,
    /// What image names begin with, instead of the registry's own addresses; can be given more than once
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
    address: Vec<HostPort>,
    /// Root of the file system to change, for images and chroots
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
    #[command(flatten)]
    place: Place,
}

fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|rule| rule.to_string())
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    if options.print.is_none() && !cfg!(target_os = "linux") {
        bail!("this machine is no Linux; --print macos and --print windows say what to do there");
    }
    if options.uninstall {
        return uninstall::run(options).map(|()| true);
    }
    let subject = subject(options)?;
    match options.print {
        Some(form) => {
            let files = files_to_print(options, form, &subject)?;
            shell::print(&form.text(&subject, &files));
            Ok(true)
        }
        None => install::run(options, &subject),
    }
}

/// What this machine's runtimes have of a registry's trust under a host: each file that they read, and whether it is as it should be. None where no runtime is
/// found.
pub(crate) async fn here(registry: &Registry, host: &HostPort) -> Result<Vec<(PathBuf, bool)>> {
    let subject = Subject::in_cluster(registry, std::slice::from_ref(host)).await?;
    let machine = Machine::at(Path::new("/"))?;
    install::state(&machine, &machine.runtimes(), &subject)
}

fn subject(options: &Options) -> Result<Subject> {
    if let Some(file) = &options.ca {
        let owner = Owner::new(options.place.namespace.as_deref(), options.name.clone());
        return Subject::given(owner, file, &options.address);
    }
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        Subject::in_cluster(&registry, &options.address).await
    })
}

impl Options {
    /// The runtimes that were named.
    fn runtimes(&self) -> Vec<Runtime> {
        let named = |runtime| match runtime {
            Runtime::Docker => self.docker,
            Runtime::Containerd => self.containerd,
            Runtime::Podman => self.podman,
        };
        Runtime::iter().filter(|runtime| named(*runtime)).collect()
    }

    /// Those, or what is installed if nothing was named.
    fn runtimes_here(&self, machine: &Machine) -> Result<Vec<Runtime>> {
        let named = self.runtimes();
        if !named.is_empty() || self.system {
            return Ok(named);
        }
        let found = machine.runtimes();
        if found.is_empty() {
            bail!(
                "neither Docker nor containerd nor podman was found: say for which of them with --docker, --containerd or --podman"
            );
        }
        Ok(found)
    }
}

/// Files of runtimes for which no machine is looked at.
fn files_to_print(options: &Options, form: Form, subject: &Subject) -> Result<Vec<File>> {
    let runtimes = match options.runtimes() {
        none if none.is_empty() && form == Form::CloudInit => vec![Runtime::Containerd],
        none if none.is_empty() => Runtime::iter().collect(),
        some => some,
    };
    if options.system && form == Form::CloudInit {
        bail!("--system: cloud-init has a module of its own for that, ca_certs; give it what --print files shows");
    }
    Ok(runtimes.into_iter().flat_map(|runtime| runtime_files(runtime, &runtime.folders(None), subject)).collect())
}

fn runtime_files(runtime: Runtime, folders: &[PathBuf], subject: &Subject) -> Vec<File> {
    // Only containerd can be led to another address than the image's name says.
    let names = subject.trusts().filter(|trust| runtime == Runtime::Containerd || trust.host == trust.endpoint);
    names
        .flat_map(|trust| folders.iter().flat_map(move |folder| runtime.files(folder, &trust)).collect::<Vec<_>>())
        .collect()
}
