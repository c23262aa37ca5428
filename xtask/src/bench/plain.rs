//! The measure of writing: a program that knows what it wants, asks nothing, compares nothing and sends one POST after the other.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use http::Request;
use kube::{Client, api::PostParams, core, core::Resource as _};
use serde_json::Value;

use super::{objects::resource, processor};

/// Name of the threads that write, as the kernel shows it.
const THREADS: &str = "plain-writer";

/// What writing took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// From the first request to the last answer.
    pub(super) took: Duration,
    /// What the writer itself used of the processors. It is compiled without optimisation, so this says how much that is worth.
    pub(super) processor: Duration,
}

/// Creates objects, `workers` at once, on threads of its own.
pub(super) async fn create(kubeconfig: &Path, objects: &[Value], workers: usize) -> Result<Written> {
    let requests: Arc<Vec<_>> = Arc::new(objects.iter().map(request).collect::<Result<_>>()?);
    let kubeconfig = kubeconfig.to_owned();
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(THREADS).enable_all().build()?;
        runtime.block_on(async { tokio::spawn(write(kubeconfig, requests, workers)).await? })
    })
    .await?
}

async fn write(kubeconfig: PathBuf, requests: Arc<Vec<Request<Vec<u8>>>>, workers: usize) -> Result<Written> {
    let client = testbed::control_plane::client(&kubeconfig).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let (started, used) = (Instant::now(), processor::of_threads(THREADS)?);
    let workers: Vec<_> =
        (0..workers).map(|_| tokio::spawn(work(client.clone(), requests.clone(), next.clone()))).collect();
    for worker in workers {
        worker.await??;
    }
    Ok(Written { took: started.elapsed(), processor: processor::of_threads(THREADS)?.saturating_sub(used) })
}

async fn work(client: Client, requests: Arc<Vec<Request<Vec<u8>>>>, next: Arc<AtomicUsize>) -> Result<()> {
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        client.request_text(request.clone()).await.with_context(|| format!("POST {}", request.uri()))?;
    }
    Ok(())
}

fn request(object: &Value) -> Result<Request<Vec<u8>>> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = resource(text("/kind"));
    let path = kube::api::DynamicObject::url_path(&kind, Some(text("/metadata/namespace")));
    let body = serde_json::to_vec(object)?;
    core::Request::new(path).create(&PostParams::default(), body).context("make a request")
}
