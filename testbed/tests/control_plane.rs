//! A bare control plane does what a cluster does, shows what was asked of it, can be mistreated, and leaves nothing.

mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service, ServiceAccount},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use nix::unistd::{Uid, chown, setgid, setgroups, setuid};
use serde_json::json;
use testbed::{
    ControlPlane, Family, Mode, Options, Progress, Tools, control_plane, debian,
    sandbox::{Kind, Sandbox},
    skip,
    traces::Traces,
};
use tokio::sync::OnceCell;

/// Stopping takes a third of a second on an idle machine.
const STOP_LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(5);

/// One for the tests that only use it. Nobody drops it: it ends with the process.
async fn shared() -> Result<&'static ControlPlane> {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    PLANE.get_or_try_init(|| ControlPlane::start(Options::audited())).await
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    control_plane::client(kubeconfig).await
}

fn config_map(name: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}}))?)
}

fn status(outcome: kube::Result<impl Sized>) -> Option<u16> {
    match outcome {
        Err(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}

#[tokio::test]
async fn a_control_plane_is_a_cluster_with_controllers() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let client = shared().await?.client().await?;
    ensure!(client.apiserver_version().await?.git_version == "v1.37.1", "the version is stamped");
    Api::<ServiceAccount>::default_namespaced(client.clone()).get("default").await?;
    Api::<ConfigMap>::default_namespaced(client.clone()).create(&PostParams::default(), &config_map("made")?).await?;

    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "x", "image": "x"}]}});
    let spec = json!({"selector": {"matchLabels": {"app": "x"}}, "template": template});
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": spec}))?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &deployment).await?;
    let started = Instant::now();
    let pods = Api::<Pod>::default_namespaced(client);
    let unschedulable = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|condition| condition.reason.as_deref() == Some("Unschedulable")))
    };
    while !pods.list(&ListParams::default().labels("app=x")).await?.iter().any(unschedulable) {
        ensure!(started.elapsed() < Duration::from_secs(20), "no pod that the scheduler has looked at");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_user_has_the_rights_that_were_given_and_no_others() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let plane = shared().await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "viewers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "viewers"}],
    }))?;
    Api::default_namespaced(plane.client().await?).create(&PostParams::default(), &binding).await?;

    let viewer = Api::<ConfigMap>::default_namespaced(client(&plane.kubeconfig_for("ann", Some("viewers"))?).await?);
    // A controller puts the aggregated role together some time after the start.
    let granted = Instant::now() + Duration::from_secs(20);
    while status(viewer.list(&ListParams::default()).await) == Some(403) && Instant::now() < granted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    viewer.list(&ListParams::default()).await?;
    ensure!(
        status(viewer.create(&PostParams::default(), &config_map("forbidden")?).await) == Some(403),
        "she may only look"
    );
    let nobody = Api::<ConfigMap>::default_namespaced(client(&plane.kubeconfig_for("bob", None)?).await?);
    ensure!(status(nobody.list(&ListParams::default()).await) == Some(403), "he may do nothing");
    let stranger = client(&plane.kubeconfig_with_token("stranger", "not-a-token")?).await?;
    let stranger = Api::<ConfigMap>::default_namespaced(stranger);
    ensure!(status(stranger.list(&ListParams::default()).await) == Some(401), "nobody knows this token");
    Ok(())
}

#[tokio::test]
async fn the_audit_log_shows_exactly_what_was_asked_between_two_marks() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let plane = shared().await?;
    let audit = plane.audit().await?;
    let maps = Api::<ConfigMap>::default_namespaced(plane.client().await?);
    maps.create(&PostParams::default(), &config_map("before")?).await?;

    let mark = audit.mark().await?;
    maps.create(&PostParams::default(), &config_map("audited")?).await?;
    maps.get("audited").await?;
    let patch = Patch::Merge(json!({"data": {"a": "c"}}));
    maps.patch("audited", &PatchParams::default(), &patch).await?;
    ensure!(maps.get_opt("absent").await?.is_none(), "nobody made it");
    let entries = audit.since(mark).await?;
    let ours: Vec<_> = entries.iter().filter(|entry| entry.user == "admin" && entry.name.starts_with('a')).collect();
    let seen: Vec<_> =
        ours.iter().map(|entry| (entry.verb.as_str(), entry.name.as_str(), entry.code, entry.is_write())).collect();
    let expected = [
        ("create", "audited", 201, true),
        ("get", "audited", 200, false),
        ("patch", "audited", 200, true),
        ("get", "absent", 404, false),
    ];
    ensure!(seen == expected, "{entries:#?}");
    ensure!(ours.iter().all(|entry| entry.resource == "configmaps" && entry.namespace == "default"), "{ours:#?}");

    let quiet = audit.mark().await?;
    let entries = audit.since(quiet).await?;
    ensure!(entries.iter().all(|entry| entry.user != "admin" || !entry.name.starts_with('a')), "{entries:#?}");
    Ok(())
}

#[tokio::test]
async fn an_api_server_can_be_killed_frozen_and_brought_back() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let plane = ControlPlane::start(Options::default()).await?;
    let maps = Api::<ConfigMap>::default_namespaced(plane.client().await?);
    maps.create(&PostParams::default(), &config_map("kept")?).await?;

    plane.kill_apiserver()?;
    ensure!(maps.get("kept").await.is_err(), "it is dead");
    plane.restart_apiserver().await?;
    maps.get("kept").await.context("its data and its address are the same")?;

    plane.pause_apiserver()?;
    // Its threads stop one after the other: a first request may still slip through.
    let mut tries = 10;
    while tokio::time::timeout(Duration::from_millis(500), maps.get("kept")).await.is_ok() {
        tries -= 1;
        ensure!(tries > 0, "it is frozen");
    }
    plane.resume_apiserver()?;
    maps.get("kept").await?;
    ensure!(plane.audit().await.is_err(), "nobody asked for an audit log");
    Ok(())
}

#[tokio::test]
async fn a_control_plane_is_usable_within_five_seconds() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    Tools::ensure(Family::CONTROL_PLANE, &Progress::auto())?;
    let started = Instant::now();
    let plane = ControlPlane::start(Options::default()).await?;
    let (took, limit) = (started.elapsed(), support::limit_here(Duration::from_secs(5)));
    ensure!(took < limit, "{took:?}, limit {limit:?}");
    plane.stop()
}

#[tokio::test]
async fn two_control_planes_run_side_by_side_and_leave_nothing() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let before = Traces::of_machine("none");
    let planes = tokio::try_join!(ControlPlane::start(Options::default()), ControlPlane::start(Options::default()))?;
    for plane in [&planes.0, &planes.1] {
        let maps = Api::<ConfigMap>::default_namespaced(plane.client().await?);
        maps.create(&PostParams::default(), &config_map("same-name")?).await?;
    }
    for plane in [planes.0, planes.1] {
        let sandbox = Arc::clone(plane.sandbox());
        let started = Instant::now();
        plane.stop()?;
        ensure!(started.elapsed() < STOP_LIMIT, "stopping took {:?}", started.elapsed());
        let left = Traces::left(sandbox.id(), &before, PATIENCE);
        ensure!(left.is_empty() && !sandbox.dir().exists(), "{left:#?}");
    }
    Ok(())
}

/// As root, runs itself again and becomes nobody, with programs from a second cache, the only one that nobody may read. An ordinary user
/// runs the tests above as it is.
#[tokio::test]
async fn an_ordinary_user_needs_no_root_and_may_use_a_cache_of_others() -> Result<()> {
    const AGAIN: &str = "BECOME_NOBODY";
    if skip(Mode::ControlPlane) || !Uid::effective().is_root() {
        return Ok(());
    }
    let tools = Tools::ensure(Family::CONTROL_PLANE, &Progress::auto())?;
    if env::var_os(AGAIN).is_some() {
        return is_usable_by_nobody(&tools).await;
    }
    let home = tempfile::tempdir_in("/tmp")?;
    let cache = home.path().join("cache");
    fs::create_dir(&cache)?;
    for (_, programs) in tools.folders() {
        let copied = Command::new("cp").arg("-a").arg(programs.parent().context("its folder")?).arg(&cache).status()?;
        ensure!(copied.success(), "copy {}", programs.display());
    }
    chown(home.path(), Some(65534.into()), Some(65534.into()))?;
    let mut test = Command::new(env::current_exe()?);
    test.args(["--exact", "an_ordinary_user_needs_no_root_and_may_use_a_cache_of_others"]);
    test.env(AGAIN, "1").env("HOME", home.path()).env_remove("XDG_STATE_HOME").env_remove("XDG_CACHE_HOME");
    // Should it not find them, it is to fail, not to build them again.
    let output = test.env("TESTBED_CACHE", &cache).env("GOPROXY", "off").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    ensure!(!home.path().join(".cache").exists(), "what is in the second cache is not made again");
    Ok(())
}

async fn is_usable_by_nobody(tools: &Tools) -> Result<()> {
    let cache = PathBuf::from(env::var_os("TESTBED_CACHE").context("a second cache")?);
    ensure!(tools.path("etcd")?.starts_with(&cache), "{}", tools.path("etcd")?.display());
    setgroups(&[])?;
    setgid(65534.into())?;
    setuid(65534.into())?;
    ensure!(fs::create_dir(cache.join("x")).is_err(), "nobody may only read it");
    let refusal = testbed::missing(Mode::Node).context("nobody can't have a node")?;
    ensure!(refusal.starts_with("node mode needs root on Linux") && refusal.lines().count() == 1, "{refusal}");
    let absent = [debian::Program { name: "no-such-program", package: "its-package" }];
    let refusal = debian::ensure(&absent).err().context("nobody can't install")?.to_string();
    ensure!(refusal.contains("its-package"), "{refusal}");

    let plane =
        ControlPlane::start_in(Arc::new(Sandbox::create(Kind::ControlPlane)?), tools, Options::default()).await?;
    plane.usable().await?;
    let maps = Api::<ConfigMap>::default_namespaced(plane.client().await?);
    maps.create(&PostParams::default(), &config_map("of-nobody")?).await?;
    let folder = plane.sandbox().dir().to_owned();
    plane.stop()?;
    ensure!(!folder.exists(), "{} is left", folder.display());
    Ok(())
}

#[tokio::test]
async fn services_of_a_dual_stack_control_plane_get_an_address_of_each_family_when_they_ask() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let service = |name: &str, policy: &str| -> Result<Service> {
        let spec = json!({"ipFamilyPolicy": policy, "ports": [{"port": 5000}]});
        Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
    };
    let addresses = |service: Service| service.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();

    let plane = ControlPlane::start(Options { dual_stack: true, ..Options::default() }).await?;
    let services = Api::default_namespaced(plane.client().await?);
    for (name, policy, expected) in
        [("one", "SingleStack", 1), ("may", "PreferDualStack", 2), ("must", "RequireDualStack", 2)]
    {
        let made = addresses(services.create(&PostParams::default(), &service(name, policy)?).await?);
        ensure!(made.len() == expected && made[0].starts_with("10.96."), "{name}: {made:?}");
        ensure!(made.iter().skip(1).all(|second| second.starts_with("fd00:10:96::")), "{name}: {made:?}");
    }

    let services = Api::default_namespaced(shared().await?.client().await?);
    let made = addresses(services.create(&PostParams::default(), &service("may", "PreferDualStack")?).await?);
    ensure!(made.len() == 1, "a plane with one family gives one address: {made:?}");
    let refused = services.create(&PostParams::default(), &service("must", "RequireDualStack")?).await;
    ensure!(status(refused) == Some(422), "a plane with one family can't give two");
    plane.stop()
}
