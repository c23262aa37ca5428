//! A bare control plane is usable within seconds, does what a cluster does, and can be mistreated.

use std::time::Instant;

use anyhow::Result;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::PostParams};
use testbed::{ControlPlane, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything() -> Result<()> {
    let started = Instant::now();
    let plane = ControlPlane::start(Options::audited()).await?;
    eprintln!("usable {:?}", started.elapsed());
    let audit = plane.audit().await?;
    let mark = audit.mark().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client().await?);
    let mut map = ConfigMap::default();
    map.metadata.name = Some("a".into());
    maps.create(&PostParams::default(), &map).await?;
    for entry in audit.since(mark).await? {
        eprintln!("{entry:?}");
    }
    let started = Instant::now();
    plane.stop()?;
    eprintln!("stop {:?}", started.elapsed());
    Ok(())
}
