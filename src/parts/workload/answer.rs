//! Whether a registry answers as it should: found out, not assumed. One connection after each rollout, with a time limit, and beside the
//! passes: a network that drops packets holds up no repair.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use operator_engine::work::queue::{Key, Queue, Urgency};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::parts::context::KUBELETS_OWN_TIME;
use crate::status::summary::Answer;

/// How soon a registry is asked again whose answer was not good; doubled with each further one.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// The longest wait before it is asked again.
const ASK_AGAIN_AT_MOST: Duration = Duration::from_secs(60 * 60);
/// How many are asked at once, of those that were never asked and of the others: a network that drops packets holds each of them for seconds, and who
/// comes up must not wait for those.
const AT_ONCE_AT_MOST: usize = 64;
/// Time for connecting, the handshake and the answer together.
const LIMIT: Duration = Duration::from_secs(3);
/// How long a pass waits for the first answer: a registry that is well answers sooner, and its status is written once instead of twice.
const AT_ONCE: Duration = Duration::from_millis(250);

/// How soon it is looked again whether the kubelet has brought a renewed certificate.
const LOOK_FOR_LEAF: Duration = Duration::from_secs(1);
/// What is said of another leaf than the one that was stored.
const ANOTHER: &str = "another certificate is served than the one in the Secret";

/// Where and how to ask.
pub struct Question {
    /// The Service's address.
    pub address: IpAddr,
    /// The Service's port.
    pub port: u16,
    /// Name that the certificate must cover.
    pub name: String,
    /// PEM of the leaf that must be served; `None` without TLS.
    pub leaf: Option<String>,
    /// What to ask for.
    pub path: &'static str,
    /// The status of a good answer.
    pub wanted: &'static str,
    /// What tells one rollout from the next.
    pub rollout: String,
    /// Whether pods serve another leaf without a rollout, when their kubelet has brought it.
    pub reloads: bool,
}

/// Digest of a question.
type Id = [u8; 32];

impl Question {
    fn id(&self) -> Id {
        let Self { address, port, name, leaf, path, wanted, rollout, reloads } = self;
        Sha256::digest(format!("{address} {port} {name} {leaf:?} {path} {wanted} {rollout} {reloads}")).into()
    }
}

/// What registries have answered.
#[derive(Clone)]
pub struct Answers {
    known: Arc<Mutex<BTreeMap<Key, Asked>>>,
    /// For those of which something is known already.
    again: Arc<Semaphore>,
    first: Arc<Semaphore>,
}

impl Default for Answers {
    fn default() -> Self {
        let places = || Arc::new(Semaphore::new(AT_ONCE_AT_MOST));
        Self { known: Arc::default(), again: places(), first: places() }
    }
}

struct Asked {
    /// Which question, not its text: it contains a certificate.
    question: Id,
    /// Which rollout it was about.
    rollout: String,
    answer: Answer,
    /// Answers in a row that were not good.
    failures: u32,
}

/// How long after the `failures`-th question whose answer was not good it is asked again.
fn patience(failures: u32) -> Duration {
    ASK_AGAIN.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(ASK_AGAIN_AT_MOST)
}

impl Answers {
    /// The registry's answer: the known one, or, to a new question, one that comes at once. An answer that comes later and is another one than what is
    /// known puts the registry on the queue. Until then the last one counts, or `before`, what was reported when this process did not know it yet.
    pub async fn get(&self, key: &Key, question: Question, before: Answer, queue: &Queue) -> Answer {
        let id = question.id();
        let known = match self.locked().get(key) {
            Some(asked) if asked.question == id => return asked.answer.clone(),
            // The same pods go on.
            Some(asked) if question.reloads && asked.rollout == question.rollout => asked.answer.clone(),
            Some(_) => Answer::NotAsked,
            None => before,
        };
        let is_first = known == Answer::NotAsked;
        self.locked()
            .insert(key.clone(), Asked { question: id, rollout: question.rollout.clone(), answer: known, failures: 0 });
        let (tell, mut told) = oneshot::channel();
        tokio::spawn(self.clone().ask_until_good(key.clone(), question, is_first, tell, queue.clone()));
        if is_first && let Ok(Ok(answer)) = timeout(AT_ONCE, &mut told).await {
            return answer;
        }
        // From here on the queue is told instead.
        drop(told);
        self.last(key)
    }

    /// Asks until the answer is good, less and less often, or until it is another question. No pass is needed for that.
    async fn ask_until_good(
        self,
        key: Key,
        question: Question,
        is_first: bool,
        tell: oneshot::Sender<Answer>,
        queue: Queue,
    ) {
        let (id, mut tell) = (question.id(), Some(tell));
        let places = if is_first { self.first.clone() } else { self.again.clone() };
        let first = Instant::now();
        while self.locked().get(&key).is_some_and(|asked| asked.question == id) {
            let began = Instant::now();
            let answer = {
                let _place = places.acquire().await;
                // Only while it is asked: a registry that does not answer waits here for as long as it is one, and with a thousand of them that counts.
                Box::pin(ask(&question)).await
            };
            if question.reloads && is_about_another_leaf(&answer) && first.elapsed() < KUBELETS_OWN_TIME {
                sleep_until(began + LOOK_FOR_LEAF).await;
                continue;
            }
            let Some((before, failures)) = self.learn(&key, id, answer.clone()) else { return };
            let is_told = tell.take().is_some_and(|tell| tell.send(answer.clone()).is_ok());
            if !is_told && answer != before {
                queue.add(&key, Urgency::Change);
            }
            if answer == Answer::Good {
                return;
            }
            sleep_until(began + patience(failures)).await;
        }
    }

    /// What the registry answered last, whatever it was asked.
    pub fn last(&self, key: &Key) -> Answer {
        self.locked().get(key).map_or(Answer::NotAsked, |asked| asked.answer.clone())
    }

    /// Forgets a registry that is gone.
    pub fn forget(&self, key: &Key) {
        self.locked().remove(key);
    }

    /// Returns what was known before, and how many answers in a row were not good; `None`: it is another question by now, or the registry is gone.
    fn learn(&self, key: &Key, question: Id, answer: Answer) -> Option<(Answer, u32)> {
        let mut known = self.locked();
        let asked = known.get_mut(key).filter(|asked| asked.question == question)?;
        asked.failures = if answer == Answer::Good { 0 } else { asked.failures + 1 };
        Some((std::mem::replace(&mut asked.answer, answer), asked.failures))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Key, Asked>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks once.
async fn ask(question: &Question) -> Answer {
    match tokio::time::timeout(LIMIT, exchange(question)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Unreachable(format!(
            "the operator got no answer from {}:{} within {} s; others may reach it",
            question.address,
            question.port,
            LIMIT.as_secs()
        )),
    }
}

async fn exchange(question: &Question) -> Answer {
    let endpoint = (question.address, question.port);
    let stream = match TcpStream::connect(endpoint).await {
        Ok(stream) => stream,
        Err(error) => {
            return Answer::Unreachable(format!(
                "the operator cannot reach {}:{} ({error}); others may reach it",
                question.address, question.port
            ));
        }
    };
    let status = match &question.leaf {
        None => request(stream, question).await,
        Some(leaf) => match encrypted(stream, &question.name, leaf).await {
            Ok(stream) => request(stream, question).await,
            Err(answer) => return answer,
        },
    };
    let Question { path, wanted, .. } = question;
    match status {
        Ok(status) if status == *wanted => Answer::Good,
        Ok(status) if status.is_empty() => {
            Answer::Bad(format!("GET {path} was answered with something that is not HTTP"))
        }
        Ok(status) => {
            Answer::Bad(format!("GET {path} was answered with {status} instead of {wanted}; see the registry's log"))
        }
        Err(error) => broken_off(&error),
    }
}

fn is_about_another_leaf(answer: &Answer) -> bool {
    matches!(answer, Answer::Bad(how) if how.contains(ANOTHER))
}

fn broken_off(error: &std::io::Error) -> Answer {
    Answer::Unreachable(format!("the connection broke off ({error}); others may reach it"))
}

/// A TLS session in which exactly the leaf that was stored is served: an older one means that the rollout did not reach all.
pub(super) async fn encrypted(
    stream: TcpStream,
    name: &str,
    leaf: &str,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Answer> {
    let broken = |why: String| Answer::Bad(format!("TLS: {why}"));
    let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).map_err(|error| broken(error.to_string()))?;
    let name = ServerName::try_from(name.to_owned()).map_err(|error| broken(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned { leaf: leaf.clone(), provider: provider.clone() });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| {
        // What lies between may have cut the connection. Only what the other side really said is an answer.
        let is_answer = matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>());
        if is_answer { broken(error.to_string()) } else { broken_off(&error) }
    })
}

async fn request(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    Question { name: host, path, .. }: &Question,
) -> std::io::Result<String> {
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: private-registry-operator/{}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(text.as_bytes()).await?;
    let mut head = [0; 64];
    let mut have = 0;
    while have < head.len() {
        match stream.read(&mut head[have..]).await? {
            0 => break,
            more => have += more,
        }
    }
    let head = String::from_utf8_lossy(&head[..have]).into_owned();
    Ok(head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned())
}

/// Accepts one certificate and no other, and checks that the server has its key. Stricter than a chain of trust, and it works
/// for a company's certificate whose authority the operator does not know.
#[derive(Debug)]
struct Pinned {
    leaf: CertificateDer<'static>,
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl rustls::client::danger::ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if end_entity == &self.leaf {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General(format!(
                "{ANOTHER}; a kubelet brings it within two minutes, unless the Secret was immutable once: then set spec.suspend to true until no pod is left, and back"
            )))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Asks somebody who sends this to each connection and closes it.
    async fn asked(says: &'static [u8]) -> Answer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(says).await.ok();
            }
        });
        let leaf = rcgen::generate_simple_self_signed(["team-a".to_owned()]).unwrap().cert.pem();
        let (name, rollout) = ("team-a".to_owned(), String::new());
        ask(&Question {
            address: at.ip(),
            port: at.port(),
            name,
            leaf: Some(leaf),
            path: "/v2/",
            wanted: "401",
            rollout,
            reloads: false,
        })
        .await
    }

    /// Of a thousand registries that do not answer, each has one.
    #[test]
    fn what_waits_to_ask_again_is_small() {
        let (name, rollout) = ("team-a".to_owned(), String::new());
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let question =
            Question { address, port: 1, name, leaf: None, path: "/v2/", wanted: "401", rollout, reloads: false };
        let (tell, _told) = oneshot::channel();
        let waiting = Answers::default().ask_until_good(Key::new("team", "a"), question, true, tell, Queue::default());
        assert!(size_of_val(&waiting) <= 1024, "{} bytes", size_of_val(&waiting));
    }

    /// An address that lets packets be lost: nobody accepts, and no further connection finds room.
    struct Swallower {
        at: std::net::SocketAddr,
        _listener: TcpListener,
        _full: Vec<std::net::TcpStream>,
    }

    impl Swallower {
        fn start() -> Self {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
            let listener = socket.listen(1).unwrap();
            let at = listener.local_addr().unwrap();
            let connect = |_| std::net::TcpStream::connect_timeout(&at, Duration::from_millis(200)).ok();
            let full: Vec<_> = (0..16).map_while(connect).collect();
            assert!(full.len() < 16, "there is always room");
            Self { at, _listener: listener, _full: full }
        }

        fn question(&self) -> Question {
            let (name, rollout) = ("team-a".to_owned(), String::new());
            Question {
                address: self.at.ip(),
                port: self.at.port(),
                name,
                leaf: None,
                path: "/v2/",
                wanted: "401",
                rollout,
                reloads: false,
            }
        }
    }

    const MANY: usize = 200;

    fn keys() -> Vec<Key> {
        (0..MANY).map(|number| Key::new("n", format!("swallowed-{number}"))).collect()
    }

    /// As after a restart of the operator, on a network that drops packets.
    #[tokio::test]
    async fn registries_whose_packets_are_dropped_hold_up_nobody_and_stay_as_they_were_reported() {
        let (swallower, answers, queue) = (Swallower::start(), Answers::default(), Queue::default());
        let started = std::time::Instant::now();
        for key in keys() {
            assert_eq!(answers.get(&key, swallower.question(), Answer::Good, &queue).await, Answer::Good);
        }
        assert!(started.elapsed() < Duration::from_secs(1), "their passes took {:?}", started.elapsed());

        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _asked = stream.read(&mut [0; 512]).await;
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nX: 0123456789\r\n\r\n").await.ok();
            }
        });
        let question = Question { address: at.ip(), port: at.port(), ..swallower.question() };
        let (well, started) = (Key::new("n", "well"), std::time::Instant::now());
        let mut answer = answers.get(&well, question, Answer::NotAsked, &queue).await;
        // A slow machine may have let the pass go on without it.
        while answer == Answer::NotAsked && started.elapsed() < LIMIT / 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer = answers.locked()[&well].answer.clone();
        }
        assert_eq!(answer, Answer::Good, "it waited for the others");
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_whose_packets_are_dropped_is_asked_less_and_less_often() {
        let (swallower, answers, queue) = (Swallower::start(), Answers::default(), Queue::default());
        let began = Instant::now();
        for key in keys() {
            answers.get(&key, swallower.question(), Answer::Good, &queue).await;
        }
        let (mut asked_at, mut failures) = (Vec::new(), 0);
        while began.elapsed() < Duration::from_secs(3600) {
            let now = answers.locked()[&keys()[0]].failures;
            if now > failures {
                asked_at.push(began.elapsed().as_secs());
            }
            failures = now;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let pauses: Vec<_> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses[..7], [15, 30, 60, 120, 240, 480, 960], "{asked_at:?}");
        for key in keys() {
            let last = answers.get(&key, swallower.question(), Answer::Good, &queue).await;
            assert!(matches!(last, Answer::Unreachable(_)), "{key}: {last:?}");
            assert_eq!(patience(answers.locked()[&key].failures), Duration::from_secs(1920));
        }
        assert_eq!(queue.depth().due, MANY, "each is looked at once it is known");
    }

    /// A TLS server that answers 401, and serves the pair that is in `served`.
    async fn server(served: Arc<Mutex<rcgen::CertifiedKey<rcgen::KeyPair>>>) -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (chain, key) = {
                    let served = served.lock().unwrap();
                    (vec![served.cert.der().clone()], served.signing_key.serialize_der())
                };
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_single_cert(chain, rustls::pki_types::PrivateKeyDer::Pkcs8(key.into()))
                    .unwrap();
                let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await else {
                    continue;
                };
                let _asked = stream.read(&mut [0; 512]).await;
                stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nX: 0123456789\r\n\r\n").await.ok();
                stream.shutdown().await.ok();
            }
        });
        at
    }

    #[tokio::test]
    async fn a_renewed_certificate_behind_a_front_end_is_waited_for_and_until_then_the_registry_is_well() {
        let pair = || rcgen::generate_simple_self_signed(["team-a".to_owned()]).unwrap();
        let (old, new) = (pair(), pair());
        let (old_leaf, new_leaf) = (old.cert.pem(), new.cert.pem());
        let served = Arc::new(Mutex::new(old));
        let at = server(served.clone()).await;
        let question = |leaf: &str, reloads: bool, rollout: &str| Question {
            address: at.ip(),
            port: at.port(),
            name: "team-a".to_owned(),
            leaf: Some(leaf.to_owned()),
            path: "/v2/",
            wanted: "401",
            rollout: rollout.to_owned(),
            reloads,
        };
        let (answers, queue, key) = (Answers::default(), Queue::default(), Key::new("n", "team-a"));
        answers.get(&key, question(&old_leaf, true, "1"), Answer::Good, &queue).await;
        let learned = async |wanted: fn(&Answer) -> bool| {
            for _ in 0..200 {
                if wanted(&answers.last(&key)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            panic!("{:?}", answers.last(&key));
        };
        learned(|answer| *answer == Answer::Good).await;

        let renewed = || question(&new_leaf, true, "1");
        assert_eq!(answers.get(&key, renewed(), Answer::NotAsked, &queue).await, Answer::Good);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(answers.last(&key), Answer::Good, "the kubelet has time to bring it");
        *served.lock().unwrap() = new;
        tokio::time::sleep(LOOK_FOR_LEAF * 2).await;
        assert_eq!(answers.get(&key, renewed(), Answer::NotAsked, &queue).await, Answer::Good);

        // Pods that serve what they began with are asked anew, and another leaf is told at once.
        answers.get(&key, question(&old_leaf, false, "2"), Answer::NotAsked, &queue).await;
        learned(is_about_another_leaf).await;
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_says_nothing_of_the_registry() {
        assert!(matches!(asked(b"").await, Answer::Unreachable(_)));
    }

    #[tokio::test]
    async fn something_else_than_tls_is_an_answer() {
        assert!(matches!(asked(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Answer::Bad(_)));
    }
}
