//! What stands between the program and a registry, and does to chosen requests what networks and other registries do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is done to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes of the answer's body.
    CutAnswer(u64),
    /// After so many bytes nothing more comes.
    Silence(u64),
    /// The connection ends after so many bytes of what is sent, if that has more.
    CutUpload(u64),
    /// The registry never hears of the range.
    NoRange,
    /// Of what is answered to a range, the first byte is another.
    OtherRest,
}

/// Requests that begin like this, so often.
pub(crate) struct Rule {
    pub(crate) of: String,
    pub(crate) times: usize,
    pub(crate) fault: Fault,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(registry: SocketAddr, rules: Vec<Rule>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (rules, asked) = (Arc::new(Mutex::new(rules)), Arc::<Mutex<Vec<String>>>::default());
        let heard = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, registry, Arc::clone(&rules), Arc::clone(&heard)));
            }
        });
        Self { address, asked, serving }
    }

    /// First lines of requests that begin like this, and the range that each asks for.
    pub(crate) fn asked(&self, of: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|line| line.starts_with(of)).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request and its answer; then the connection ends, as far as both sides know.
async fn pass(
    mut near: TcpStream,
    registry: SocketAddr,
    rules: Arc<Mutex<Vec<Rule>>>,
    asked: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    let head = head(&mut near).await?;
    let line = head.lines().next()?.to_owned();
    let range = header(&head, "range");
    let length: u64 = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    asked.lock().unwrap().push(format!("{line} {}", range.clone().unwrap_or_default()));
    let fault = {
        let mut rules = rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| {
            let is_short = matches!(rule.fault, Fault::CutUpload(after) if length <= after);
            rule.times > 0 && line.starts_with(&rule.of) && !is_short
        });
        rule.map(|rule| {
            rule.times -= 1;
            rule.fault
        })
    };
    let mut far = TcpStream::connect(registry).await.ok()?;
    let is_dropped = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("connection:") || (matches!(fault, Some(Fault::NoRange)) && line.starts_with("range:"))
    };
    let lines: Vec<_> = head.trim_end().lines().filter(|line| !is_dropped(line)).collect();
    far.write_all(format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n")).as_bytes()).await.ok()?;
    if let Some(Fault::CutUpload(after)) = fault {
        copy(&mut (&mut near).take(after), &mut far).await;
        return None;
    }
    copy(&mut (&mut near).take(length), &mut far).await;
    let answer = self::head(&mut far).await?;
    near.write_all(answer.as_bytes()).await.ok()?;
    match fault {
        Some(Fault::CutAnswer(after)) => copy(&mut far.take(after), &mut near).await,
        Some(Fault::Silence(after)) => {
            copy(&mut far.take(after), &mut near).await;
            std::future::pending::<()>().await;
        }
        Some(Fault::OtherRest) if range.is_some() => {
            let first = far.read_u8().await.ok()?;
            near.write_u8(first ^ 1).await.ok()?;
            copy(&mut far, &mut near).await;
        }
        _ => copy(&mut far, &mut near).await,
    }
    Some(())
}

/// Everything up to the body.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    values.next().map(|value| value.trim().to_owned())
}

/// As far as both sides go.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut TcpStream) {
    let _ = tokio::io::copy(from, to).await;
}
