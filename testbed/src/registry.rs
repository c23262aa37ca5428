//! The real registry as a bare process on 127.0.0.1, in plain HTTP and without logins: for what is asked of its content and of nothing else.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

use crate::{
    control_plane::free_port,
    sandbox::{Kind, Place, Sandbox},
    tools::{Family, Tools},
};

const START_LIMIT: Duration = Duration::from_secs(60);

/// A running registry. Ends when it is dropped; what it stores is whose folder that is.
#[derive(Debug)]
pub struct Registry {
    _sandbox: Sandbox,
    address: SocketAddr,
    storage: PathBuf,
}

impl Registry {
    /// Starts one that allows deletes and stores what it has in a folder. `tools` must hold [`Family::Registry`].
    pub async fn start(tools: &Tools, storage: &Path) -> Result<Self> {
        let program = tools.folder(Family::Registry)?.join("registry");
        let sandbox = Sandbox::create(Kind::ControlPlane)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let file = sandbox.dir().join("registry.yml");
        let configuration = format!(
            "version: 0.1\n\
             log: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        fs::write(&file, configuration).with_context(|| format!("write {}", file.display()))?;
        let arguments = ["serve".to_owned(), file.display().to_string()];
        let without_traces = [("OTEL_TRACES_EXPORTER", "none")];
        let process = sandbox.spawn("registry", Place::Host, &program, &arguments, &without_traces)?;
        let started = Instant::now();
        while TcpStream::connect(address).await.is_err() {
            process.check()?;
            if started.elapsed() > START_LIMIT {
                bail!("the registry does not listen at {address} after {START_LIMIT:?}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Self { _sandbox: sandbox, address, storage: storage.to_owned() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of a repository in its storage, as the registry lays it out: `_manifests/tags/TAG/current/link` holds a digest.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.storage.join("docker/registry/v2/repositories").join(name)
    }

    /// The file of a blob in its storage.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let (kind, hexadecimal) = digest.split_once(':').unwrap_or(("sha256", digest));
        let begin = hexadecimal.get(..2).unwrap_or_default();
        self.storage.join("docker/registry/v2/blobs").join(kind).join(begin).join(hexadecimal)
    }
}
