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

/// A running registry. Ends, with all that it stores, when it is dropped.
#[derive(Debug)]
pub struct Registry {
    sandbox: Sandbox,
    address: SocketAddr,
}

impl Registry {
    /// Starts one that stores nothing yet and allows deletes. `tools` must hold [`Family::Registry`].
    pub async fn start(tools: &Tools) -> Result<Self> {
        let program = tools.folder(Family::Registry)?.join("registry");
        let sandbox = Sandbox::create(Kind::ControlPlane)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let (storage, file) = (sandbox.dir().join("storage"), sandbox.dir().join("registry.yml"));
        let configuration = format!(
            "version: 0.1\n\
             log: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{address}\"}}\n",
            storage.display()
        );
        fs::create_dir_all(&storage).with_context(|| format!("make {}", storage.display()))?;
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
        Ok(Self { sandbox, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder of a repository in its storage, as the registry lays it out: `_manifests/tags/TAG/current/link` holds a digest.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.storage().join("docker/registry/v2/repositories").join(name)
    }

    /// The folder that holds everything.
    pub fn storage(&self) -> PathBuf {
        self.sandbox.dir().join("storage")
    }

    /// A folder on the same disk that goes with it.
    pub fn dir(&self) -> &Path {
        self.sandbox.dir()
    }
}
