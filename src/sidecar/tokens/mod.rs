//! The token server, and the judge of every request of a registry whose clients have tokens.
//!
//! | path | what is asked | answer |
//! |---|---|---|
//! | `/auth/token` | by clients: a token | a token for as much as the rules allow; 401 for a wrong login, 429 for one too many |
//! | the same | by the operator: a report | whether those can be asked from whom logins come ([`report`]) |
//! | `/-/judge` | by nginx: may this request pass? | 200, and what the registry is told; 401 with what a client needs a token for |
//!
//! A token says what its user might do when it was given. The judge looks at users and rules as they are now, too: who is taken out of them is out with the
//! next request. Who came with a token of the cluster has what its RBAC allows now, or did a few seconds ago. The
//! registry checks each token by itself, so that a judge that is wrong opens nothing.

mod cluster;
mod issuers;
mod keys;
mod lack;
mod mount;
mod person;
mod refusal;
mod request;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use jiff::Timestamp;
use kube::Client;
use percent_encoding::percent_decode_str;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use self::cluster::Cluster;
use self::issuers::Issuers;
use self::keys::{Keys, Set};
use self::person::Person;
use self::refusal::{Denial, Refused, json_answer, no_longer_accepted, refused};
use self::request::{Login, TokenRequest};
use super::gate::bare;
use super::logins::basic;
use super::recent::Recent;
use super::softlock::Who;
use super::users::{Entry, Users};
use crate::access::cluster::ClusterLogins;
use crate::access::issuer::Issuer;
use crate::access::jwt;
use crate::access::report::{self, Report};
use crate::access::token::{self, Claims, LIFE, Refusal, VerifyingKey};
use crate::access::{Access, Action, Caller, Granted, Need, Scope, grant, need, refresh, wanted};
use crate::credentials::BcryptHash;
use crate::secret::Sensitive;

/// Where clients get tokens.
pub(super) const SERVER: &str = "/auth/token";
/// Where nginx asks.
pub(super) const JUDGE: &str = "/-/judge";
/// Bytes of a form. nginx lets no more through.
const LARGEST: usize = 64 << 10;
/// How long a form may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds that a token holds which the judge gives the registry for one request.
const FOR_ONE_REQUEST: u64 = 60;
/// Tokens that are remembered as checked, twice as many at most, and for how long.
const CHECKED: usize = 4_096;
const CHECKED_FOR: Duration = Duration::from_secs(LIFE + token::LEEWAY);

/// What the registry is told in the place of what the client said.
const TOLD: &str = "x-authorization";
/// The query that the registry gets, with its question mark.
const QUERY: &str = "x-query";
/// Who asks, for nginx's log.
pub(super) const USER: &str = "x-user";

/// Gives and judges tokens.
pub(super) struct Tokens {
    users: Arc<Users>,
    keys: Keys,
    cluster: Cluster,
    issuers: Issuers,
    checked: Mutex<Checked>,
}

/// Tokens that were found good lately, by what they hash to. A signature takes a hundred times as long.
struct Checked {
    /// Names of the keys that they were checked with.
    keys: Vec<String>,
    claims: Recent<Arc<Claims>>,
}

/// A request that passes.
struct Yes {
    user: String,
    /// What the registry is told, if that is not what the client said.
    authorization: Option<String>,
}

/// One request, as nginx tells of it.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
}

impl Tokens {
    /// `issuers`: the folder with the keys of issuers. `client` in the place of the cluster that the pod is in.
    pub(super) fn new(keys: PathBuf, issuers: PathBuf, users: Arc<Users>, client: Option<Client>) -> Self {
        let (keys, issuers, cluster) = (Keys::new(keys), Issuers::new(issuers), Cluster::new(client));
        Self { users, keys, cluster, issuers, checked: Mutex::new(Checked::with(Vec::new())) }
    }

    /// Answers a client that asks for a token.
    pub(super) async fn give(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let client = client(&parts.headers);
        let said = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Some(report) = self.report(said) {
            return report;
        }
        let asked = match parts.method {
            Method::GET => {
                let authorization = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
                TokenRequest::of_query(parts.uri.query().unwrap_or_default(), authorization)
            }
            Method::POST => match tokio::time::timeout(PATIENCE, Limited::new(body, LARGEST).collect()).await {
                Ok(Ok(body)) => TokenRequest::of_form(&body.to_bytes()),
                Ok(Err(_)) => {
                    return refused(StatusCode::PAYLOAD_TOO_LARGE, "DENIED", "the form is larger than 64 KiB");
                }
                Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "DENIED", "the form did not end within 10 s"),
            },
            _ => return refused(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "ask for a token by GET or POST"),
        };
        let Some((service, set)) = self.service().zip(self.keys.shown()) else {
            return Denial::Unreadable.answer("");
        };
        if asked.service.as_ref().is_some_and(|asked| *asked != service) {
            let words = format!("this is the token server of {service}, and of no other service");
            return refused(StatusCode::BAD_REQUEST, "DENIED", &words);
        }
        let is_by_password = matches!(asked.login, Login::Password(..));
        let given = match self.person(&set, &service, asked.login, client).await {
            Ok(person) => self.given(&set, person, &asked.scopes).await,
            Err(refused) => Err(refused),
        };
        let (person, mark, granted) = match given {
            Ok(given) => given,
            Err(Refused { user, denial: no }) => {
                info!(
                    audit = "token",
                    user,
                    client = client.map(display),
                    allowed = false,
                    why = no.words(),
                    "a token was refused"
                );
                return no.answer(&format!("Basic realm=\"{service}\""));
            }
        };
        let now = Timestamp::now();
        let life = person.life(seconds(now));
        let Some(token) = self.sign(&set, &service, &person, &mark, granted.clone(), life, now) else {
            return Denial::Unreadable.answer("");
        };
        let user = Some(person.name()).filter(|name| !name.is_empty());
        info!(
            audit = "token",
            user,
            client = client.map(display),
            allowed = true,
            granted = names(&granted),
            "a token was given"
        );
        // One that was made from another would never end. Who brought a token of somebody else's keeps that.
        let lasts = asked.wants_refresh && is_by_password && matches!(person, Person::User(..));
        let refresh = lasts.then(|| {
            let (user, until) = (person.name().to_owned(), seconds(now) + refresh::LIFE);
            refresh::seal(&set.refresh, &refresh::Login { user, login: mark, service: service.clone(), until })
        });
        let mut answer = json!({
            "token": token, "access_token": token, "expires_in": life, "issued_at": whole(now).to_string(),
        });
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
        }
        json_answer(StatusCode::OK, &answer)
    }

    /// Tells the operator whether those can be asked from whom logins come; `None`: nobody asks for that. Waits for nobody.
    fn report(&self, authorization: &[u8]) -> Option<Response<Full<Bytes>>> {
        let set = self.keys.shown()?;
        if !report::asks(&set.refresh, authorization)? {
            return Some(refused(StatusCode::UNAUTHORIZED, "DENIED", "this is told the operator alone"));
        }
        let known = self.users.with(|known| (known.access.issuers.clone(), known.access.cluster.is_some()));
        let Some((issuers, has_cluster)) = known else { return Some(Denial::Unreadable.answer("")) };
        let now = Instant::now();
        let issuers = issuers.iter().map(|issuer| (report::name_of(issuer), self.issuers.standing(issuer, now)));
        let report = Report { issuers: issuers.collect(), cluster: has_cluster.then(|| self.cluster.standing(now)) };
        Some(json_answer(StatusCode::OK, &serde_json::to_value(report).expect("a report is JSON")))
    }

    /// What somebody gets of what he asks for, and the mark of his password.
    async fn given(
        &self,
        set: &Set,
        person: Person,
        asked: &[Scope],
    ) -> Result<(Person, String, Vec<Granted>), Refused> {
        let allowed = self.allowed(&person, &wanted(asked)).await.map_err(|denial| denial.of(person.name()))?;
        let granted = grant(&allowed);
        let mark = match (self.mark(set, &person)?, &person) {
            (Some(mark), _) => mark,
            // Taken out of the table meanwhile, he is nobody.
            (None, Person::User(..)) => return Err(Denial::Unreadable.into()),
            (None, _) => return Err(no_longer_accepted().into()),
        };
        Ok((person, mark, granted))
    }

    /// Those of `wanted` that somebody may have now.
    async fn allowed<'a>(
        &self,
        person: &Person,
        wanted: &BTreeSet<Access<'a>>,
    ) -> Result<BTreeSet<Access<'a>>, Denial> {
        let caller = match person {
            Person::Guest(guest, _) => Caller::Guest(guest),
            Person::Nobody => Caller::Anonymous,
            Person::User(name, _) => Caller::User(name),
            Person::OfCluster(user, _) => {
                let logins = self.cluster_logins()?.ok_or_else(no_longer_accepted)?;
                return Ok(self.cluster.allowed(&logins, user, wanted).await?);
            }
        };
        self.users.with(|known| known.access.policy.allowed(caller, wanted)).ok_or(Denial::Unreadable)
    }

    /// How the cluster's tokens count here, if they do.
    fn cluster_logins(&self) -> Result<Option<ClusterLogins>, Denial> {
        self.users.with(|known| known.access.cluster.clone()).ok_or(Denial::Unreadable)
    }

    /// What stands in somebody's tokens, so that they end with what they were given for: of a user, the password that he came with. `None`: it, or he, or
    /// whoever knows him, is no longer there; of nobody in particular nothing.
    fn mark(&self, set: &Set, person: &Person) -> Result<Option<String>, Denial> {
        let mark = self.users.with(|known| match person {
            Person::Nobody => Some(String::new()),
            Person::User(name, came_with) => {
                let mut lines = known.logins.lines(name);
                lines.find(|line| Some(*line) == came_with.as_ref()).map(|line| set.mark(name, line))
            }
            Person::OfCluster(..) => known.access.cluster.as_ref().map(|logins| set.mark_of(logins)),
            Person::Guest(guest, _) => {
                let issuer = known.access.issuers.iter().find(|issuer| issuer.name == guest.issuer());
                issuer.map(|issuer| set.mark_of(issuer))
            }
        });
        mark.ok_or(Denial::Unreadable)
    }

    /// The line of a user that this is the mark of, if it is still there.
    fn marked(&self, set: &Set, user: &str, mark: &str) -> Result<Option<BcryptHash>, Denial> {
        let line = self.users.with(|known| known.logins.lines(user).find(|line| set.mark(user, line) == mark).cloned());
        line.ok_or(Denial::Unreadable)
    }

    fn issuer(&self, is_it: impl Fn(&Issuer) -> bool) -> Result<Option<Issuer>, Denial> {
        let found = self.users.with(|known| known.access.issuers.iter().find(|issuer| is_it(issuer)).cloned());
        found.ok_or(Denial::Unreadable)
    }

    /// Who asks for a token.
    async fn person(&self, set: &Set, service: &str, login: Login, client: Option<IpAddr>) -> Result<Person, Refused> {
        match login {
            Login::None => {
                let is_open = self.users.with(|known| known.access.policy.has_anonymous()).ok_or(Denial::Unreadable)?;
                if is_open { Ok(Person::Nobody) } else { Err(Denial::NoLogin.into()) }
            }
            Login::Password(name, password) => self.by_password(name, password, client).await,
            Login::Refresh(text) => {
                let login = refresh::open(&set.refresh, text.expose(), service, seconds(Timestamp::now()));
                let login = login.ok_or(Denial::WrongLogin)?;
                match self.marked(set, &login.user, &login.login)? {
                    Some(line) => Ok(Person::User(login.user, Some(line))),
                    None => Err(Denial::WrongLogin.of(&login.user)),
                }
            }
            Login::Unclear => Err(Denial::WrongLogin.into()),
        }
    }

    /// Who has this password. A token of an issuer or of the cluster says itself whose it is, whatever name it is brought with.
    async fn by_password(
        &self,
        name: String,
        password: Sensitive<Vec<u8>>,
        client: Option<IpAddr>,
    ) -> Result<Person, Refused> {
        if jwt::is_token(password.expose()) {
            let claims = jwt::unproved(password.expose()).unwrap_or_default();
            let (said, until) =
                (claims.get("iss").and_then(|issuer| issuer.as_str()).unwrap_or_default(), jwt::end(&claims));
            if let Some(issuer) = self.issuer(|issuer| issuer.url == said)? {
                let guest = self.issuers.guest(&issuer, &password, seconds(Timestamp::now())).await;
                let guest = guest.map_err(Denial::from)?.map_err(Denial::NotAccepted)?;
                return Ok(Person::Guest(Arc::new(guest), until));
            }
            if let Some(logins) = self.cluster_logins()? {
                // What was found out of it may be older.
                if until.is_some_and(|until| until <= seconds(Timestamp::now())) {
                    return Err(Denial::NotAccepted("the token has expired".to_owned()).into());
                }
                let user = self.cluster.user(&logins, &password).await.map_err(Denial::from)?;
                return Ok(Person::OfCluster(user.map_err(Denial::NotAccepted)?, until));
            }
            if self.issuer(|_| true)?.is_some() {
                let why = "the token is of an issuer that this registry does not know, or whose claimMapping is wrong";
                return Err(Denial::NotAccepted(why.to_owned()).into());
            }
        }
        // By either of two names he is the same.
        let name = self.users.user_of(&name).ok_or(Denial::Unreadable)?;
        let denial = match self.users.admit_slowly(&name, password, Who::new(&name, client)).await {
            Entry::Yes(line) => return Ok(Person::User(name, Some(line))),
            Entry::No => Denial::WrongLogin,
            Entry::Later(wait) => Denial::Later(wait),
            Entry::Unclear => Denial::Unreadable,
        };
        Err(denial.of(&name))
    }

    /// Whom tokens are for. `None`: that cannot be read.
    fn service(&self) -> Option<String> {
        self.users.with(|known| known.access.service.clone())
    }

    /// Answers nginx: whether a request may pass, and how the registry hears of it.
    pub(super) async fn judge(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let (Some(method), Some(uri)) = (text("x-original-method"), text("x-original-uri")) else {
            return self.unclear(headers);
        };
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        // As the registry reads it.
        let Ok(path) = percent_decode_str(path).decode_utf8() else { return self.unclear(headers) };
        let asked = Asked { method, path: &path, query, headers };
        let Some(needed) = need(method, &path) else { return self.unclear(headers) };
        let from = source(&asked, &needed);
        let judged = self.look(&asked, &needed, from.as_deref()).await;
        self.answered(&asked, &needed, from.is_some(), judged)
    }

    /// It cannot be said what a request is about: the registry, which is told of no login, refuses it in its own words or says where it belongs.
    fn unclear(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        info!(
            audit = "request",
            client = client(headers).map(display),
            allowed = false,
            why = "it is not clear what it is about",
            "a request goes on without its login"
        );
        Response::default()
    }

    /// Who pulls, if he may; or what he is answered.
    pub(super) async fn puller(&self, path: &str, headers: &HeaderMap) -> Result<String, Box<Response<Full<Bytes>>>> {
        let asked = Asked { method: "GET", path, query: "", headers };
        // Nothing is given of a repository that no rule could be about.
        let Some(needed) = need("GET", path) else { return Err(Box::new(bare(StatusCode::FORBIDDEN))) };
        match self.look(&asked, &needed, None).await {
            Ok((yes, _)) => Ok(yes.user),
            refused => Err(Box::new(self.answered(&asked, &needed, false, refused))),
        }
    }

    fn answered(
        &self,
        asked: &Asked<'_>,
        need: &Need<'_>,
        mounts: bool,
        judged: Result<(Yes, bool), Refused>,
    ) -> Response<Full<Bytes>> {
        let client = client(asked.headers);
        match judged {
            Ok((yes, may_mount)) => {
                let is_news = !matches!(asked.method, "GET" | "HEAD");
                if is_news {
                    let user = Some(&yes.user).filter(|user| !user.is_empty());
                    info!(
                        audit = "request",
                        user,
                        client = client.map(display),
                        allowed = true,
                        method = asked.method,
                        path = asked.path,
                        "a request passes"
                    );
                }
                let query = if mounts && !may_mount { mount::without(asked.query) } else { asked.query.to_owned() };
                let query = if query.is_empty() { query } else { format!("?{query}") };
                let mut answer = Response::default();
                let as_said = asked.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
                let told = yes.authorization.as_deref().or(as_said).unwrap_or_default();
                for (name, text) in [(TOLD, told), (QUERY, &query), (USER, &yes.user)] {
                    tell(&mut answer, name, text);
                }
                answer
            }
            Err(Refused { user, denial: no }) => {
                // Each client begins without a login.
                if no != Denial::NoLogin {
                    info!(
                        audit = "request",
                        user,
                        client = client.map(display),
                        allowed = false,
                        method = asked.method,
                        path = asked.path,
                        why = no.words(),
                        "a request was refused"
                    );
                }
                let mut answer = no.answer(&self.challenge(asked, need, &no));
                if let Some(user) = user {
                    tell(&mut answer, USER, &user);
                }
                // nginx, which asks, knows no other word for it.
                if matches!(no, Denial::Later(_)) {
                    *answer.status_mut() = StatusCode::FORBIDDEN;
                }
                answer
            }
        }
    }

    /// Whether a request may pass; and, if it would have a layer `from` another repository, whether it may.
    async fn look(&self, asked: &Asked<'_>, need: &Need<'_>, from: Option<&str>) -> Result<(Yes, bool), Refused> {
        let authorization = asked.headers.get(AUTHORIZATION).ok_or(Denial::NoLogin)?.as_bytes();
        let set = self.keys.shown().ok_or(Denial::Unreadable)?;
        let service = self.service().ok_or(Denial::Unreadable)?;
        let bearer = authorization.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let (person, claims) = match bearer {
            Some((_, token)) => {
                let token = str::from_utf8(token).map_err(|_| Denial::BadToken(Refusal::Malformed.to_string()))?;
                let (claims, person) = self.check(&set, &service, token)?;
                (person, Some(claims))
            }
            None => {
                let (name, password) = basic(authorization).ok_or(Denial::WrongLogin)?;
                (self.by_password(name, password, client(asked.headers)).await?, None)
            }
        };
        let source = from.map(|name| Need::Repository(name, &[Action::Pull]));
        let needed = need.accesses();
        let of_source = source.as_ref().map(Need::accesses);
        let wanted = needed.iter().chain(of_source.iter().flatten()).copied().collect();
        let allowed = self.allowed(&person, &wanted).await.map_err(|denial| denial.of(person.name()))?;
        let gives = |need: &Need<'_>| claims.as_ref().is_none_or(|claims| need.is_granted(&claims.access));
        if !needed.is_subset(&allowed) || !gives(need) {
            return Err(Denial::NotAllowed.of(person.name()));
        }
        let may_mount =
            of_source.is_some_and(|source| source.is_subset(&allowed)) && source.as_ref().is_some_and(gives);
        // Who comes with a password: the registry gets a token for exactly this.
        let authorization = if claims.is_none() {
            let mut granted = need.granted();
            granted.extend(source.filter(|_| may_mount).iter().flat_map(Need::granted));
            let token = self.sign(&set, &service, &person, "", granted, FOR_ONE_REQUEST, Timestamp::now());
            Some(format!("Bearer {}", token.ok_or(Denial::Unreadable)?))
        } else {
            None
        };
        Ok((Yes { user: person.name().to_owned(), authorization }, may_mount))
    }

    /// What a token says, and who comes with it, if it counts now: of this registry, in its time, of a user who has the same password.
    fn check(&self, set: &Set, service: &str, token: &str) -> Result<(Arc<Claims>, Person), Denial> {
        let now = seconds(Timestamp::now());
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let bad = |refusal: Refusal| Denial::BadToken(refusal.to_string());
        let known = self.checked(|checked| checked.find(set, &hash));
        let claims = match known {
            Some(claims) if now < claims.exp.saturating_add(token::LEEWAY) && claims.aud == service => claims,
            _ => {
                let claims = token::verify(token, &set.verifying, service, service, now).map_err(bad)?;
                let claims = Arc::new(claims);
                self.checked(|checked| checked.claims.remember(hash, Arc::clone(&claims), Instant::now()));
                claims
            }
        };
        match Person::of(&claims) {
            Person::Nobody => Ok((claims, Person::Nobody)),
            Person::User(name, _) => match self.marked(set, &name, &claims.login)? {
                line @ Some(_) => Ok((claims, Person::User(name, line))),
                None => Err(Denial::BadToken("the user was removed, or has another password".to_owned())),
            },
            person if self.mark(set, &person)?.is_some_and(|mark| mark == claims.login) => Ok((claims, person)),
            _ => Err(no_longer_accepted()),
        }
    }

    fn checked<T>(&self, work: impl FnOnce(&mut Checked) -> T) -> T {
        work(&mut self.checked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[allow(clippy::too_many_arguments, reason = "each is a claim of the token")]
    fn sign(
        &self,
        set: &Set,
        service: &str,
        person: &Person,
        mark: &str,
        access: Vec<Granted>,
        life: u64,
        now: Timestamp,
    ) -> Option<String> {
        let now = seconds(now);
        let mut id = [0; 12];
        SystemRandom::new().fill(&mut id).ok()?;
        let claims = Claims {
            iss: service.to_owned(),
            sub: person.name().to_owned(),
            aud: service.to_owned(),
            exp: now + life,
            nbf: now,
            iat: now,
            jti: BASE64.encode(id),
            access,
            login: mark.to_owned(),
            cluster: match person {
                Person::OfCluster(user, _) => Some((**user).clone()),
                _ => None,
            },
            guest: match person {
                Person::Guest(guest, _) => Some((**guest).clone()),
                _ => None,
            },
        };
        set.signing.sign(&claims).inspect_err(|error| warn!(%error, "no token can be signed")).ok()
    }

    /// What a client is told to come back with: the same as the registry says, at the address that the client has used.
    fn challenge(&self, asked: &Asked<'_>, need: &Need<'_>, no: &Denial) -> String {
        let service = self.service().unwrap_or_default();
        let text = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok());
        let host = text("x-forwarded-host").or_else(|| text(HOST.as_str())).filter(|host| is_host(host));
        let scheme = text("x-forwarded-proto").filter(|scheme| *scheme == "https").unwrap_or("http");
        let realm = host.map_or_else(|| SERVER.to_owned(), |host| format!("{scheme}://{host}{SERVER}"));
        let scope = Some(need.scope()).filter(|scope| !scope.is_empty());
        let scope = scope.map(|scope| format!(",scope=\"{scope}\"")).unwrap_or_default();
        let error = match no {
            Denial::BadToken(_) => ",error=\"invalid_token\"",
            Denial::NotAllowed => ",error=\"insufficient_scope\"",
            _ => "",
        };
        format!("Bearer realm=\"{realm}\",service=\"{service}\"{scope}{error}")
    }
}

impl Checked {
    fn with(keys: Vec<String>) -> Self {
        Self { keys, claims: Recent::new(CHECKED_FOR, CHECKED) }
    }

    /// With other keys nothing that was checked counts any more.
    fn find(&mut self, set: &Set, hash: &[u8; 32]) -> Option<Arc<Claims>> {
        if !self.keys.iter().map(String::as_str).eq(set.verifying.iter().map(VerifyingKey::id)) {
            *self = Self::with(set.verifying.iter().map(|key| key.id().to_owned()).collect());
        }
        self.claims.find(hash, Instant::now())
    }
}

/// The repository that a push would have a layer from.
fn source(asked: &Asked<'_>, need: &Need<'_>) -> Option<String> {
    let is_upload = asked.method == "POST" && matches!(need, Need::Repository(..));
    mount::source(asked.query).filter(|_| is_upload)
}

/// Where a request comes from, as nginx saw it.
fn client(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get("x-client")?.to_str().ok()?.parse().ok()
}

/// Tells nginx something, if a head can say it.
pub(super) fn tell(answer: &mut Response<Full<Bytes>>, name: &'static str, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        answer.headers_mut().insert(name, value);
    }
}

/// What stands in a challenge between quotes.
fn is_host(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    !text.is_empty() && text.len() <= 300 && text.bytes().all(is_plain)
}

fn names(granted: &[Granted]) -> String {
    let one = |entry: &Granted| {
        let actions: Vec<_> = entry.actions.iter().map(String::as_str).collect();
        format!("{}:{}:{}", entry.kind, entry.name, actions.join(","))
    };
    granted.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn seconds(at: Timestamp) -> u64 {
    at.as_second().try_into().unwrap_or_default()
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
