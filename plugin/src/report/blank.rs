//! What must not leave the cluster, and is blanked before it is written: values of Secrets, passwords, tokens, hashes, private keys, logins in addresses. Pure.
//!
//! Two nets: what is known to be secret, wherever it stands, and what looks like it. Whoever adds a form of secret adds it to the test below.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use private_registry_operator::secret::Sensitive;
use regex::Regex;
use serde_json::{Map, Value};

/// What stands in the place of something that was taken out.
const BLANK: &str = "[blanked]";
/// Shorter texts stand everywhere by chance.
const SHORTEST: usize = 6;
/// Annotations that repeat a whole manifest.
const COPIES: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "deprecated.daemonset.template.generation"];
/// Ends of names, without what stands between their parts, whose values are secret.
const SECRET_NAMES: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "accountkey",
    "privatekey",
    "authorization",
    "auth",
    "cookie",
    "htpasswd",
    "credential",
    "credentials",
];

/// A text that may leave the cluster. Only this file makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blanked(String);

impl Blanked {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is known to be secret.
#[derive(Default)]
pub(super) struct Blank {
    /// The longest first: one may be a part of another.
    known: Vec<Sensitive<String>>,
}

#[allow(clippy::expect_used, reason = "patterns of our own; a test uses each")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// Each with what it becomes.
static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // One that is cut off hides all that follows.
        (r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)", BLANK),
        (r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s<>]*@", "${1}[blanked]@"),
        (r#"(?i)(authorization\\*["']?\s*[:=]\s*\[?\\*["']?)[^"'\\\r\n\]]+"#, "${1}[blanked]"),
        (r"(?i)\b(basic|bearer|negotiate)(\s+)[A-Za-z0-9+/=._~-]{8,}", "${1}${2}[blanked]"),
        (r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", BLANK),
        (r"\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{10,}", BLANK),
        (r"\$(?:apr1|1|5|6|argon2[a-z]*|y)\$[^\s:,;]+", BLANK),
        (r"\{S?SHA\}[A-Za-z0-9+/=]+", BLANK),
        // By which their makers have them found: ours, GitHub's, GitLab's, Docker's.
        (r"\b(?:prtr_|gh[a-z]_|github_pat_|glpat-|dckr_pat_|dckr_oat_)[A-Za-z0-9._-]+", BLANK),
        (r"([?&]_state=)[^\s&]+", "${1}[blanked]"),
        (r#"(?i)(--?[a-z0-9-]*(?:password|passwd|passphrase|token|secret|api-?key)[ =])(?:"[^"]*"|'[^']*'|\S+)"#, "${1}[blanked]"),
        // In JSON, in JSON that stands in a JSON text, in YAML, and as programs write it.
        (
            r#"(?i)((?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|account[_-]?key|credential|cookie)s?\\*["']?\s*[:=]\s*)(?:\\+"[\s\S]*?\\+"|"(?:[^"\\]|\\.)*"|'[^']*')"#,
            "${1}[blanked]",
        ),
        (
            r#"(?i)((?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|account[_-]?key|credential|cookie)s?["']?:[ \t]+)[^\s"'\[\\][^\r\n"]*"#,
            "${1}[blanked]",
        ),
        (
            r#"(?i)((?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|secret[_-]?key|account[_-]?key|credential|cookie)s?=)[^\s"'&\[\\][^\s"'&]*"#,
            "${1}[blanked]",
        ),
    ]
    .into_iter()
    .map(|(text, becomes)| (pattern(text), becomes))
    .collect()
});

/// Values of keys in a text that is a Secret's content, such as a configuration file.
static IN_A_FILE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?im)^[ \t]*["']?[a-z0-9_-]*(?:password|secret|token|secretkey|accesskey)["']?[ \t]*[:=][ \t]*["']?([^\s"',]+)"#,
    )
});

impl Blank {
    /// Learns what is secret in a Secret. Its certificates are public.
    pub(super) fn learn(&mut self, secret: &Value) {
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
            let text = Sensitive::new(text);
            // Names are no secrets, and whoever looks for a fault needs them.
            let is_public = key.ends_with(".crt") || key == "username" || key == "type" || key == "namespace";
            if !is_public {
                self.learn_text(text.expose());
            }
        }
        self.known.sort_by_key(|known| std::cmp::Reverse(known.expose().len()));
        self.known.dedup();
    }

    fn learn_text(&mut self, text: &str) {
        if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(text) {
            return self.learn_json(&value);
        }
        if text.trim_end().lines().count() == 1 {
            return self.add(text.trim_end_matches(['\r', '\n']));
        }
        IN_A_FILE.captures_iter(text).filter_map(|found| found.get(1)).for_each(|found| self.add(found.as_str()));
    }

    fn learn_json(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if is_secret(name) => self.add(text),
                        other => self.learn_json(other),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn_json(item)),
            _ => {}
        }
    }

    fn add(&mut self, text: &str) {
        if text.len() >= SHORTEST {
            self.known.push(Sensitive::new(text.to_owned()));
            self.known.push(Sensitive::new(STANDARD.encode(text)));
            // As it stands within a text of JSON.
            let escaped = Sensitive::new(Value::String(text.to_owned()).to_string());
            let escaped =
                escaped.expose().strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default();
            if escaped.len() > text.len() {
                self.known.push(Sensitive::new(escaped.to_owned()));
            }
        }
    }

    /// A text without what is secret.
    pub(super) fn text(&self, text: &str) -> Blanked {
        let mut text = text.to_owned();
        for known in &self.known {
            if text.contains(known.expose().as_str()) {
                text = text.replace(known.expose().as_str(), BLANK);
            }
        }
        for (pattern, becomes) in PATTERNS.iter() {
            text = pattern.replace_all(&text, *becomes).into_owned();
        }
        Blanked(text)
    }

    /// An object of the cluster, as YAML.
    pub(super) fn object(&self, object: &Value) -> anyhow::Result<Blanked> {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
                COPIES.iter().for_each(|copy| _ = annotations.remove(*copy));
            }
        }
        // By length alone, whatever its keys are called.
        let lengths = if object["kind"] == "Secret" { take_lengths(&mut object) } else { Map::new() };
        self.value(&mut object);
        if let Some(fields) = object.as_object_mut() {
            fields.extend(lengths);
        }
        crate::output::yaml(&object).map(Blanked)
    }

    /// A value of our own, as JSON.
    pub(super) fn json(&self, value: &Value) -> anyhow::Result<Blanked> {
        let mut value = value.clone();
        self.value(&mut value);
        crate::output::json(&value).map(Blanked)
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text).0,
            Value::Array(items) => {
                let mut is_next = false;
                for item in items {
                    if let (true, Value::String(text)) = (is_next, &mut *item) {
                        BLANK.clone_into(text);
                    }
                    is_next = item.as_str().is_some_and(|text| text.starts_with('-') && is_secret(text));
                    self.value(item);
                }
            }
            Value::Object(fields) => self.fields(fields),
            _ => {}
        }
    }

    fn fields(&self, fields: &mut Map<String, Value>) {
        for (name, value) in fields.iter_mut() {
            if name == "env" {
                environment(value);
            }
            match value {
                Value::String(_) | Value::Number(_) if is_secret(name) => *value = BLANK.into(),
                Value::Array(items) if is_secret(name) => {
                    items.iter_mut().filter(|item| item.is_string()).for_each(|item| *item = BLANK.into());
                    items.iter_mut().for_each(|item| self.value(item));
                }
                other => self.value(other),
            }
        }
    }
}

/// Takes what a Secret holds out of it, and gives the length of each value for it.
fn take_lengths(secret: &mut Value) -> Map<String, Value> {
    let Some(fields) = secret.as_object_mut() else { return Map::new() };
    let mut lengths = Map::new();
    for (field, is_encoded) in [("data", true), ("stringData", false)] {
        let Some(Value::Object(mut data)) = fields.remove(field) else { continue };
        for value in data.values_mut() {
            let text = value.as_str().unwrap_or_default();
            let length = if is_encoded { STANDARD.decode(text).map_or(0, |bytes| bytes.len()) } else { text.len() };
            *value = format!("{length} bytes").into();
        }
        lengths.insert(field.to_owned(), Value::Object(data));
    }
    lengths
}

/// Of variables only the names stay.
fn environment(env: &mut Value) {
    for variable in env.as_array_mut().into_iter().flatten() {
        if let Some(value) = variable.get_mut("value") {
            *value = BLANK.into();
        }
    }
}

/// Whether a field, a variable or a flag of this name holds a secret.
fn is_secret(name: &str) -> bool {
    let plain: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_NAMES.iter().any(|end| plain.ends_with(end))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Forms in which secrets stand in texts; `PLANTED` is what must not be seen.
    pub(in crate::report) const TEXTS: [&str; 33] = [
        "given to ann: prtr_PLANTED.PLANTED",
        "pushed with glpat-PLANTED",
        "level=info msg=x Authorization: Basic PLANTEDPLANTED==",
        r#"{"headers":{"Authorization":["Bearer PLANTED.PLANTED"]}}"#,
        "authorization=Bearer PLANTEDPLANTED",
        "Authorization: Digest username=PLANTED",
        "a Bearer PLANTEDPLANTED in a sentence",
        "eyJhbGciOiJFUzI1NiJ9.eyPLANTED.PLANTED",
        "ann:$2y$05$PLANTEDPLANTEDPLANTEDPLANTEDPLANTEDPLANTEDPLANTEDPLAN",
        "ann:$apr1$PLANTED$PLANTED",
        "ann:{SHA}PLANTEDPLANTED=",
        "ann:$6$PLANTED$PLANTED",
        "-----BEGIN EC PRIVATE KEY-----\nPLANTED\nPLANTED\n-----END EC PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nPLANTED\nPLANTED and it is cut off",
        r#""key": "-----BEGIN RSA PRIVATE KEY-----\nPLANTED\n-----END RSA PRIVATE KEY-----\n""#,
        "GET https://ann:PLANTED@registry.example.com/v2/",
        "proxy http://ann:p@PLANTED@proxy:3128/",
        "postgres://PLANTED@db",
        "password: PLANTED",
        "password: it is PLANTED here",
        "PASSWORD=PLANTED next",
        r#"{"password":"PLANTED","x":1}"#,
        r#"{"password": "a \" PLANTED"}"#,
        r#"msg="{\"password\":\"PLANTED\"}""#,
        "secretkey: PLANTED",
        "aws_secret_access_key=PLANTED",
        "--password PLANTED",
        "--registry-token=PLANTED",
        "GET /auth/token?refresh_token=PLANTED&scope=a",
        "Set-Cookie: PLANTED",
        "PUT /v2/a/blobs/uploads/1?_state=PLANTED",
        "identityToken: 'PLANTED'",
        "http:\n  secret: PLANTED\n",
    ];

    #[test]
    fn what_looks_like_a_secret_is_blanked_wherever_it_stands() {
        for text in TEXTS {
            let blanked = Blank::default().text(&format!("before\n{text}"));
            assert!(!blanked.as_str().contains("PLANTED"), "{text}\n{}", blanked.as_str());
            assert!(
                blanked.as_str().starts_with("before\n") && blanked.as_str().contains(BLANK),
                "{}",
                blanked.as_str()
            );
        }
    }

    #[test]
    fn the_token_servers_own_tokens_are_known_by_their_beginning() {
        let token = format!("{}PLANTED.PLANTED", private_registry_operator::access::refresh::PREFIX);
        assert_eq!(Blank::default().text(&token).as_str(), BLANK);
    }

    #[test]
    fn without_any_of_the_patterns_something_would_be_seen() {
        for left_out in 0..PATTERNS.len() {
            let others = PATTERNS.iter().enumerate().filter(|(index, _)| *index != left_out);
            let others: Vec<_> = others.map(|(_, pattern)| pattern).collect();
            let blanked = |text: &str| {
                others
                    .iter()
                    .fold(text.to_owned(), |text, (pattern, becomes)| pattern.replace_all(&text, *becomes).into_owned())
            };
            assert!(TEXTS.iter().any(|text| blanked(text).contains("PLANTED")), "{}", PATTERNS[left_out].0);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "time=2026-11-30T12:00:00Z level=info msg=\"response completed\" http.request.uri=/v2/team/app/manifests/1",
            "Failed to pull image \"registry.example.com:5000/team/app:1\": not found",
            "secretName: team-a-config",
            "passwordSecretRef:\n  name: ann\n  key: password\n",
            "www-authenticate: Bearer realm=\"https://registry.example.com/auth/token\"",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "the Secret registries/ann has no password of 8 to 72 bytes",
            "see https://registry.example.com/v2/ and ann@example.com",
        ] {
            assert_eq!(Blank::default().text(text).as_str(), text);
        }
    }

    fn secret(data: &[(&str, &str)]) -> Value {
        let data: Map<_, _> =
            data.iter().map(|(key, text)| ((*key).to_owned(), STANDARD.encode(text).into())).collect();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "annotations": {
            COPIES[0]: "{\"stringData\":{\"a\":\"PLANTED\"}}", "stays": "b",
        }, "managedFields": [{"manager": "x"}]}, "data": data})
    }

    #[test]
    fn of_a_secret_only_lengths_stay() {
        let mut object = secret(&[("password", "PLANTED-1"), ("tls.key", ""), ("binary", "PLANTED")]);
        object["stringData"] = json!({"more": "PLANTED"});
        let text = Blank::default().object(&object).unwrap();
        assert!(!text.as_str().contains("PLANTED") && !text.as_str().contains("UExBT"), "{}", text.as_str());
        for stays in ["password: 9 bytes", "tls.key: 0 bytes", "binary: 7 bytes", "more: 7 bytes", "stays: b"] {
            assert!(text.as_str().contains(stays), "{stays}: {}", text.as_str());
        }
        assert!(!text.as_str().contains("managedFields"));
    }

    #[test]
    fn what_a_secret_holds_is_blanked_everywhere_else_and_in_other_forms() {
        let mut blank = Blank::default();
        let docker = json!({"auths": {"a.example.com": {"username": "ann", "password": "orange-lion", "auth": "b3JhbmdlLWxpb24tYW5k"}}});
        blank.learn(&secret(&[
            ("ann", "tiger lily \"x\""),
            ("username", "administrator"),
            ("config.yml", "version: 0.1\nhttp:\n  addr: :5000\n  secret: 0f1e2d3c4b5a\nlog:\n  level: info\n"),
            (".dockerconfigjson", &docker.to_string()),
            ("tls.crt", "-----BEGIN CERTIFICATE-----\nMIIBpublic\n"),
            ("short", "abc"),
        ]));
        let said = blank.text(
            "refused tiger lily \"x\" and tiger lily \\\"x\\\" and dGlnZXIgbGlseSAieCI= and orange-lion and b3JhbmdlLWxpb24tYW5k and 0f1e2d3c4b5a, \
             administrator at a.example.com, level: info, abc, MIIBpublic",
        );
        let blanks =
            "[blanked] and ".repeat(5) + "[blanked], administrator at a.example.com, level: info, abc, MIIBpublic";
        assert_eq!(said.as_str(), format!("refused {blanks}"));
    }

    #[test]
    fn a_manifest_shows_neither_variables_nor_fields_that_are_secret() {
        let manifest = json!({
            "kind": "Pod", "metadata": {"name": "a"}, "spec": {
                "containers": [{
                    "env": [{"name": "HARMLESS", "value": "PLANTED"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "args": ["--flag", "--password", "PLANTED", "--token=PLANTED"],
                }],
                "extraConfig": {"storage": {"s3": {"secretkey": "PLANTED", "region": "here", "accesskey": 1234567}}, "headers": {"Authorization": ["PLANTED"]}},
                "volumes": [{"secret": {"secretName": "team-a-config"}}],
            },
        });
        let text = Blank::default().object(&manifest).unwrap();
        let text = text.as_str();
        assert!(!text.contains("PLANTED") && !text.contains("1234567"), "{text}");
        for stays in ["HARMLESS", "region: here", "secretName: team-a-config", "key: k", "--flag"] {
            assert!(text.contains(stays), "{stays}: {text}");
        }
    }
}
