//! A real node with one operator, and how long its objects take until they are as wanted.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::{
    Client,
    api::DynamicObject,
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;
use testbed::{Node, image, node, sandbox::Place};
use tokio::time::timeout;

use super::{
    objects::{self, api, registry},
    operator::Operator,
    wait::PATIENCE,
    world::NAMESPACE,
};

const IMAGE: &str = "bench.local/private-registry-operator:bench";

/// The node runs as long as this lives.
pub(super) struct ServedNode {
    // Fields end in this order: the operator before what it asks.
    _operator: Operator,
    pub(super) node: Node,
    /// Has all rights.
    pub(super) client: Client,
}

impl ServedNode {
    /// Starts both, with the operator's image on the node and [`NAMESPACE`] for registries, and with more arguments for the operator.
    pub(super) async fn start(program: &Path, mut options: node::Options, more: &[&str]) -> Result<Self> {
        options.images.push(image::operator(program, IMAGE)?);
        let node = Node::start(options).await?;
        let client = node.client().await?;
        objects::install_definition(&client).await?;
        objects::namespace(&client, NAMESPACE).await?;
        let kubeconfig = node.control_plane().inside_kubeconfig("admin")?;
        let images = ["--operator-image", IMAGE, "--registry-image", image::REGISTRY];
        let arguments = [&images[..], more].concat();
        let operator = Operator::start(program, node.sandbox(), Place::Inside, &kubeconfig, &arguments)?;
        Ok(Self { _operator: operator, node, client })
    }
}

/// Applies registries of these names and specs, and waits until all are ready.
pub(super) async fn all_ready(client: &Client, wanted: &[(&str, Value)]) -> Result<()> {
    let started = Instant::now();
    for (name, spec) in wanted {
        let mut manifest = registry(NAMESPACE, name);
        manifest["spec"] = spec.clone();
        objects::apply(client, &manifest).await?;
    }
    for (name, _) in wanted {
        reached(client, "PrivateRegistry", name, "Ready", started).await?;
    }
    Ok(())
}

/// Waits through a watch until an object's condition is true for what its spec says now.
pub(super) async fn reached(
    client: &Client,
    kind: &str,
    name: &str,
    condition: &str,
    started: Instant,
) -> Result<Duration> {
    let waited = timeout(PATIENCE, await_condition(api(client, NAMESPACE, kind), name, is_true(condition)));
    waited.await.with_context(|| format!("{kind} {name} is not {condition} after {PATIENCE:?}"))??;
    Ok(started.elapsed())
}

fn is_true(condition: &str) -> impl Condition<DynamicObject> {
    move |object: Option<&DynamicObject>| {
        object.is_some_and(|object| {
            let status = &object.data["status"];
            let conditions = status["conditions"].as_array();
            let found = conditions.into_iter().flatten().find(|found| found["type"] == condition);
            let is_current = status["observedGeneration"].as_i64() == object.metadata.generation;
            is_current && found.is_some_and(|found| found["status"] == "True")
        })
    }
}
