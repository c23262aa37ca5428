//! The measure of writing: a program that knows what it wants, asks nothing, compares nothing and sends one POST after the other.

use std::{
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

use super::objects::resource;

/// Creates objects, `workers` at once. Gives the time from the first request to the last answer.
pub(super) async fn create(client: &Client, objects: &[Value], workers: usize) -> Result<Duration> {
    let requests: Arc<Vec<_>> = Arc::new(objects.iter().map(request).collect::<Result<_>>()?);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (client, requests, next) = (client.clone(), requests.clone(), next.clone());
            tokio::spawn(async move {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = client.request_text(request.clone()).await;
                    sent.with_context(|| format!("POST {}", request.uri()))?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(started.elapsed())
}

fn request(object: &Value) -> Result<Request<Vec<u8>>> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = resource(text("/kind"));
    let path = kube::api::DynamicObject::url_path(&kind, Some(text("/metadata/namespace")));
    let body = serde_json::to_vec(object)?;
    core::Request::new(path).create(&PostParams::default(), body).context("make a request")
}
