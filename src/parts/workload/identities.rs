//! What the pods of a registry say of logins from elsewhere: whether they have the keys of issuers, and may ask the cluster. Each ready pod is asked over the
//! registry's own port, beside the passes and by a clock of its own; a pass is made when the answer is another one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use operator_engine::work::queue::{Key, Queue, Urgency};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer;
use crate::access::report::{self, Report};
use crate::desired::pod::PORT;
use crate::desired::{Material, nginx};
use crate::parts::{Pass, locked};
use crate::secret::Sensitive;
use crate::status::Workload;
use crate::status::identities::{Heard, Silence, Wanted};

/// How soon pods that have what they need are asked again.
const ALL_IS_WELL: Duration = Duration::from_secs(5 * 60);
/// How soon those are that lack something.
const SOMETHING_LACKS: Duration = Duration::from_secs(30);
/// How soon those are that said nothing; doubled with each further time.
const NOTHING_SAID: Duration = Duration::from_secs(10);
/// The longest wait.
const AT_MOST: Duration = Duration::from_secs(10 * 60);
/// Registries whose pods are asked at once.
const AT_ONCE: usize = 16;
/// Pods of a registry that are asked.
const PODS: usize = 16;
/// Time for one pod.
const LIMIT: Duration = Duration::from_secs(3);
/// Bytes of an answer.
const LARGEST: u64 = 16 << 10;

/// Whom to ask, and what for.
struct Question {
    /// Pods that are ready.
    pods: Vec<IpAddr>,
    port: u16,
    /// Name that the certificate must cover.
    name: String,
    /// PEM of the leaf that must be served; `None` without TLS.
    leaf: Option<String>,
    /// What proves that the operator asks.
    proof: Sensitive<String>,
    /// Who is to be asked about.
    wanted: Wanted,
}

/// Digest of a question.
type Id = [u8; 32];

impl Question {
    fn id(&self) -> Id {
        let Self { pods, port, name, leaf, proof, wanted } = self;
        Sha256::digest(format!("{pods:?} {port} {name} {leaf:?} {} {wanted:?}", proof.expose())).into()
    }
}

/// What pods have said.
#[derive(Clone)]
pub struct Hearings {
    known: Arc<Mutex<BTreeMap<Key, Asked>>>,
    places: Arc<Semaphore>,
    /// Who asks, one after the other.
    askers: Arc<AtomicU64>,
}

impl Default for Hearings {
    fn default() -> Self {
        Self { known: Arc::default(), places: Arc::new(Semaphore::new(AT_ONCE)), askers: Arc::default() }
    }
}

struct Asked {
    question: Id,
    /// Who asks it.
    asker: u64,
    wanted: Wanted,
    heard: Heard,
    /// Looks in a row that told nothing.
    silent: u32,
}

impl Asked {
    /// Takes in what was heard, and says whether it is news and when to ask again.
    fn learn(&mut self, heard: Heard) -> (bool, Duration) {
        self.silent = if heard.is_said() { 0 } else { self.silent + 1 };
        let wait = match &heard {
            Heard::Good => ALL_IS_WELL,
            Heard::Lacking(_) => SOMETHING_LACKS,
            Heard::Nothing | Heard::Silent(_) => {
                NOTHING_SAID.saturating_mul(1 << self.silent.saturating_sub(1).min(8)).min(AT_MOST)
            }
        };
        let heard = heard.after(&self.heard, self.silent);
        let is_news = heard != self.heard;
        self.heard = heard;
        (is_news, wait)
    }
}

impl Hearings {
    /// What the pods said last about what the manifest asks for now.
    fn get(&self, key: &Key, question: Question, queue: &Queue) -> Heard {
        let id = question.id();
        let mut known = locked(&self.known);
        let before = known.get(key);
        if let Some(asked) = before.filter(|asked| asked.question == id) {
            return asked.heard.clone();
        }
        // Other pods, or another certificate: what was said of the same manifest counts until they have said something.
        let same = before.filter(|asked| asked.wanted == question.wanted);
        let heard = same.map(|asked| asked.heard.clone()).unwrap_or_default();
        let asker = self.askers.fetch_add(1, Ordering::Relaxed);
        let wanted = question.wanted.clone();
        known.insert(key.clone(), Asked { question: id, asker, wanted, heard: heard.clone(), silent: 0 });
        tokio::spawn(self.clone().ask_on(key.clone(), asker, question, queue.clone()));
        heard
    }

    /// What they said last.
    pub(super) fn last(&self, key: &Key) -> Heard {
        locked(&self.known).get(key).map(|asked| asked.heard.clone()).unwrap_or_default()
    }

    /// Asks no more: the registry is gone, runs nothing, or has no logins from elsewhere.
    pub(crate) fn forget(&self, key: &Key) {
        locked(&self.known).remove(key);
    }

    /// Asks again and again, until somebody else does, or nobody has to.
    async fn ask_on(self, key: Key, asker: u64, question: Question, queue: Queue) {
        loop {
            let began = Instant::now();
            let heard = {
                let _place = self.places.acquire().await;
                if !self.is_for(&key, asker) {
                    return;
                }
                // Only while it is asked: what waits is to be small.
                Box::pin(ask(&question)).await
            };
            let Some((is_news, wait)) = self.learn(&key, asker, heard) else { return };
            if is_news {
                queue.add(&key, Urgency::Upkeep);
            }
            sleep_until(began + wait).await;
        }
    }

    fn is_for(&self, key: &Key, asker: u64) -> bool {
        locked(&self.known).get(key).is_some_and(|asked| asked.asker == asker)
    }

    fn learn(&self, key: &Key, asker: u64, heard: Heard) -> Option<(bool, Duration)> {
        let mut known = locked(&self.known);
        Some(known.get_mut(key).filter(|asked| asked.asker == asker)?.learn(heard))
    }
}

/// What the pods of a registry say, as far as that is known now.
pub(super) async fn hear(pass: &Pass<'_>, material: &Material, workload: Option<&Workload>) -> Heard {
    let (registry, hearings) = (pass.registry, &pass.ctx.hearings);
    let (Some(wanted), Some(tokens)) = (Wanted::of(registry), &material.tokens) else {
        hearings.forget(pass.key);
        return Heard::Nothing;
    };
    match workload {
        Some(Workload::Running { ready: 1.. }) => {}
        // While pods are replaced.
        Some(Workload::Progressing { .. } | Workload::Stuck { .. } | Workload::Former { .. }) => {
            return hearings.last(pass.key);
        }
        _ => {
            hearings.forget(pass.key);
            return Heard::Nothing;
        }
    }
    if registry.protocol.client_authorities.is_some() {
        hearings.forget(pass.key);
        return Heard::Silent(Silence::Untold);
    }
    let pods = match pass.ctx.pods(pass.key).await {
        Ok(pods) => pods,
        Err(error) => {
            // Counted, so that it is tried again.
            pass.problem(error);
            return hearings.last(pass.key);
        }
    };
    let mut pods: Vec<_> = pods.iter().filter_map(|pod| pod.address).collect();
    pods.sort_unstable();
    pods.truncate(PODS);
    let [_, _, name, _] = registry.service_names();
    let question = Question {
        pods,
        port: u16::try_from(PORT).unwrap_or_default(),
        name,
        leaf: material.certificate.as_ref().map(|certificate| certificate.chain.clone()),
        proof: report::question(tokens.refresh.expose().as_bytes()).into(),
        wanted,
    };
    hearings.get(pass.key, question, &pass.ctx.queue)
}

async fn ask(question: &Question) -> Heard {
    let asked = question
        .pods
        .iter()
        .map(|pod| async move { timeout(LIMIT, ask_pod(*pod, question)).await.unwrap_or(Err(Silence::Unreachable)) });
    question.wanted.heard(&join_all(asked).await)
}

async fn ask_pod(pod: IpAddr, question: &Question) -> Result<Report, Silence> {
    let stream = TcpStream::connect((pod, question.port)).await.map_err(|_| Silence::Unreachable)?;
    let answer = match &question.leaf {
        None => exchange(stream, question).await,
        Some(leaf) => {
            let stream = answer::encrypted(stream, &question.name, leaf).await.map_err(|_| Silence::Unreachable)?;
            exchange(stream, question).await
        }
    };
    read(&answer.map_err(|_| Silence::Unreachable)?)
}

/// The whole answer, or the beginning of one that is too large.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, question: &Question) -> std::io::Result<Vec<u8>> {
    let Question { name, proof, .. } = question;
    // In a version of HTTP that has no pieces: the body is what comes until the end.
    let text = Sensitive::new(format!(
        "GET {} HTTP/1.0\r\nHost: {name}\r\nAuthorization: {}\r\nUser-Agent: private-registry-operator/{}\r\n\r\n",
        nginx::TOKENS,
        proof.expose(),
        env!("CARGO_PKG_VERSION")
    ));
    stream.write_all(text.expose().as_bytes()).await?;
    let mut answer = Vec::new();
    match stream.take(LARGEST + 1).read_to_end(&mut answer).await {
        // Who hangs up without ending TLS has said everything all the same: half of it would not be JSON.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn read(answer: &[u8]) -> Result<Report, Silence> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(Silence::Untold)?;
    let (head, body) = answer.split_at(end);
    let is_good = head.starts_with(b"HTTP/1.") && head.get(9..12) == Some(b"200");
    let is_whole = answer.len() as u64 <= LARGEST;
    (is_good && is_whole).then(|| serde_json::from_slice(&body[4..]).ok()).flatten().ok_or(Silence::Untold)
}

#[cfg(test)]
#[path = "identities_tests.rs"]
mod tests;
