//! A line between one operator and the API server that a test can cut, without anybody else noticing.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Namespace;

/// The line. It forwards bytes; TLS goes through unopened.
pub struct Line {
    /// The operator's kubeconfig, with this line's address.
    pub kubeconfig: PathBuf,
    is_cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Namespace {
    /// A line to the API server for this namespace's operator.
    pub async fn line(&self) -> Line {
        let credentials = std::fs::read_to_string(self.credentials().await).unwrap();
        let server = server(&credentials);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubeconfig = self.cluster.plane.sandbox().dir().join(format!("{}-line.kubeconfig", self.name));
        std::fs::write(&kubeconfig, credentials.replace(&server.to_string(), &address.to_string())).unwrap();
        let (is_cut, seen) = watch::channel(false);
        let task = tokio::spawn(serve(listener, server, seen));
        Line { kubeconfig, is_cut, task }
    }
}

fn server(kubeconfig: &str) -> SocketAddr {
    let after = kubeconfig.split_once("https://").unwrap().1;
    let end = after.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).unwrap_or(after.len());
    after[..end].parse().unwrap()
}

async fn serve(listener: TcpListener, server: SocketAddr, is_cut: watch::Receiver<bool>) {
    loop {
        let Ok((mut near, _)) = listener.accept().await else { continue };
        let mut cut = is_cut.clone();
        tokio::spawn(async move {
            if *cut.borrow() {
                return;
            }
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.wait_for(|cut| *cut) => {}
            }
        });
    }
}

impl Line {
    /// Ends every connection and lets none through.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}
