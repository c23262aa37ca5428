//! Talks to a registry over whatever leads there: one connection, one request after the other, each answer with a limit in bytes and
//! in time. Follows no redirect and sends the login nowhere else. What is large passes through in pieces, see [`blobs`].

pub(crate) mod beside;
pub(crate) mod blobs;
pub(crate) mod connection;
pub(crate) mod digest;
pub(crate) mod manifest;
mod outgoing;
pub(crate) mod pages;
pub(crate) mod reference;
pub(crate) mod retries;
mod shown;
#[cfg(test)]
pub(crate) mod store;
pub(crate) mod tree;

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use private_registry_operator::credentials::UserName;
use private_registry_operator::secret::Sensitive;
use serde_json::Value;

use self::connection::Way;
pub(crate) use self::outgoing::{Outgoing, Pieces};
use self::retries::{Refusal, TooSlow};

/// How long one answer may take, its body included. A catalog of many repositories takes the registry a while.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a registry's own words is repeated.
const LONGEST_WORDS: usize = 400;

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) user: UserName,
    pub(crate) password: Sensitive<String>,
}

impl Login {
    /// As RFC 7617 has it, and as clients keep it in their files.
    pub(crate) fn encoded(&self) -> Sensitive<String> {
        let pair = Sensitive::new(format!("{}:{}", self.user, self.password.expose()));
        STANDARD.encode(pair.expose()).into()
    }
}

/// A registry, reached in some way.
pub(crate) struct Client<W> {
    way: W,
    login: Option<Login>,
    /// Closed by the other side at any time.
    open: Option<SendRequest<Outgoing>>,
}

/// A request, but for what all have in common.
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Outgoing,
}

impl Call {
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Outgoing::Nothing }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn sending(self, body: Outgoing) -> Self {
        Self { body, ..self }
    }

    /// What it is called in messages, without what a registry keeps in its addresses for itself.
    fn title(&self) -> String {
        let path = self.path.split_once("?_state=").map_or(self.path.as_str(), |(path, _)| path);
        format!("{} {path}", self.method)
    }
}

/// What a registry said.
#[derive(Debug)]
pub(crate) struct Answer {
    /// To what it said it: `GET /v2/`.
    pub(crate) asked: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl<W: Way> Client<W> {
    pub(crate) fn new(way: W, login: Option<Login>) -> Self {
        Self { way, login, open: None }
    }

    /// Another connection to the same registry, for what is done beside.
    pub(crate) fn beside(&self) -> Self
    where
        W: Clone,
    {
        Self { way: self.way.clone(), login: self.login.clone(), open: None }
    }

    /// What the registry is called in messages.
    pub(crate) fn place(&self) -> String {
        self.way.place()
    }

    /// The answer to a GET, whatever it is; `most` is how many bytes its body may have.
    pub(crate) async fn ask(&mut self, path: &str, accept: &str, most: usize) -> Result<Answer> {
        self.send(Call::new(Method::GET, path).with(header::ACCEPT, accept), most).await
    }

    /// The answer to a request, whatever it is.
    pub(crate) async fn send(&mut self, call: Call, most: usize) -> Result<Answer> {
        self.send_within(PATIENCE, call, most).await
    }

    /// The same for what may take longer.
    pub(crate) async fn send_within(&mut self, limit: Duration, call: Call, most: usize) -> Result<Answer> {
        let what = format!("ask {} for {}", self.way.place(), call.title().trim_start_matches("GET "));
        let answer = tokio::time::timeout(limit, self.answer(call, most)).await;
        answer.unwrap_or_else(|_| Err(TooSlow("whole answer", limit).into())).context(what)
    }

    /// An answer whose body has not been read yet.
    pub(crate) async fn begin(&mut self, call: Call) -> Result<Response<Incoming>> {
        let what = format!("ask {} for {}", self.way.place(), call.title().trim_start_matches("GET "));
        let answer = tokio::time::timeout(PATIENCE, self.exchange(call)).await;
        answer.unwrap_or_else(|_| Err(TooSlow("answer", PATIENCE).into())).context(what)
    }

    /// The answer of a registry that has what is asked for; `None` if there is no such thing.
    pub(crate) async fn find(&mut self, path: &str, accept: &str, most: usize) -> Result<Option<Answer>> {
        let answer = self.ask(path, accept, most).await?;
        self.found(answer)
    }

    /// An answer, if it is a good one; `None` if it says that there is no such thing.
    pub(crate) fn found(&self, answer: Answer) -> Result<Option<Answer>> {
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.accepted(answer).map(Some)
    }

    /// The answer, if it is a good one.
    pub(crate) fn accepted(&self, answer: Answer) -> Result<Answer> {
        let place = self.way.place();
        match (answer.status, &self.login) {
            (status, _) if status.is_success() => Ok(answer),
            (StatusCode::UNAUTHORIZED, Some(login)) => bail!(
                "{place} refuses the login of {}: the password is another one, or not told to the running pods yet",
                login.user
            ),
            (StatusCode::UNAUTHORIZED, None) => bail!("{place} asks for a login: give one with --user"),
            _ => Err(Refusal::of(&place, &answer).into()),
        }
    }

    async fn answer(&mut self, call: Call, most: usize) -> Result<Answer> {
        let asked = call.title();
        let (head, body) = self.exchange(call).await?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return anyhow!("its answer has more than {most} bytes, which this command does not take");
            }
            match error.downcast::<hyper::Error>() {
                Ok(error) => anyhow::Error::new(*error).context("its answer breaks off"),
                Err(other) => anyhow!("its answer breaks off: {other}"),
            }
        })?;
        Ok(Answer { asked, status: head.status, headers: head.headers, body: body.to_bytes().to_vec() })
    }

    async fn exchange(&mut self, call: Call) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(header::HOST, self.way.host())
            .header(header::USER_AGENT, concat!("kubectl-registry/", env!("CARGO_PKG_VERSION")))
            .body(call.body)
            .context("write the request")?;
        for (name, value) in call.headers {
            request.headers_mut().insert(name, HeaderValue::from_str(&value).context("write the request")?);
        }
        if let Some(login) = &self.login {
            let value = Sensitive::new(format!("Basic {}", login.encoded().expose()));
            let mut value = HeaderValue::from_str(value.expose()).context("write the login")?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        self.connected().await?.send_request(request).await.context("send it")
    }

    /// The open connection, or a new one: hyper closes one of which an answer was not read to its end.
    async fn connected(&mut self) -> Result<&mut SendRequest<Outgoing>> {
        let still = match &mut self.open {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        if !still {
            let stream = self.way.open().await?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("speak HTTP")?;
            // It ends with the sender, and what goes wrong with it is told to that.
            tokio::spawn(connection);
            self.open = Some(sender);
        }
        self.open.as_mut().context("connect")
    }
}

impl Answer {
    /// What the registry says of an error, to be put behind it: `: MANIFEST_UNKNOWN: manifest unknown`.
    pub(crate) fn words(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let of = |error: &Value| {
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            format!(": {}: {}", text("code"), text("message"))
        };
        let words: String = body["errors"].as_array().into_iter().flatten().map(of).collect();
        words.chars().take(LONGEST_WORDS).collect()
    }

    /// Whether the registry gives this code for an error.
    pub(crate) fn says(&self, code: &str) -> bool {
        self.words().contains(&format!(": {code}:"))
    }

    /// A header that is plain text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON. What is wrong with it is said without repeating it.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            anyhow!("{what} is not what it should be (line {}, column {})", error.line(), error.column())
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A registry that says what a test wants, with faults that a real one does not produce when asked.

    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::connection::{Stream, Way};
    use super::*;

    /// What it says to each request in turn, and what it was asked. An empty text says nothing for ever.
    #[derive(Clone, Default)]
    pub(crate) struct Script {
        answers: Arc<Mutex<VecDeque<String>>>,
        pub(crate) asked: Arc<Mutex<Vec<String>>>,
    }

    impl Script {
        pub(crate) fn of(answers: impl IntoIterator<Item = String>) -> Self {
            Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), asked: Arc::default() }
        }

        /// The first line of each request.
        pub(crate) fn lines(&self) -> Vec<String> {
            let asked = self.asked.lock().unwrap();
            asked.iter().map(|request| request.lines().next().unwrap_or_default().to_owned()).collect()
        }

        async fn serve(self, mut stream: DuplexStream) {
            loop {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => return,
                    }
                }
                self.asked.lock().unwrap().push(String::from_utf8(request).unwrap());
                let answer = self.answers.lock().unwrap().pop_front();
                match answer {
                    Some(text) if text.is_empty() => std::future::pending().await,
                    Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                    None => return,
                }
            }
        }
    }

    impl Way for Script {
        fn place(&self) -> String {
            "the registry".to_owned()
        }

        fn host(&self) -> String {
            "registry.test".to_owned()
        }

        async fn open(&self) -> Result<Box<dyn Stream>> {
            let (near, far) = tokio::io::duplex(1 << 16);
            tokio::spawn(self.clone().serve(far));
            Ok(Box::new(near))
        }
    }

    /// An answer with a body.
    pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
    }

    pub(crate) fn client(script: &Script) -> Client<Script> {
        let login = Login { user: UserName::new("ann").unwrap(), password: "planted-password".to_owned().into() };
        Client::new(script.clone(), Some(login))
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{Script, answer, client};
    use super::*;

    #[tokio::test]
    async fn a_request_has_host_login_and_what_is_accepted_and_one_connection_serves_several() {
        let script = Script::of([answer("200 OK", "x-a: b\r\n", "{}"), answer("404 Not Found", "", "")]);
        let mut client = client(&script);
        let first = client.ask("/v2/", "application/json", 10).await.unwrap();
        assert_eq!((first.status, first.header("x-a"), first.body.as_slice()), (StatusCode::OK, Some("b"), &b"{}"[..]));
        assert!(client.find("/v2/a", "*/*", 10).await.unwrap().is_none());
        let asked = script.asked.lock().unwrap().join("");
        for line in [
            "GET /v2/ HTTP/1.1\r\n",
            "host: registry.test\r\n",
            "accept: application/json\r\n",
            "authorization: Basic YW5uOnBsYW50ZWQtcGFzc3dvcmQ=\r\n",
        ] {
            assert!(asked.contains(line), "{line}: {asked}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_opened_again() {
        let closing = answer("200 OK", "connection: close\r\n", "");
        let script = Script::of([closing, answer("200 OK", "", "")]);
        let mut client = client(&script);
        client.ask("/v2/", "*/*", 10).await.unwrap();
        client.ask("/v2/", "*/*", 10).await.unwrap();
        assert_eq!(script.lines().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_a_limit_in_bytes_and_in_time() {
        for (said, words) in [
            (answer("200 OK", "", "12345678901"), "more than 10 bytes"),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n12345678901\r\n".to_owned(),
                "more than 10 bytes",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n123".to_owned(), "no whole answer within 60 s"),
            (String::new(), "no whole answer within 60 s"),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "ask the registry for /v2/"),
        ] {
            let script = Script::of([said.clone(), answer("200 OK", "", "next")]);
            let mut client = client(&script);
            let error = format!("{:#}", client.ask("/v2/", "*/*", 10).await.unwrap_err());
            assert!(error.contains(words) && !error.contains("planted"), "{said}: {error}");
            let next = client.ask("/v2/", "*/*", 10).await.unwrap();
            assert_eq!(next.body, b"next", "what was left of {said:?} is not taken for the next answer");
        }
    }

    #[tokio::test]
    async fn refusals_are_told_in_the_registrys_words_and_without_the_login() {
        let denied = r#"{"errors": [{"code": "DENIED", "message": "no client certificate"}]}"#;
        for (status, body, words) in [
            ("401 Unauthorized", "", "refuses the login of ann"),
            ("403 Forbidden", denied, "answers GET /v2/ with 403 Forbidden: DENIED: no client certificate"),
            ("307 Temporary Redirect", "", "with 307"),
            ("500 Internal Server Error", "<html>planted-page</html>", "with 500 Internal Server Error"),
        ] {
            let script = Script::of([answer(status, "location: https://elsewhere.test/\r\n", body)]);
            let error = format!("{:#}", client(&script).find("/v2/", "*/*", 1000).await.unwrap_err());
            assert!(error.contains(words) && !error.contains("planted"), "{status}: {error}");
            assert_eq!(script.lines().len(), 1, "no redirect is followed");
        }
    }

    #[test]
    fn what_is_no_json_is_not_repeated() {
        let answer = Answer {
            asked: String::new(),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: b"{\"a\": \"planted\"".to_vec(),
        };
        let error = answer.json::<Value>("the list").unwrap_err().to_string();
        assert!(
            error.starts_with("the list is not what it should be (line 1") && !error.contains("planted"),
            "{error}"
        );
    }
}
