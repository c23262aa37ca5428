//! What happens to a registry in its life, as steps that a test takes with or without faults.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::children::{self, PASSWORDS};
use crate::cluster::Namespace;
use crate::given::{Company, DAY};
use crate::object::Object;
use crate::operator::Operator;
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::settling::condition;

/// Whoever signs what is asked for.
static COMPANY: LazyLock<Company> = LazyLock::new(Company::new);

/// How long a disturbance may hold up what takes a second without it, on a machine that has much else to do.
pub const LIMIT: Duration = Duration::from_secs(240);

/// A step, and what must have come before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is made.
    Create,
    /// Its manifest changes in many places: what runs becomes a Job, names come into the certificate, a login is added.
    Update,
    /// Its certificate is asked for anew.
    Renew,
    /// Another authority is asked for, and has no time to become known.
    Rotate,
    /// The password of its user changes.
    ChangePassword,
    /// The operator makes the password of its user, and pods pull as that one.
    Enroll,
    /// The next login of that user is asked for.
    TakeTurns,
    /// What it keeps is to go with it.
    Release,
    /// Somebody else is to sign its certificate.
    Ask,
    /// That one has signed.
    Answer,
}

impl Step {
    /// The steps before this one, in order.
    pub fn before(self) -> &'static [Step] {
        match self {
            Self::Create | Self::Enroll => &[],
            Self::Answer => &[Self::Create, Self::Ask],
            Self::TakeTurns => &[Self::Enroll],
            _ => &[Self::Create],
        }
    }
}

fn secret(registry: &str) -> String {
    format!("login-{registry}")
}

fn manifest(registry: &str) -> Value {
    json!({"auth": {"users": [{"name": "alice", "passwordSecretRef": {"name": secret(registry)}}]}})
}

fn changed(registry: &str) -> Value {
    let mut spec = manifest(registry);
    spec["restartPolicy"] = json!({"type": "OnFailure"});
    spec["config"] = json!({"logLevel": "debug"});
    spec["service"] = json!({"port": 443, "annotations": {"example.com/x": "y"}});
    let bob = json!({"name": "bob", "passwordSecretRef": {"name": secret(registry), "key": "other"}});
    spec["auth"]["users"].as_array_mut().unwrap().push(bob);
    spec["pod"] = json!({"labels": {"example.com/x": "y"}});
    spec
}

impl Namespace {
    /// A Secret for the users of a registry that is to come.
    pub async fn login(&self, registry: &str) {
        self.secret(&secret(registry), &[("password", PASSWORDS[0]), ("other", PASSWORDS[2])]).await;
    }
}

/// What kept children hold: no fault may change that, only the user's wish for another authority.
pub async fn kept(registry: &Registry<'_>, step: Step) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let ca = (step != Step::Rotate).then(|| registry.ca());
    for object in [registry.claim()].into_iter().chain(ca) {
        let live = object.get().await;
        all.push((live["metadata"]["uid"].as_str().unwrap().to_owned(), live["data"].clone()));
    }
    all
}

impl Registry<'_> {
    /// Takes a step. Does not wait for the operator.
    pub async fn takes(&self, step: Step) {
        match step {
            Step::Create => drop(self.apply(manifest(&self.name)).await.unwrap()),
            Step::Update => drop(self.apply(changed(&self.name)).await.unwrap()),
            Step::Renew => self.object.annotate("privateregistry.dev/renew", "leaf").await,
            Step::Rotate => {
                let mut spec = manifest(&self.name);
                spec["tls"] = json!({"privateCA": {"rotation": {"gracePeriod": "0s"}}});
                self.apply(spec).await.unwrap();
                self.object.annotate("privateregistry.dev/renew", "ca").await;
            }
            Step::ChangePassword => {
                let login: Object = self.namespace.object("Secret", &secret(&self.name));
                login.edit(json!({"stringData": {"password": PASSWORDS[1]}})).await;
            }
            Step::Ask => {
                let mut spec = manifest(&self.name);
                spec["tls"] = json!({"certificateSigningRequest": {}});
                self.apply(spec).await.unwrap();
            }
            Step::Answer => {
                let request = self.child("ConfigMap", "-csr").at("/data/tls.csr").await;
                let chain = COMPANY.signs(request.as_str().unwrap(), DAY);
                self.namespace.secret(&format!("{}-signed", self.name), &[("tls.crt", &chain)]).await;
            }
            Step::Enroll => {
                let robot = json!([{"name": "robot", "rotation": {"every": "720h"}}]);
                self.apply(json!({"auth": {"users": robot}, "pullSecrets": [{"user": "robot"}]})).await.unwrap();
            }
            Step::TakeTurns => self.child("Secret", "-login-robot").annotate("privateregistry.dev/rotate", "1").await,
            Step::Release => {
                let mut spec = manifest(&self.name);
                spec["deletionPolicy"] = json!("Delete");
                self.apply(spec).await.unwrap();
            }
        }
    }

    /// Waits until the operator has done what there is to do.
    pub async fn is_done(&self, proxy: &Proxy) {
        let began = Instant::now();
        loop {
            self.says_within(LIMIT, "Ready", "True", "").await;
            proxy.is_quiet().await;
            // Ready may speak of what was before: a Job that is replaced goes first.
            let children = children::of(self.namespace, &self.name).await;
            let leaving = children.values().any(|child| !child["metadata"]["deletionTimestamp"].is_null());
            let is_ready = condition(&children["status"], "Ready")["status"] == "True";
            let authorities = children["status"]["certificate"]["authorities"].as_array().map_or(0, Vec::len);
            // The former authority stays a day beside that of somebody else.
            let is_answered =
                !children["Secret-tls"]["metadata"]["annotations"]["privateregistry.dev/signer"].is_null();
            if is_ready && !leaving && (authorities < 2 || is_answered) && has_taken_turns(&children) {
                return;
            }
            assert!(began.elapsed() < LIMIT, "{} does not come to rest: {:?}", self.name, children["status"]);
        }
    }
}

/// Whether no login is on its way of those that were asked for.
fn has_taken_turns(children: &children::Children) -> bool {
    let Some(login) = children.get("Secret-login-robot") else { return true };
    let (data, asked) = (&login["data"], login["metadata"]["annotations"].get("privateregistry.dev/rotate"));
    let is_counting = data["former-password"].is_null() || !data["former-since"].is_null();
    data["next-password"].is_null() && is_counting && asked.is_none() == data["handled"].is_null()
}

impl Proxy {
    /// Whether the operator was killed; if not, it had no occasion.
    pub async fn kills(&self) -> bool {
        let began = Instant::now();
        while !self.has_killed() {
            if self.silence(began) > Duration::from_millis(1500) {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

/// The operator of a namespace behind its proxy, which may be killed and started again.
pub struct Behind<'a> {
    pub team: &'a Namespace,
    pub proxy: Proxy,
    operator: Option<Operator>,
}

impl<'a> Behind<'a> {
    pub async fn start(team: &'a Namespace) -> Self {
        let mut behind = Self { team, proxy: team.proxy().await, operator: None };
        behind.starts().await;
        behind
    }

    /// Starts another process. Without an election: it need not wait until the lease of the one before has run out.
    pub async fn starts(&mut self) {
        let operator = self.team.operator_as(&self.proxy.kubeconfig, &["--leader-elect=false", "--login-lead=1s"], &[]);
        self.proxy.operator(&operator.process);
        operator.ready().await;
        self.operator = Some(operator);
    }

    pub fn process(&self) -> &Operator {
        self.operator.as_ref().unwrap()
    }

    pub fn kill(&self) {
        self.process().kill();
    }
}
