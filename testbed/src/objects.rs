//! What stands for an API server where a program only reads an object or two before it does what a test is about. It gives what it was given, by the path, and
//! has nothing else; whatever is about the API itself is tested with a real one.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Bytes of a request that is read.
const LONGEST_REQUEST: usize = 64 << 10;

/// Objects that can be read. They are gone when this is dropped.
#[derive(Debug)]
pub struct Objects {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Objects {
    /// Serves objects by their paths, such as `/api/v1/namespaces/default/pods/a`, on the runtime that calls this.
    pub async fn serve(objects: BTreeMap<String, Value>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on 127.0.0.1")?;
        let address = listener.local_addr().context("read the port")?;
        let objects = Arc::new(objects);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&objects)));
            }
        });
        Ok(Self { address, serving })
    }

    /// Writes a kubeconfig that leads here, with the namespace `default`.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "objects",
            "clusters": [{"name": "objects", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "objects", "user": {}}],
            "contexts": [{"name": "objects", "context": {"cluster": "objects", "user": "objects", "namespace": "default"}}],
        });
        fs::write(path, text.to_string()).with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request, and the end. Whoever leaves early needs no answer.
async fn answer(mut stream: TcpStream, objects: Arc<BTreeMap<String, Value>>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|four| four == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        match stream.read_buf(&mut request).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = objects.get(path.split('?').next().unwrap_or_default()).filter(|_| method == "GET");
    let (status, body) = match found {
        Some(object) => ("200 OK", object.clone()),
        None => (
            "404 Not Found",
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404,
                   "message": format!("{path} not found")}),
        ),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes()).await;
}
