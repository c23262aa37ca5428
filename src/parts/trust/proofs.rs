//! Proof by a pull: on each node that has written what was ordered, once for each order, a pod asks for an image that the registry does not have. What the
//! kubelet says of it tells whether the runtime trusts the registry. The pods are in a namespace of their own, where nothing
//! may be mounted, and go as soon as they have told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use operator_engine::work::queue::Key;
use sha2::{Digest as _, Sha256};

use super::super::{Context, Error, Pass};
use super::each;
use crate::desired::node_proof::{self, Proof, Proofs};
use crate::model::NodeAgents;
use crate::node::proof::{Verdict, judge};

/// Pods of one registry at once.
const AT_ONCE: usize = 5;
/// How soon it goes on with what has just been kept.
const GO_ON: Duration = Duration::from_secs(1);
/// How long a node may take to say something.
const PATIENCE: SignedDuration = SignedDuration::from_secs(90);
/// How soon what is not proved is tried again.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// Pods in one page of a list.
const PAGE: u32 = 100;

/// What was found out.
pub(super) struct Found {
    /// What is known of the nodes that have written what was ordered.
    pub(super) proofs: Proofs,
    /// When something is to be tried again.
    pub(super) look_again: Option<Duration>,
}

/// Goes on with the proofs of `written` nodes for this order, whose image names begin with `host`. `stored`: what was found out before, as it is kept.
///
/// That a node is asked is kept before its pod is made, and a pod goes when what it told is kept: so there is one pod for a node and an order, and not one
/// more for each time that something in between is refused.
pub(super) async fn settle(
    pass: &Pass<'_>,
    agents: &NodeAgents,
    order: &str,
    host: &str,
    written: &BTreeSet<String>,
    stored: &Proofs,
) -> Result<Found, Error> {
    let mut proofs = stored.clone();
    proofs.retain(|node, proof| written.contains(node) && proof.is_of(order));
    let kept = proofs.clone();
    let is_asked = |proofs: &Proofs, node: &str| proofs.get(node).is_some_and(|proof| proof.verdict == Verdict::Asked);
    let age = |proof: &Proof| pass.now.duration_since(proof.at);
    let is_due = |proof: &Proof| matches!(proof.verdict, Verdict::Refused | Verdict::Unclear) && age(proof) >= AGAIN;

    if proofs.values().any(|proof| proof.verdict == Verdict::Asked) || pass.ctx.recall.may_be_proving(pass.key) {
        let api: Api<Pod> = Api::namespaced(pass.ctx.client.clone(), &agents.proofs);
        let pods = list(&api, pass.key).await?;
        pass.ctx.recall.proves(pass.key, !pods.is_empty());
        let mut running = BTreeSet::new();
        for pod in &pods {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let is_of = pod.labels().get(node_proof::ORDER).is_some_and(|of| order.starts_with(of.as_str()));
            if is_of && is_asked(&kept, &node) {
                if let Some((verdict, message)) = answer(pod, pass.now) {
                    proofs.insert(node.clone(), Proof::new(order, verdict, &message, pass.now));
                }
                running.insert(node);
            } else {
                delete(&api, pod).await?;
            }
        }
        for (node, proof) in
            kept.iter().filter(|(node, proof)| proof.verdict == Verdict::Asked && !running.contains(*node))
        {
            if age(proof) >= PATIENCE {
                let why = "the pod that was to prove it has gone";
                proofs.insert(node.clone(), Proof::new(order, Verdict::Unclear, why, pass.now));
            } else if pass.ctx.recall.may_make(pass.key, node, proof.at) {
                make(pass, &api, &node_proof::pod(pass.registry, &name(pass, node, order), node, host, order)).await?;
            }
        }
    }
    let asked = proofs.values().filter(|proof| proof.verdict == Verdict::Asked).count();
    let mut open: Vec<_> = written.iter().filter(|node| proofs.get(*node).is_none_or(is_due)).collect();
    // Other registries begin with other nodes.
    open.sort_by_key(|node| name(pass, node, ""));
    for node in open.into_iter().take(AT_ONCE.saturating_sub(asked)) {
        proofs.insert(node.clone(), Proof::new(order, Verdict::Asked, "", pass.now));
    }
    let failed = proofs.values().filter(|proof| matches!(proof.verdict, Verdict::Refused | Verdict::Unclear));
    let again = failed.map(|proof| (AGAIN - age(proof)).max(SignedDuration::from_secs(1)).unsigned_abs()).min();
    let waits = proofs.values().any(|proof| proof.verdict == Verdict::Asked).then_some(PATIENCE.unsigned_abs());
    // What is new is kept first.
    let goes_on = (proofs != *stored).then_some(GO_ON);
    Ok(Found { look_again: again.into_iter().chain(waits).chain(goes_on).min(), proofs })
}

async fn make(pass: &Pass<'_>, api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
    pass.ctx.recall.proves(pass.key, true);
    match api.create(&PostParams::default(), pod).await {
        Ok(_) => Ok(()),
        // The former one of its name is on its way out.
        Err(kube::Error::Api(refusal)) if refusal.is_already_exists() => Ok(()),
        Err(source) => Err(failed(pass.key, source)),
    }
}

/// Takes the pods of a registry away, of which nothing is to be proved any more. No request if there can be none.
pub(crate) async fn clear(registry: &Key, ctx: &Context) -> Result<(), Error> {
    let Some(agents) = ctx.settings.node_agents.as_ref().filter(|_| ctx.recall.may_be_proving(registry)) else {
        return Ok(());
    };
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &agents.proofs);
    for pod in list(&api, registry).await? {
        delete(&api, &pod).await?;
    }
    ctx.recall.proves(registry, false);
    Ok(())
}

async fn list(api: &Api<Pod>, registry: &Key) -> Result<Vec<Pod>, Error> {
    let params = ListParams::default().labels(&node_proof::selector(&registry.namespace, &registry.name)).limit(PAGE);
    let mut all = Vec::new();
    each(api, params, |pod| all.push(pod)).await.map_err(|source| failed(registry, source))?;
    Ok(all)
}

async fn delete(api: &Api<Pod>, pod: &Pod) -> Result<(), Error> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    match api.delete(&pod.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.is_not_found() => Ok(()),
        Err(source) => Err(Error::Proof { registry: pod.name_any(), source: Box::new(source) }),
    }
}

fn failed(registry: &Key, source: kube::Error) -> Error {
    Error::Proof { registry: registry.to_string(), source: Box::new(source) }
}

/// The same for the same node and order, so that a second operator or a lost answer makes no second pod.
fn name(pass: &Pass<'_>, node: &str, order: &str) -> String {
    let digest = Sha256::digest(format!("{}/{node}/{order}", pass.registry.uid));
    digest.iter().take(10).fold("proof-".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// What a pod has told; `None`: nothing yet.
fn answer(pod: &Pod, now: Timestamp) -> Option<(Verdict, String)> {
    let status = pod.status.clone().unwrap_or_default();
    let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_deref()).unwrap_or_default();
    let state = status.container_statuses.iter().flatten().next().and_then(|container| container.state.clone());
    if let Some(state) = &state {
        if let Some(ContainerStateWaiting { reason: Some(reason), message }) = &state.waiting
            && reason.to_lowercase().contains("image")
        {
            let message = message.clone().unwrap_or_default();
            // The first word after a pull that failed is short; what was wrong follows.
            if !message.is_empty() {
                return Some((judge(image, &message), message));
            }
        }
        if state.running.is_some() || state.terminated.is_some() {
            return Some((Verdict::Unclear, "something runs under a name that no image can have".to_owned()));
        }
    }
    if status.phase.as_deref() == Some("Failed") {
        let why = status.message.or(status.reason).unwrap_or_default();
        return Some((Verdict::Unclear, format!("the node did not take the pod: {why}")));
    }
    let since = pod.metadata.creation_timestamp.as_ref().map(|time| time.0)?;
    (now.duration_since(since) >= PATIENCE).then(|| (Verdict::Unclear, "the node has not tried in time".to_owned()))
}

/// Reads what is stored.
pub(super) fn read(data: Option<&serde_json::Value>) -> Proofs {
    let entries = data.and_then(serde_json::Value::as_object).into_iter().flatten();
    entries.filter_map(|(node, text)| Some((node.clone(), Proof::parse(text.as_str()?)?))).collect::<BTreeMap<_, _>>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status}))
            .unwrap()
    }

    #[test]
    fn a_pod_tells_by_its_pull_or_by_its_silence() {
        let at = |second: i64| "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second);
        let waiting = |reason: &str, message: &str| {
            json!({"phase": "Pending", "containerStatuses": [{
                "name": "proof", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }]})
        };
        let verdict = |status: serde_json::Value, second| answer(&pod(&status), at(second)).map(|(verdict, _)| verdict);
        assert_eq!(verdict(json!({}), 89), None);
        assert_eq!(verdict(json!({}), 90), Some(Verdict::Unclear));
        assert_eq!(verdict(waiting("ContainerCreating", "x"), 1), None);
        assert_eq!(verdict(waiting("ErrImagePull", ""), 1), None);
        assert_eq!(verdict(waiting("ErrImagePull", "401 Unauthorized"), 1), Some(Verdict::Trusted));
        assert_eq!(verdict(waiting("ImagePullBackOff", "Back-off pulling: x509: unknown"), 1), Some(Verdict::Refused));
        assert_eq!(verdict(json!({"phase": "Failed", "reason": "OutOfpods"}), 1), Some(Verdict::Unclear));
    }
}
