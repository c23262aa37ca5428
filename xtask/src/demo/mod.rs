//! `cargo xtask demo`: the product from nothing, as a user would meet it: a real Kubernetes, Helm, one manifest, an image pushed over TLS
//! with a login and pulled by a kubelet, a killed process that comes back with its data. Every step prints what it shows.

mod objects;
mod person;
mod place;

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use testbed::{
    Family, Mode, Progress, Tools, image,
    sandbox::{self, Instance},
};

use crate::{
    cluster,
    given::{self, Given},
    workspace,
};
use objects::Objects;
use person::Person;
use place::Place;

const SYSTEM: &str = "private-registry-system";
const NAMESPACE: &str = "registries";
const REGISTRY: &str = "team-a";
const MANIFEST: &str = "deploy/examples/quickstart.yaml";
/// Where the operator's image comes from when it is built here.
const REPOSITORY: &str = "demo.local/private-registry-operator";
const TAG: &str = "demo";
const IMAGE: &str = "shop/hello:1";
/// A file in the folder of a cluster that the demo left running; it names the checkout whose demo it was.
const MARK: &str = "demo";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Stop what the demo left running
    #[arg(long)]
    down: bool,
    /// Use this cluster instead of starting one here. Its nodes must be able to pull the operator's image, which --set names
    #[arg(long, value_name = "FILE", env = "KUBECONFIG", hide_env_values = true)]
    kubeconfig: Option<PathBuf>,
    /// More values for the operator's chart, as Helm takes them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.down {
        if !down()? {
            println!("no demo of this checkout is running");
        }
        return Ok(());
    }
    let started = Instant::now();
    let progress = Progress::auto();
    let demo = match somebodys(arguments.kubeconfig.as_deref()) {
        Some(kubeconfig) => elsewhere(kubeconfig, &arguments.set, &progress)?,
        None => here(&arguments.set, &progress)?,
    };
    let built = started.elapsed();
    cluster::runtime()?.block_on(demo.show())?;
    let (all, building) = (started.elapsed().as_secs_f64(), built.as_secs_f64());
    println!("\nThat took {all:.0} s, {building:.0} s of them for building what was missing.");
    Ok(())
}

/// The kubeconfig, if it is of somebody's cluster. What a demo told its user to export ends with that demo, and the next one begins anew.
fn somebodys(kubeconfig: Option<&Path>) -> Option<&Path> {
    kubeconfig.filter(|file| !file.parent().is_some_and(|folder| folder.join(MARK).exists()))
}

/// Whether the cluster in this folder was left by the demo of this checkout.
fn was_left_by(checkout: &Path, folder: &Path) -> bool {
    fs::read(folder.join(MARK)).is_ok_and(|mark| mark == checkout.as_os_str().as_bytes())
}

/// Marks the cluster in this folder as left by the demo of this checkout.
fn mark(checkout: &Path, folder: &Path) -> Result<()> {
    let mark = folder.join(MARK);
    fs::write(&mark, checkout.as_os_str().as_bytes()).with_context(|| format!("write {}", mark.display()))
}

/// Ends the clusters that demos of this checkout left, and no others. Whether there were any.
fn down() -> Result<bool> {
    let ours = |instance: &Instance| was_left_by(workspace::root(), &instance.dir);
    let left: Vec<_> = sandbox::instances()?.into_iter().filter(ours).map(|instance| instance.id).collect();
    left.iter().try_for_each(|id| cluster::down(Some(id)))?;
    Ok(!left.is_empty())
}

/// Everything for a cluster of our own. Go programs and the operator are built at the same time.
fn here(set: &[String], progress: &Progress) -> Result<Demo> {
    if let Some(reason) = testbed::missing(Mode::Node) {
        bail!("{reason}; or name another cluster with --kubeconfig");
    }
    down()?;
    let families: Vec<_> = Family::NODE.iter().copied().chain([Family::Helm, Family::Kubectl]).collect();
    let (tools, operator) = thread::scope(|scope| {
        let operator = scope.spawn(|| workspace::operator(false, progress));
        let tools = Tools::ensure(&families, progress);
        (tools, operator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let image = image::operator(&operator?, &format!("{REPOSITORY}:{TAG}"))?;
    let own = [
        format!("image.repository={REPOSITORY}"),
        format!("image.tag={TAG}"),
        // Built here from the registry's own module: the published image's digest would not fit.
        format!("registry.image={}", image::REGISTRY),
    ];
    let values = own.into_iter().chain(set.iter().cloned()).collect();
    Ok(Demo { tools: tools?, values, cluster: Cluster::OurOwn(image), progress: progress.clone() })
}

/// Everything for a cluster that exists: only clients, most of which are there ready-made.
fn elsewhere(kubeconfig: &Path, set: &[String], progress: &Progress) -> Result<Demo> {
    let Given { kubeconfig, set } = Given::new(kubeconfig, set)?;
    let families: Vec<_> = [Family::Helm, Family::Kubectl].iter().chain(given::FAMILIES).copied().collect();
    let tools = Tools::ensure(&families, progress)?;
    Ok(Demo { tools, values: set, cluster: Cluster::Given(kubeconfig), progress: progress.clone() })
}

/// Where it will be shown.
enum Cluster {
    /// On a node that has this image.
    OurOwn(image::Image),
    Given(PathBuf),
}

struct Demo {
    tools: Tools,
    /// For the operator's chart.
    values: Vec<String>,
    cluster: Cluster,
    progress: Progress,
}

impl Demo {
    async fn show(self) -> Result<()> {
        let Self { tools, values, cluster, progress } = self;
        let place = match cluster {
            Cluster::OurOwn(image) => {
                let step = progress.step("start Kubernetes: control plane, containerd, kubelet, kube-proxy, DNS");
                let place = Place::start(tools, image).await?;
                step.done();
                place
            }
            Cluster::Given(kubeconfig) => Place::given(tools, kubeconfig)?,
        };
        let objects = Objects::new(testbed::control_plane::client(place.kubeconfig()).await?);
        let story = Story { place, objects, progress };
        story.install(&values)?;
        story.apply().await?;
        let (person, digest) = story.push().await?;
        if story.place.is_ours() {
            story.let_a_kubelet_pull(&person).await?;
        } else {
            story.say("left out: a pod that runs the image. Nodes must first trust the registry, see docs/clients.md");
        }
        story.kill(&person, &digest).await?;
        drop(person);
        let ours = story.place.is_ours();
        let (tools, kubeconfig) = story.place.leave()?;
        farewell(&tools, &kubeconfig, ours)
    }
}

struct Story {
    place: Place,
    objects: Objects,
    progress: Progress,
}

impl Story {
    fn say(&self, evidence: &str) {
        self.progress.say(&format!("    {evidence}"));
    }

    fn install(&self, values: &[String]) -> Result<()> {
        let step = self.progress.step("helm install: the definition's chart, then the operator's");
        self.place.helm("private-registry-crds", &[])?;
        self.place.helm("private-registry-operator", values)?;
        step.done();
        Ok(())
    }

    async fn apply(&self) -> Result<()> {
        let step = self.progress.step(format!("kubectl apply -f {MANIFEST}"));
        self.place.kubectl(["apply", "--filename", MANIFEST])?;
        let address = self.objects.ready_registry(&step).await?;
        step.done();
        self.say(&format!("ready, at {address}"));
        Ok(())
    }

    /// Somebody with the generated login pushes; others are refused. Gives that person and the image's digest.
    async fn push(&self) -> Result<(Person<'_>, String)> {
        let login: Secret = self.objects.get("team-a-admin").await?;
        let bundle: ConfigMap = self.objects.get("team-a-ca-bundle").await?;
        let authorities = bundle.data.unwrap_or_default().remove("ca.crt").context("the bundle has no ca.crt")?;
        let person = Person::new(&self.place, &authorities, &login)?;
        let name = person.reference(IMAGE);
        let step = self.progress.step(format!("push an image with three layers as {name}"));
        let digest = person.push(IMAGE)?;
        step.done();
        self.say(&format!("over TLS, with the generated login: {digest}"));
        self.say(&format!("without a login:       {}", person.refused_without_login(IMAGE)?));
        self.say(&format!("without the authority: {}", person.refused_without_authority(IMAGE)?));
        Ok((person, digest))
    }

    async fn let_a_kubelet_pull(&self, person: &Person<'_>) -> Result<()> {
        let step = self.progress.step("start a pod whose image the kubelet pulls with the Secret team-a-pull");
        let trusted = self.place.trust(person.authorities())?;
        self.objects.run_pod("hello", &person.reference(IMAGE)).await?;
        step.done();
        self.say(&format!("the node trusts the registry by {}, written just now", trusted.display()));
        Ok(())
    }

    async fn kill(&self, person: &Person<'_>, digest: &str) -> Result<()> {
        let step = self.progress.step("kill the registry");
        let before = self.objects.registry_pod().await?;
        self.place.kill(&before).await?;
        let after = self.objects.is_back(&before).await?;
        step.done();
        let again = person.pull(IMAGE)?;
        if again != digest {
            bail!("{IMAGE} was {digest} and is {again} after the restart");
        }
        self.say(&format!("{after}, and every layer of the image is still there"));
        Ok(())
    }
}

fn farewell(tools: &Tools, kubeconfig: &Path, is_ours: bool) -> Result<()> {
    println!("\n{} What you could do next:\n", if is_ours { "The cluster goes on." } else { "The registry goes on." });
    println!("    export KUBECONFIG={}", kubeconfig.display());
    println!("    alias kubectl={} helm={}", tools.path("kubectl")?.display(), tools.path("helm")?.display());
    println!("    kubectl -n {NAMESPACE} get privateregistry -o wide");
    println!("    kubectl -n {NAMESPACE} describe privateregistry {REGISTRY}");
    println!("    kubectl -n {NAMESPACE} get deployment,service,secret,configmap,pvc");
    println!("    kubectl apply -f deploy/examples/users.yaml      # logins of your own");
    println!("    kubectl explain privateregistry.spec             # every field\n");
    if is_ours {
        println!("Stop it with\n\n    cargo xtask demo --down");
    } else {
        println!("Remove it with\n\n    kubectl delete -f {MANIFEST}");
        for chart in ["private-registry-operator", "private-registry-crds"] {
            println!("    helm -n {SYSTEM} uninstall {chart}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_ends_those_of_its_own_checkout_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Path::new("/home/a/checkout"), Path::new("/home/a/another"));
        assert!(!was_left_by(ours, folder.path()), "not of a demo at all");
        mark(ours, folder.path()).unwrap();
        assert!(was_left_by(ours, folder.path()));
        assert!(!was_left_by(theirs, folder.path()));
    }

    #[test]
    fn a_kubeconfig_that_a_demo_told_its_user_to_export_is_no_cluster_of_somebodys() {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        assert_eq!(somebodys(None), None);
        assert_eq!(somebodys(Some(&kubeconfig)), Some(kubeconfig.as_path()));
        mark(Path::new("/home/a/another"), folder.path()).unwrap();
        assert_eq!(somebodys(Some(&kubeconfig)), None);
    }
}
