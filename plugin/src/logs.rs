//! `logs`: what a registry's pods write. It may hold what clients sent, so the operator has no right to read it; whoever runs this needs one.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::AsyncBufReadExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, LogParams};
use operator_engine::process::flag_values::duration;
use private_registry_operator::model::{RegistryName, labels};

use crate::cluster::{self, PAGE, Place, Registry, explained};
use crate::shell;

/// The container of the registry itself.
const REGISTRY: &str = "registry";
/// Bytes of a line that are shown.
const LONGEST_LINE: usize = 64 << 10;

/// Options of `logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// Go on with what is written from now on, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Lines of each pod from the end [default: all that are kept]
    #[arg(long, value_name = "NUMBER")]
    tail: Option<u32>,
    /// What is not older than this
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Container of the pods; a front end has its own: frontend, sidecar
    #[arg(short, long, value_name = "NAME", default_value = REGISTRY)]
    container: String,
    /// What the container before this one wrote, which ended
    #[arg(short, long, conflicts_with = "follow")]
    previous: bool,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let pods = pods(&registry, &options.container).await?;
        let api: Api<Pod> = Api::namespaced(registry.patient_client()?, &registry.namespace);
        let several = pods.len() > 1;
        let asked = pods.iter().map(|pod| {
            let head = if several { format!("[{pod}] ") } else { String::new() };
            copy(&api, pod, parameters(options), head)
        });
        join_all(asked).await.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(())
    })
}

fn parameters(options: &Options) -> LogParams {
    LogParams {
        container: Some(options.container.clone()),
        follow: options.follow,
        previous: options.previous,
        since_seconds: options.since.map(|since| i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX)),
        tail_lines: options.tail.map(i64::from),
        ..LogParams::default()
    }
}

/// Names of its pods.
async fn pods(registry: &Registry, container: &str) -> Result<Vec<String>> {
    registry.read().await?;
    let labels = labels::selector(&registry.name).into_iter().map(|(key, value)| format!("{key}={value}"));
    let of = ListParams::default().labels(&labels.collect::<Vec<_>>().join(",")).limit(PAGE);
    let api: Api<Pod> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let listed = api.list(&of).await.map_err(explained);
    let pods = listed.with_context(|| format!("list the pods of {}", registry.title()))?.items;
    if pods.is_empty() {
        bail!(
            "{} has no pod: kubectl registry status {} --namespace {} says why",
            registry.title(),
            registry.name,
            registry.namespace
        );
    }
    if pods.iter().all(|pod| !containers(pod).contains(&container)) {
        let known = cluster::listed(containers(&pods[0]));
        bail!("the pods of {} have no container {container}, but {known}", registry.title());
    }
    let with = pods.iter().filter(|pod| containers(pod).contains(&container));
    Ok(with.filter_map(|pod| pod.metadata.name.clone()).collect())
}

fn containers(pod: &Pod) -> Vec<&str> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let first = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(first).map(|container| container.name.as_str()).collect()
}

/// Prints what one pod has written, line by line.
async fn copy(api: &Api<Pod>, pod: &str, parameters: LogParams, head: String) -> Result<()> {
    let stream = api.log_stream(pod, &parameters).await.map_err(explained);
    let mut stream = stream.with_context(|| format!("read the log of pod {pod}"))?;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stream.read_until(b'\n', &mut line).await.with_context(|| format!("read the log of pod {pod}"))?;
        if read == 0 {
            return Ok(());
        }
        line.truncate(LONGEST_LINE);
        let text = String::from_utf8_lossy(&line);
        shell::print(&format!("{head}{}\n", text.trim_end_matches(['\n', '\r'])));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_those_that_run_before_and_beside_the_registry_too() {
        let pod = json!({"spec": {"containers": [{"name": "registry"}, {"name": "nginx"}], "initContainers": [{"name": "check-volume"}]}});
        assert_eq!(containers(&serde_json::from_value(pod).unwrap()), ["registry", "nginx", "check-volume"]);
    }
}
