//! TCP connections from the machine into a sandbox's network. One thread does it all: its listener was made before it entered the
//! sandbox's network, and a socket stays in the network where it was made.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::{io::copy_bidirectional, net::TcpStream, sync::oneshot};

/// A way to a port inside a sandbox. It closes when this is dropped.
#[derive(Debug)]
pub struct Reach {
    port: u16,
    _open: Option<oneshot::Sender<()>>,
}

impl Reach {
    pub(super) fn direct(port: u16) -> Self {
        Self { port, _open: None }
    }

    pub(super) fn through(network: &Path, target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on 127.0.0.1")?;
        let port = listener.local_addr().context("look up the listener's port")?.port();
        let network = File::open(network).with_context(|| format!("open {}", network.display()))?;
        let (open, closed) = oneshot::channel();
        let (entered, outcome) = std::sync::mpsc::channel();
        thread::Builder::new()
            .name("sandbox-reach".to_owned())
            .spawn(move || {
                let outcome = enter(&network);
                let go_on = outcome.is_ok();
                if entered.send(outcome).is_ok() && go_on {
                    serve(listener, target, closed);
                }
            })
            .context("start a thread")?;
        outcome.recv().context("wait for the thread")??;
        Ok(Self { port, _open: Some(open) })
    }

    /// The port on 127.0.0.1 of this process's own network.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Forwards 127.0.0.1:`listen` to 127.0.0.1:`target` in another network, until this process ends. For a cluster that outlives the
/// command that started it.
pub fn forward(listen: u16, network: &Path, target: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).context("listen on 127.0.0.1")?;
    enter(&File::open(network).with_context(|| format!("open {}", network.display()))?)?;
    let (_open, closed) = oneshot::channel();
    serve(listener, target, closed);
    Ok(())
}

fn enter(network: &File) -> Result<()> {
    setns(network, CloneFlags::CLONE_NEWNET).context("enter the sandbox's network")
}

fn serve(listener: TcpListener, target: u16, closed: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async move {
        tokio::select! {
            outcome = accept(listener, target) => if let Err(error) = outcome { tracing::warn!("forward: {error}") },
            _ = closed => {}
        }
    });
}

async fn accept(listener: TcpListener, target: u16) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (mut near, _) = listener.accept().await?;
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target))).await else { return };
            near.set_nodelay(true).ok();
            far.set_nodelay(true).ok();
            copy_bidirectional(&mut near, &mut far).await.ok();
        });
    }
}
