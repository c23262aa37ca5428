//! Asks for what is to be judged: the cluster, this machine, the registry. Every question has its limit, and what goes wrong with one is a fact of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{FutureExt as _, join};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::core::v1::{Event, Node as NodeObject, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::client::Body;
use kube::{Api, Client as KubeClient};
use private_registry_operator::access::cluster::{ClusterUser, REVIEWS};
use private_registry_operator::api::{AddressScope, PrivateRegistry, PrivateRegistryStatus};
use private_registry_operator::model::{Child, Host, HostPort};
use serde_json::Value;

use super::check::Found;
use super::facts::{
    Answered, Cluster, Facts, Has, Here, Image, Node, Operator, Pull, Server, Space, TrustFile, followed,
};
use crate::access;
use crate::cluster::{PAGE, Registry, explained};
use crate::registry_client::connection::{Door, trusting};
use crate::registry_client::reference::Reference;
use crate::registry_client::{Answer, Client, Login, manifest, pages};
use crate::{status, trust};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes of an answer that says how it went.
const MOST_WORDS: usize = 64 << 10;
/// Bytes of what a kubelet says of its pods.
const MOST_STATISTICS: usize = 32 << 20;
/// Bytes of the file with a system's authorities.
const MOST_AUTHORITIES: u64 = 8 << 20;
/// Pages of events that are looked through.
const MOST_PAGES: usize = 10;
/// Pods that are looked at because a pull of theirs failed.
const MOST_PODS: usize = 20;
/// How the charts label the operator's Deployment.
pub(crate) const OPERATOR: &str = "app.kubernetes.io/name=private-registry-operator";
/// Where and how the charts install it, unless somebody says otherwise.
pub(crate) const USUAL: (&str, &str) = ("private-registry-system", "private-registry-operator");
/// Where systems keep the authorities that every program trusts.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What somebody wants to know.
pub(super) struct Question {
    pub(super) image: Option<Image>,
    pub(super) node: Option<String>,
    /// As whom; otherwise the generated admin.
    pub(super) login: Option<Login>,
    pub(super) ca: Option<PathBuf>,
}

/// An answer, or in words why there is none in time.
pub(crate) async fn limited<T>(work: impl Future<Output = Result<T>>) -> Found<T> {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// Whether there is an API server, before anything else is asked of it.
pub(super) async fn server(client: &KubeClient) -> Found<Server> {
    limited(version_of(client)).await
}

/// What is so for every registry. `named`: the installations that registries say they are looked after by.
pub(super) async fn cluster(client: &KubeClient, server: Found<Server>, named: &BTreeSet<String>) -> Cluster {
    let (is_defined, operators) = match &server {
        Ok(_) => join!(limited(is_defined(client)), limited(operators(client, named))),
        Err(why) => (Err(why.clone()), Err(why.clone())),
    };
    Cluster {
        own_version: env!("CARGO_PKG_VERSION").to_owned(),
        server,
        is_defined,
        operators,
        named: named.iter().cloned().collect(),
    }
}

async fn version_of(client: &KubeClient) -> Result<Server> {
    let request = Request::get("/version").body(Body::empty()).context("write the request")?;
    let before = Timestamp::now();
    let (head, body) = client.send(request).await.map_err(explained)?.into_parts();
    let skew = skew(&head.headers, before, Timestamp::now());
    let body = Limited::new(body, MOST_WORDS).collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
    if !head.status.is_success() {
        bail!("it answers {} when it is asked for its version", head.status);
    }
    let version: Value = serde_json::from_slice(&body).map_err(|_| anyhow!("its answer is no JSON"))?;
    Ok(Server { version: version["gitVersion"].as_str().unwrap_or("of an unknown version").to_owned(), skew })
}

/// How far the clock of who answered is ahead of ours.
fn skew(headers: &HeaderMap, before: Timestamp, after: Timestamp) -> Option<SignedDuration> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    // Anything between question and answer is no skew.
    Some(match () {
        () if theirs > after => theirs.duration_since(after),
        // `Date` has whole seconds.
        () if theirs < before => {
            (theirs.duration_since(before) + SignedDuration::from_secs(1)).min(SignedDuration::ZERO)
        }
        () => SignedDuration::ZERO,
    })
}

async fn is_defined(client: &KubeClient) -> Result<bool> {
    match client.list_api_group_resources("privateregistry.dev/v1alpha1").await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == "privateregistries")),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(explained(error)),
    }
}

async fn operators(client: &KubeClient, named: &BTreeSet<String>) -> Result<Vec<Operator>> {
    let mut found = Vec::new();
    for (namespace, name) in named.iter().filter_map(|named| named.split_once('/')) {
        let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        // The chart gives its Lease and its Deployment one name.
        let one = api.get_opt(name).await.map_err(explained);
        found.extend(one.with_context(|| format!("read Deployment {namespace}/{name}"))?);
    }
    if found.is_empty() {
        let all: Api<Deployment> = Api::all(client.clone());
        let labelled = ListParams::default().labels(OPERATOR).limit(PAGE);
        match all.list(&labelled).await {
            Ok(listed) => found = listed.items,
            Err(kube::Error::Api(status)) if status.code == 403 => {
                let (namespace, name) = USUAL;
                let usual: Api<Deployment> = Api::namespaced(client.clone(), namespace);
                let one = usual.get_opt(name).await.map_err(explained);
                found.extend(one.with_context(|| format!("read Deployment {namespace}/{name}"))?);
            }
            Err(error) => return Err(explained(error)).context("list Deployments"),
        }
    }
    Ok(found.iter().map(operator).collect())
}

fn operator(deployment: &Deployment) -> Operator {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let containers = deployment.spec.template.spec.as_ref().map(|pod| pod.containers.as_slice());
    let image = containers.unwrap_or_default().first().and_then(|container| container.image.as_deref());
    let label = deployment.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/version"));
    Operator {
        namespace: text(&deployment.metadata.namespace),
        name: text(&deployment.metadata.name),
        version: image.and_then(version).or_else(|| label.cloned()),
        ready: deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0),
        wanted: deployment.spec.replicas.unwrap_or(1),
    }
}

/// The version in an image's name, if its tag is one.
fn version(image: &str) -> Option<String> {
    let name = image.split('@').next().unwrap_or_default();
    let tag = name.rsplit('/').next()?.split_once(':')?.1;
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let is_version = tag.split('.').count() == 3 && tag.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    is_version.then(|| tag.to_owned())
}

/// Of a registry that nobody can be asked about.
pub(super) fn nothing(registry: &Registry, question: &Question, why: &str) -> Facts {
    let unasked = || "it was not asked".to_owned();
    Facts {
        now: Timestamp::now(),
        namespace: registry.namespace.clone(),
        name: registry.name.to_string(),
        registry: Err(why.to_owned()),
        image: question.image.clone(),
        user: Err(unasked()),
        here: Here { authorities: system(), ..Here::default() },
        bundle: Err(unasked()),
        chain: None,
        pod: Err(unasked()),
        endpoints: Err(unasked()),
        answer: None,
        has: None,
        pull_secret: Err(unasked()),
        unasked_reviews: None,
        space: None,
        node: None,
        pulls: Err(unasked()),
    }
}

/// What there is to know of one registry.
pub(super) async fn registry(registry: &Registry, question: &Question) -> Facts {
    let mut facts = nothing(registry, question, "");
    facts.registry = limited(registry.read()).await;
    let Ok(found) = facts.registry.clone() else { return facts };
    let status = found.status.clone().unwrap_or_default();
    let address = followed(&status, question.image.as_ref());
    let login = limited(login(registry, &found, question));
    // Each of them may take its time, and none needs another.
    (facts.unasked_reviews, facts.bundle, facts.endpoints, facts.pull_secret, facts.pulls) = join!(
        unasked_reviews(registry, &found),
        limited(registry.bundle()),
        limited(endpoints(registry)),
        limited(pull_secret(registry)),
        pulls(registry, &status, question).boxed_local(),
    );
    let (here, pod, login, node) = join!(
        here(registry, address.clone(), facts.is_plain()).boxed_local(),
        limited(registry.ready_pod()),
        login,
        node(registry, question.node.as_deref()),
    );
    facts.here = Here { authorities: std::mem::take(&mut facts.here.authorities), ..here };
    facts.node = node;
    facts.user = login.as_ref().map(|login| login.as_ref().map(|login| login.user.to_string())).map_err(Clone::clone);
    facts.pod = pod.as_ref().map(|(_, name)| name.clone()).map_err(Clone::clone);
    let is_reached = matches!(facts.here.reached, Some(Ok(())));
    let direct = address.filter(|_| is_reached).map(|(at, _)| Door::Address { at, tls: None });
    let Ok((api, pod)) = pod else {
        facts.chain = shown(direct.as_ref(), facts.is_plain()).await;
        return facts;
    };
    facts.space = space(registry, &api, &pod, &status).await;
    let tls = match limited(access::trust(question.ca.as_deref(), registry, &found)).await {
        // A certificate that systems know anyway, of which the cluster does not know who signed it.
        Err(_) if found.spec.tls.as_ref().is_some_and(|tls| tls.secret.is_some()) => {
            trusting(&facts.here.authorities, "this machine").map(Some).map_err(|error| format!("{error:#}"))
        }
        known => known,
    };
    let names = access::names(registry, &status);
    let door = |tls| Door::Pod { api: Box::new(api.clone()), pod: pod.clone(), names: names.clone(), tls };
    let through = door(None);
    facts.chain = shown(direct.as_ref().or(Some(&through)), facts.is_plain()).await;
    match tls {
        Err(why) => facts.answer = Some(Err(why)),
        Ok(tls) => {
            let mut client = Client::new(door(tls), login.ok().flatten());
            facts.answer = Some(limited(answer(&mut client)).await);
            let reference = question.image.as_ref().and_then(|image| image.reference.as_ref().ok());
            if let (Some(Ok(Answered { status: 200..300, .. })), Some(reference)) = (&facts.answer, reference) {
                facts.has = Some(limited(has(&mut client, reference)).await);
            }
        }
    }
    facts
}

async fn unasked_reviews(registry: &Registry, found: &PrivateRegistry) -> Option<Found<Vec<&'static str>>> {
    found.spec.auth.as_ref()?.token.as_ref()?.kubernetes.as_ref()?;
    let account = ClusterUser::service_account(&registry.namespace, registry.name.as_str());
    let may = async |group: &str, resource: &str| {
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some("create".to_owned()),
            ..ResourceAttributes::default()
        };
        let review = account.may(attributes);
        let answer = Api::all(registry.client.clone()).create(&PostParams::default(), &review).await;
        Ok::<_, anyhow::Error>(answer.map_err(explained)?.status.is_some_and(|status| status.allowed))
    };
    let ask = async {
        let mut unasked = Vec::new();
        for (group, resource) in REVIEWS {
            if !may(group, resource).await? {
                unasked.push(resource);
            }
        }
        Ok(unasked)
    };
    Some(limited(ask).await)
}

async fn login(registry: &Registry, found: &PrivateRegistry, question: &Question) -> Result<Option<Login>> {
    match &question.login {
        Some(login) => Ok(Some(login.clone())),
        None if found.spec.auth.as_ref().is_some_and(|auth| auth.none.is_some()) => Ok(None),
        None => registry.admin().await,
    }
}

/// The authorities that programs of this machine trust; empty where they are kept in another way.
fn system() -> String {
    let of = |path: &&str| {
        let path = Path::new(path);
        let about = std::fs::metadata(path).ok()?;
        // A pipe would be waited for.
        (about.is_file() && about.len() <= MOST_AUTHORITIES).then(|| std::fs::read_to_string(path).ok())?
    };
    SYSTEM.iter().find_map(of).unwrap_or_default()
}

async fn here(registry: &Registry, address: Option<(HostPort, AddressScope)>, is_plain: bool) -> Here {
    let Some((address, scope)) = address else { return Here::default() };
    let port = address.port().unwrap_or(if is_plain { 80 } else { 443 });
    // What answers here to an address of the cluster's own network is somebody else.
    let is_for_us = scope == AddressScope::External;
    let resolved = match address.host() {
        Host::Name(name) if is_for_us => {
            let look = async {
                let found = tokio::net::lookup_host((name.as_str(), port)).await?;
                Ok(found.map(|at| at.ip()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>())
            };
            Some(limited(look).await)
        }
        _ => None,
    };
    let reached = match &resolved {
        Some(Err(_)) => None,
        _ if !is_for_us => None,
        _ => Some(limited(reach(&address, port)).await),
    };
    let files = match cfg!(target_os = "linux") && !is_plain {
        false => None,
        true => Some(
            limited(async {
                let files = trust::here(registry, &address).await?;
                let file = |(path, is_there): (PathBuf, bool)| TrustFile { path: path.display().to_string(), is_there };
                Ok(files.into_iter().map(file).collect())
            })
            .await,
        ),
    };
    Here { resolved, reached, files, authorities: String::new() }
}

async fn reach(address: &HostPort, port: u16) -> Result<()> {
    match address.host() {
        Host::Name(name) => tokio::net::TcpStream::connect((name.as_str(), port)).await?,
        Host::Ip(ip) => tokio::net::TcpStream::connect((*ip, port)).await?,
    };
    Ok(())
}

async fn shown(door: Option<&Door>, is_plain: bool) -> Option<Found<Vec<rustls::pki_types::CertificateDer<'static>>>> {
    match door {
        Some(door) if !is_plain => Some(limited(door.shown()).await),
        _ => None,
    }
}

async fn endpoints(registry: &Registry) -> Result<usize> {
    let of = format!("kubernetes.io/service-name={}", registry.name.child(Child::Service));
    let api: Api<EndpointSlice> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let listed = api.list(&ListParams::default().labels(&of).limit(PAGE)).await.map_err(explained);
    let slices = listed.context("list EndpointSlices")?.items;
    let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let ready =
        all.filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true)));
    // A Service of two IP families has a slice for each, with the same pods.
    let name = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.target_ref.as_ref().and_then(|pod| pod.name.clone()).unwrap_or_else(|| endpoint.addresses.join(","))
    };
    Ok(ready.map(name).collect::<BTreeSet<_>>().len())
}

/// For which hosts there is a login. Nothing else of the Secret is kept.
async fn pull_secret(registry: &Registry) -> Result<Option<Vec<String>>> {
    let name = registry.name.child(Child::Pull);
    let api: Api<Secret> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let found = api.get_opt(&name).await.map_err(explained);
    let Some(secret) = found.with_context(|| format!("read Secret {}/{name}", registry.namespace))? else {
        return Ok(None);
    };
    let text = secret.data.unwrap_or_default().remove(".dockerconfigjson").unwrap_or_default().0;
    Ok(Some(hosts(&text)))
}

fn hosts(docker_config: &[u8]) -> Vec<String> {
    let config: Value = serde_json::from_slice(docker_config).unwrap_or_default();
    config["auths"].as_object().into_iter().flat_map(serde_json::Map::keys).cloned().collect()
}

async fn answer(client: &mut Client<Door>) -> Result<Answered> {
    let before = Timestamp::now();
    let answer = client.ask("/v2/", "application/json", MOST_WORDS).await?;
    Ok(answered(&answer, before))
}

fn answered(answer: &Answer, before: Timestamp) -> Answered {
    Answered {
        status: answer.status.as_u16(),
        retry_after: answer.header(header::RETRY_AFTER.as_str()).map(str::to_owned),
        skew: skew(&answer.headers, before, Timestamp::now()),
        words: answer.words(),
    }
}

async fn has(client: &mut Client<Door>, Reference { repository, version }: &Reference) -> Result<Has> {
    let before = Timestamp::now();
    let answer = manifest::ask(client, repository, version).await?;
    match answer.status.as_u16() {
        200..300 => {
            let found = manifest::of_answer(repository, version, answer)?;
            let parts = found.manifest.manifests.into_iter().flatten();
            let platforms = parts.filter_map(|part| part.platform).map(|platform| platform.words());
            // What describes an image, such as how it was built, is for no platform.
            let platforms = platforms.filter(|platform| !platform.starts_with("unknown/")).collect();
            Ok(Has::Image { digest: found.digest, platforms })
        }
        404 => Ok(Has::Nothing(pages::tags(client, repository.as_str()).await?)),
        _ => Ok(Has::Refused(answered(&answer, before))),
    }
}

/// Of the volume, as the kubelet of the pod says it; `None` where there is no claim.
async fn space(
    registry: &Registry,
    pods: &Api<Pod>,
    pod: &str,
    status: &PrivateRegistryStatus,
) -> Option<Found<Space>> {
    let claim = status.storage.as_ref()?.claim_name.as_ref()?;
    let ask = async {
        let found = pods.get(pod).await.map_err(explained)?;
        let node = found.spec.and_then(|spec| spec.node_name).context("the pod has no node")?;
        let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
        let request = Request::get(path).body(Body::empty()).context("write the request")?;
        let (head, body) = registry.client.send(request).await.map_err(explained)?.into_parts();
        match head.status.as_u16() {
            200..300 => {}
            403 => bail!("it takes the right to get nodes/proxy"),
            status => bail!("the kubelet's statistics: {status}"),
        }
        let body = Limited::new(body, MOST_STATISTICS).collect().await.map_err(|error| anyhow!("{error}"))?.to_bytes();
        let statistics: Value =
            serde_json::from_slice(&body).map_err(|_| anyhow!("the kubelet's statistics are no JSON"))?;
        volume(&statistics, &registry.namespace, claim).context("the kubelet does not say it of this kind of volume")
    };
    Some(limited(ask).await)
}

/// Of a claim, in what a kubelet says of its pods.
fn volume(statistics: &Value, namespace: &str, claim: &str) -> Option<Space> {
    let volumes = statistics["pods"].as_array()?.iter().filter_map(|pod| pod["volume"].as_array()).flatten();
    let mut of =
        volumes.filter(|volume| volume["pvcRef"]["name"] == claim && volume["pvcRef"]["namespace"] == namespace);
    let found = of.next()?;
    Some(Space { available: found["availableBytes"].as_u64()?, capacity: found["capacityBytes"].as_u64()? })
}

async fn node(registry: &Registry, name: Option<&str>) -> Option<Found<Node>> {
    let name = name?;
    let api: Api<NodeObject> = Api::all(registry.client.clone());
    let ask = async { api.get_opt(name).await.map_err(explained) };
    Some(limited(ask).await.map(|found| match found {
        Some(node) => of_object(name, &node),
        None => Node {
            name: name.to_owned(),
            is_ready: false,
            message: "there is no such node".to_owned(),
            platform: String::new(),
            runtime: String::new(),
        },
    }))
}

fn of_object(name: &str, node: &NodeObject) -> Node {
    let status = node.status.clone().unwrap_or_default();
    let ready = status.conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    let about = status.node_info.unwrap_or_default();
    let message = ready.as_ref().map_or_else(
        || "its kubelet has said nothing yet".to_owned(),
        |ready| {
            let text = |part: &Option<String>| part.clone().unwrap_or_default();
            format!("{}: {}", text(&ready.reason), text(&ready.message))
        },
    );
    Node {
        name: name.to_owned(),
        is_ready: ready.is_some_and(|ready| ready.status == "True"),
        message,
        platform: format!("{}/{}", about.operating_system, about.architecture),
        runtime: about.container_runtime_version,
    }
}

/// Pulls from this registry that failed, as kubelets tell it in events, and what has become of them.
async fn pulls(registry: &Registry, status: &PrivateRegistryStatus, question: &Question) -> Found<Vec<Pull>> {
    let events = limited(failures(&registry.client, &registry.namespace)).await?;
    let mut last: BTreeMap<(String, String), &Event> = BTreeMap::new();
    for event in events.iter().filter(|event| is_about(event, status, question)) {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let pod = (text(&event.involved_object.namespace), text(&event.involved_object.name));
        let is_newer = last.get(&pod).is_none_or(|known| status::at(known) <= status::at(event));
        if is_newer {
            last.insert(pod, event);
        }
    }
    let mut last: Vec<_> = last.into_iter().collect();
    last.sort_by_key(|(_, event)| std::cmp::Reverse(status::at(event)));
    last.truncate(MOST_PODS);
    let look = last.into_iter().map(async |((namespace, pod), event)| {
        let api: Api<Pod> = Api::namespaced(registry.client.clone(), &namespace);
        let found = limited(async { api.get_opt(&pod).await.map_err(explained) }).await;
        let is_over = found.is_ok_and(|found| found.is_none_or(|found| !waits_for_an_image(&found)));
        let node = event.source.as_ref().and_then(|source| source.host.clone()).unwrap_or_default();
        Pull { namespace, pod, node, message: event.message.clone().unwrap_or_default(), is_over }
    });
    Ok(futures::future::join_all(look).await)
}

/// Events of pulls that failed, of all namespaces if they may be read.
async fn failures(client: &KubeClient, namespace: &str) -> Result<Vec<Event>> {
    let failed = "involvedObject.kind=Pod,type=Warning,reason=Failed";
    let mut api: Api<Event> = Api::all(client.clone());
    let mut page = ListParams::default().fields(failed).limit(PAGE);
    let mut events = Vec::new();
    for _ in 0..MOST_PAGES {
        let mut listed = api.list(&page).await;
        if matches!(&listed, Err(kube::Error::Api(status)) if status.code == 403) {
            api = Api::namespaced(client.clone(), namespace);
            listed = api.list(&page).await;
        }
        let listed = listed.map_err(explained).context("list events")?;
        events.extend(listed.items);
        match listed.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page = page.continue_token(&more),
            None => break,
        }
    }
    Ok(events)
}

/// Whether an event is of a pull of what is followed, or of anything from this registry if that is nothing in particular.
fn is_about(event: &Event, status: &PrivateRegistryStatus, question: &Question) -> bool {
    let is_elsewhere = question.node.as_ref().is_some_and(|node| {
        event.source.as_ref().and_then(|source| source.host.as_ref()).is_some_and(|host| host != node)
    });
    let message = event.message.as_deref().unwrap_or_default();
    let pulled = message.strip_prefix("Failed to pull image \"").and_then(|rest| rest.split_once('"'));
    let Some((pulled, _)) = pulled.filter(|_| !is_elsewhere) else { return false };
    let pulled = Image::parse(pulled);
    let is_ours = pulled.host.as_ref().is_some_and(|host| status.addresses.iter().any(|known| known.address == *host));
    match &question.image {
        None => is_ours,
        Some(image) => {
            let is_same_host = pulled.host.is_some() && pulled.host == image.host;
            (is_ours || is_same_host) && pulled.reference.is_ok() && pulled.reference == image.reference
        }
    }
}

/// Whether a container of the pod does not have its image.
fn waits_for_an_image(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    let reasons = all.filter_map(|container| container.state?.waiting?.reason);
    let waits = ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"];
    reasons.into_iter().any(|reason| waits.contains(&reason.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::facts::testing;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_question_waits_for_ever() {
        let asked = tokio::time::Instant::now();
        let never: Found<()> = limited(std::future::pending()).await;
        assert_eq!((never, asked.elapsed().as_secs()), (Err("no answer within 10 s".to_owned()), 10));
    }

    #[test]
    fn a_clock_is_off_by_what_neither_the_way_nor_the_seconds_explain() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let headers = HeaderMap::from_iter([(header::DATE, "Mon, 30 Nov 2026 12:00:00 GMT".parse().unwrap())]);
        for (before, after, seconds) in [
            ("2026-11-30T11:59:59Z", "2026-11-30T12:00:02Z", 0),
            ("2026-11-30T12:00:00.9Z", "2026-11-30T12:00:01Z", 0),
            ("2026-11-30T11:58:00Z", "2026-11-30T11:58:20Z", 100),
            ("2026-11-30T12:01:41Z", "2026-11-30T12:01:42Z", -100),
        ] {
            assert_eq!(skew(&headers, at(before), at(after)).unwrap().as_secs(), seconds, "{before}");
        }
        assert_eq!(skew(&HeaderMap::new(), at("2026-11-30T11:59:59Z"), at("2026-11-30T12:00:02Z")), None);
    }

    #[test]
    fn a_version_is_read_from_the_image_where_its_tag_is_one() {
        for (image, found) in [
            ("registry.example.com:5000/private-registry-operator:0.1.0", Some("0.1.0")),
            ("operator:v1.2.3-rc.1@sha256:0", None),
            ("operator:v1.2.3@sha256:0", Some("1.2.3")),
            ("registry.example.com:5000/operator", None),
            ("operator:main", None),
            ("operator@sha256:0", None),
        ] {
            assert_eq!(version(image).as_deref(), found, "{image}");
        }
    }

    #[test]
    fn room_is_read_of_this_claim_alone() {
        let volume_of = |namespace: &str, claim: &str, available: u64| json!({"pvcRef": {"name": claim, "namespace": namespace}, "availableBytes": available, "capacityBytes": 100});
        let statistics = json!({"pods": [
            {"podRef": {"name": "a"}},
            {"volume": [{"name": "tmp", "availableBytes": 1}, volume_of("other", "team-a-data", 1), volume_of("shop", "team-b-data", 2)]},
            {"volume": [volume_of("shop", "team-a-data", 3)]},
        ]});
        assert_eq!(volume(&statistics, "shop", "team-a-data").unwrap().available, 3);
        assert!(volume(&statistics, "shop", "team-c-data").is_none());
    }

    #[test]
    fn only_pulls_of_what_is_followed_count() {
        let status = testing::facts().status();
        let event = |message: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "message": message, "source": {"component": "kubelet", "host": "node-1"},
            }))
            .unwrap()
        };
        let question = |image: Option<&str>, node: Option<&str>| Question {
            image: image.map(Image::parse),
            node: node.map(str::to_owned),
            login: None,
            ca: None,
        };
        let failed = |image: &str| event(&format!("Failed to pull image \"{image}\": not found"));
        let own = "registry.example.com:5000/team/app:1";
        for (image, asked, node, is) in [
            (own, None, None, true),
            ("10.96.0.9:5000/team/app", None, None, true),
            ("docker.io/library/busybox", None, None, false),
            ("registry.example.com:50001/team/app:1", None, None, false),
            (own, None, Some("node-2"), false),
            (own, Some(own), Some("node-1"), true),
            ("10.96.0.9:5000/team/app:1", Some(own), None, true),
            ("10.96.0.9:5000/team/app:2", Some(own), None, false),
            // As somebody calls it who has the port wrong.
            ("registry.example.com/team/app:1", Some("registry.example.com/team/app:1"), None, true),
            ("elsewhere.example.com/team/app:1", Some(own), None, false),
        ] {
            assert_eq!(is_about(&failed(image), &status, &question(asked, node)), is, "{image}, {asked:?}, {node:?}");
        }
        assert!(!is_about(&event("Error: ErrImagePull"), &status, &question(None, None)));
    }

    #[test]
    fn a_pod_that_has_its_image_waits_for_none() {
        let pod = |reason: &str| -> Pod {
            let waiting = json!({"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}});
            serde_json::from_value(json!({"status": {"containerStatuses": [waiting]}})).unwrap()
        };
        assert!(waits_for_an_image(&pod("ImagePullBackOff")) && !waits_for_an_image(&pod("CrashLoopBackOff")));
        assert!(!waits_for_an_image(&Pod::default()));
    }

    #[test]
    fn of_a_pull_secret_only_its_hosts_are_kept() {
        let text =
            json!({"auths": {"a.example.com": {"username": "ann", "password": "planted"}, "b:5000": {}}}).to_string();
        assert_eq!(hosts(text.as_bytes()), ["a.example.com", "b:5000"]);
        assert_eq!(hosts(b"no JSON"), Vec::<String>::new());
    }
}
