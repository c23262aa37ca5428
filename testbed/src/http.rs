//! One question to an HTTP server without TLS, for the pages of programs under test. No client: there is nothing to keep, to retry or to negotiate.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Time for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(5);

/// The status (0 when there is none) and the body of the answer to `GET path`.
///
/// # Errors
/// When there is no connection or the answer is no text; [`io::ErrorKind::TimedOut`] after 5 s.
pub async fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default();
        Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    };
    timeout(PATIENCE, exchange).await?
}
