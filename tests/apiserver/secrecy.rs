//! Nothing secret gets out: not into logs at their loudest, events, conditions, metrics, readiness, arguments, or what `render` prints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::cluster::{Namespace, namespace};
use crate::given::issue;
use crate::operator::Operator;
use crate::registry::Registry;

/// Something that must not get out, in every form in which it might.
struct Planted {
    what: String,
    forms: Vec<String>,
}

fn plant(what: &str, value: &str) -> Planted {
    let mut forms = vec![value.to_owned(), STANDARD.encode(value)];
    // A key is recognised by any line of its body.
    forms.extend(value.lines().filter(|line| line.len() > 20 && !line.starts_with("-----")).map(str::to_owned));
    Planted { what: what.to_owned(), forms }
}

impl Registry<'_> {
    /// What the operator made for it that is secret.
    async fn secrets(&self) -> Vec<Planted> {
        let mut found = Vec::new();
        for (suffix, key) in [
            ("-ca", "tls.key"),
            ("-tls", "tls.key"),
            ("-csr", "tls.key"),
            ("-admin", "password"),
            ("-config", "http-secret"),
            ("-pull", ".dockerconfigjson"),
            ("-htpasswd", "htpasswd"),
            ("-token", "signing.key"),
            ("-token", "next.key"),
            ("-token", "refresh.key"),
        ] {
            let secret = self.child("Secret", suffix);
            if secret.find().await.is_some() {
                found.push(plant(&format!("{key} of {}", secret.name), &secret.decoded(key).await));
            }
        }
        found
    }
}

/// Everything that the operator shows to anybody.
async fn shown(team: &Namespace, operator: &Operator) -> Vec<(&'static str, String)> {
    let mut registries = String::new();
    for name in team.names("PrivateRegistry").await {
        let registry = team.object("PrivateRegistry", &name).get().await;
        registries.push_str(&registry["status"].to_string());
    }
    let mut public = String::new();
    for name in team.names("ConfigMap").await {
        public.push_str(&team.object("ConfigMap", &name).get().await.to_string());
    }
    let arguments = std::fs::read(format!("/proc/{}/cmdline", operator.process.pid())).unwrap();
    vec![
        ("the log", operator.log()),
        ("events", team.events().await),
        ("conditions", registries),
        ("what is public", public),
        ("metrics", operator.get("/metrics").await.unwrap().1),
        ("readiness", operator.get("/readyz").await.unwrap().1),
        ("arguments", String::from_utf8_lossy(&arguments).into_owned()),
    ]
}

#[tokio::test]
async fn planted_secrets_never_get_out() {
    let Some(team) = namespace("secrecy").await else { return };
    let credentials = team.credentials().await.to_owned();
    let operator = team.operator_as(&credentials, &["--log-level", "trace"], &[("RUST_LOG", "trace")]);
    operator.ready().await;
    let (good, other) = (issue(&["registry.example.com"]), issue(&["registry.example.com"]));
    team.secret("alice-login", &[("password", "planted-password-of-alice")]).await;
    team.secret(
        "many",
        &[("bob", "planted-password-of-bob"), ("carol", "planted"), ("dave", &"planted-too-long".repeat(6))],
    )
    .await;
    team.secret("good", &[("tls.crt", &good.certificate), ("tls.key", &good.key)]).await;
    team.secret("wrong", &[("tls.crt", &good.certificate), ("tls.key", &other.key)]).await;
    team.secret(
        "garbage",
        &[
            ("tls.crt", &good.certificate),
            ("tls.key", "-----BEGIN PRIVATE KEY-----\nplanted-in-a-broken-key\n-----END PRIVATE KEY-----"),
        ],
    )
    .await;
    let users = json!({
        "users": [{"name": "alice", "passwordSecretRef": {"name": "alice-login"}}],
        "usersFrom": [{"secretRef": {"name": "many"}}], "admin": {"generate": "Always"},
    });
    let own = |secret: &str| json!({"tls": {"secret": {"name": secret}}, "auth": users});
    let specs = [
        ("plain", json!({})),
        ("users", json!({"auth": users})),
        ("good", own("good")),
        ("wrong", own("wrong")),
        ("garbage", own("garbage")),
        (
            "tokens",
            json!({"auth": {"token": {"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}]}}}),
        ),
        ("asking", json!({"tls": {"certificateSigningRequest": {}}})),
    ];
    let mut registries = Vec::new();
    for (name, spec) in specs {
        registries.push(team.registry(name, spec).await);
    }
    registries[0].says("Ready", "True", "").await;
    registries[2].says("CertificateReady", "True", "").await;
    registries[3].says("CertificateReady", "False", "").await;
    registries[4].says("CertificateReady", "False", "").await;
    registries[6].says("CertificateReady", "False", "WaitingForSignature").await;
    // Errors quote things: some that the API server refuses, and repairs.
    registries[0].tls().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    registries[0].admin().delete().await;
    team.secret("alice-login", &[("password", "planted-second-password")]).await;
    team.settles().await;

    let mut planted = vec![
        plant("alice's password", "planted-password-of-alice"),
        plant("alice's second password", "planted-second-password"),
        plant("bob's password", "planted-password-of-bob"),
        plant("dave's password", "planted-too-longplanted-too-long"),
        plant("the user's key", &good.key),
        plant("the wrong key", &other.key),
        plant("the broken key", "planted-in-a-broken-key"),
    ];
    for registry in &registries {
        planted.extend(registry.secrets().await);
    }
    assert!(planted.len() > 20);
    let everything = shown(&team, &operator).await;
    assert!(everything[0].1.contains("TRACE") || everything[0].1.contains("DEBUG"), "the log was loud");
    for (place, text) in &everything {
        for Planted { what, forms } in &planted {
            assert!(!forms.iter().any(|form| text.contains(form.as_str())), "{what} stands in {place}");
        }
    }
    let token = std::fs::read_to_string(&credentials).unwrap();
    let token = token.split_once("token: ").unwrap().1.trim().trim_matches('"').to_owned();
    assert!(token.len() > 100 && !everything.iter().any(|(_, text)| text.contains(&token)), "the operator's own token");
}

#[test]
fn render_prints_placeholders() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/users.yaml");
    let render = || kubectl_registry::render::render(std::slice::from_ref(&examples));
    let (first, second) = (render(), render());
    assert_eq!(first.faults, Vec::<String>::new());
    assert!(first.yaml == second.yaml, "the same every time");
    let text = first.yaml;
    // Passwords of the example, and whatever looks like a key or a hash.
    for secret in ["change-me", "and-me-as-well", "PRIVATE KEY", "$2"] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(text.contains("PLACEHOLDER"));
}
