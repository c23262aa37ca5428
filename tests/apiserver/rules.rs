//! Every rule of admission accepts what it should and refuses the rest with its words, here and on the API server.

use std::collections::BTreeSet;
use std::fs;
use std::sync::LazyLock;

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::cel::Validator;
use kubectl_registry::check;
use private_registry_operator::api::{self, PrivateRegistry, rules};
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};

/// A manifest that is applied, where another one was before or none.
#[derive(Clone)]
struct Change {
    name: &'static str,
    old: Option<Value>,
    /// Of the volume, as the old one's status tells it.
    capacity: Option<String>,
    new: Value,
}

fn new(spec: Value) -> Change {
    Change { name: "team-a", old: None, capacity: None, new: spec }
}

fn named(name: &'static str) -> Change {
    Change { name, old: None, capacity: None, new: json!({}) }
}

fn switch(old: Value, new: Value) -> Change {
    Change { name: "team-a", old: Some(old), capacity: None, new }
}

fn claim(fields: Value) -> Value {
    json!({"storage": {"persistentVolumeClaim": fields}})
}

fn given(name: &str) -> Value {
    json!({"storage": {"existingClaim": {"name": name}}})
}

const CIPHER: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";

fn certificate(fields: Value) -> Value {
    json!({"tls": {"certificate": fields}})
}

fn signer(name: &str) -> Change {
    new(json!({"tls": {"certificateSigningRequest": {"signerName": name}}}))
}

fn authority(duration: &str) -> Value {
    json!({"tls": {"privateCA": {"duration": duration}}})
}

fn lives(authority: &str, certificate: &str) -> Value {
    json!({"tls": {"privateCA": {"duration": authority}, "certificate": {"duration": certificate}}})
}

/// A manifest over one whose volume has this size.
fn resized(capacity: &str, old: &str, new: Value) -> Change {
    let old = Some(claim(json!({"size": old})));
    Change { name: "team-a", old, capacity: Some(capacity.to_owned()), new }
}

fn purging(fields: Value) -> Value {
    json!({"config": {"uploadPurging": fields}})
}

fn users_from(entry: Value) -> Change {
    new(json!({"auth": {"usersFrom": [entry]}}))
}

fn rule(rule: Value) -> Change {
    new(json!({"auth": {"token": {"rules": [rule]}}}))
}

fn issuer(more: Value) -> Change {
    let mut issuer = json!({"name": "ci", "issuer": "https://ci.example.com", "audience": "here"});
    issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    new(json!({"auth": {"token": {"issuers": [issuer], "rules": [pulls(&json!({"users": ["*"]}))]}}}))
}

fn issuers(addresses: &[&str]) -> Change {
    let one = |(number, address)| json!({"name": format!("ci-{number}"), "issuer": address, "audience": "here"});
    let issuers: Vec<Value> = addresses.iter().enumerate().map(one).collect();
    new(json!({"auth": {"token": {"issuers": issuers, "rules": [pulls(&json!({"users": ["*"]}))]}}}))
}

/// A rule for these, who may pull everything.
fn pulls(who: &Value) -> Value {
    let mut rule = who.clone();
    rule["repositories"] = json!(["**"]);
    rule["actions"] = json!(["pull"]);
    rule
}

fn user_of(secret: &str) -> Change {
    new(json!({"auth": {"users": [{"name": "ci", "passwordSecretRef": {"name": secret}}]}}))
}

fn users(users: Value) -> Change {
    new(json!({"auth": {"users": users}}))
}

fn rotated(rotation: Value) -> Change {
    users(json!([{"name": "robot", "rotation": rotation}]))
}

fn own_certificate(secret: &str) -> Change {
    new(json!({"tls": {"secret": {"name": secret}}}))
}

fn env(variables: Value) -> Change {
    new(json!({"pod": {"env": variables}}))
}

fn gateway(parents: Value, mode: &str) -> Value {
    json!({"route": {"gateway": {"hosts": ["a.example"], "parentRefs": parents, "mode": mode}}})
}

fn without_tls(mut spec: Value) -> Change {
    spec["tls"] = json!({"none": {}});
    new(spec)
}

fn asking_clients(mut spec: Value) -> Change {
    spec["frontend"] = json!({"nginx": {}});
    spec["tls"] = json!({"clientCASecretRef": {"name": "company-clients"}});
    new(spec)
}

/// An Ingress that shows clients this Secret.
fn shown(secret: &str) -> Change {
    new(json!({"route": {"ingress": {"hosts": ["a.example"], "tlsSecretName": secret}}}))
}

/// Rule, what it accepts, what it refuses.
type Case = (rules::Rule, Vec<Change>, Vec<Change>);

fn cases() -> Vec<Case> {
    let digest = "registry@sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let user = json!([{"name": "alice", "passwordSecretRef": {"name": "s"}}]);
    let folder = json!({"storage": {"emptyDir": {}}});
    let long = "a".repeat(318);
    let upstream = json!({"secretKeyRef": {"name": "upstream", "key": "password"}});
    vec![
        (
            rules::NAME,
            vec![named("a"), named("a1"), named("abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstu")],
            vec![named("1a"), named("abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuv"), named("a.b")],
        ),
        (
            rules::IMAGE_TOO_OLD,
            ["registry:3.1.1", "registry:3", "registry:latest", "mirror.example.com:2/registry", digest, "registry:v3.2"].map(|image| new(json!({"image": image}))).into(),
            ["registry:2.8", "registry:2.8.3", "registry:3.0.0", "registry:3.1.0", "registry:v2", "registry:2@sha256:00", "registry:3.0.0-rc.1"]
                .map(|image| new(json!({"image": image})))
                .into(),
        ),
        (
            rules::ONE_PASSWORD,
            vec![users(user.clone()), rotated(json!({"every": "1h"}))],
            vec![
                users(json!([{"name": "robot"}])),
                users(json!([{"name": "robot", "passwordSecretRef": {"name": "s"}, "rotation": {"every": "1h"}}])),
            ],
        ),
        (
            rules::ROTATED_NAME,
            ["a", "a-1", "0", &long[..63]].map(|name| users(json!([{"name": name, "rotation": {"every": "1h"}}]))).into(),
            ["A", "a.b", "-a", "a-", "ann@example.com", &long[..64]]
                .map(|name| users(json!([{"name": name, "rotation": {"every": "1h"}}])))
                .into(),
        ),
        (
            rules::OVERLAP_LEAVES_ROOM,
            ["1m", "50m"].map(|overlap| rotated(json!({"every": "1h", "overlap": overlap}))).into(),
            ["50m1s", "1h", "720h"].map(|overlap| rotated(json!({"every": "1h", "overlap": overlap}))).into(),
        ),
        (
            rules::SECOND_NAMES_ARE_FREE,
            vec![
                users(json!([{"name": "a", "rotation": {"every": "1h"}}, {"name": "a2", "passwordSecretRef": {"name": "s"}}])),
                users(json!([{"name": "a.2", "passwordSecretRef": {"name": "s"}}])),
            ],
            vec![
                users(json!([{"name": "a.2", "passwordSecretRef": {"name": "s"}}, {"name": "a", "rotation": {"every": "1h"}}])),
                new(json!({"auth": {"users": [{"name": "a", "rotation": {"every": "1h"}}], "admin": {"username": "a.2"}}})),
            ],
        ),
        (
            rules::REPLICAS_NEED_SHARED_STORAGE,
            vec![
                new(json!({"replicas": 1})),
                new(json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}})),
                new(json!({"replicas": 2, "storage": {"existingClaim": {"name": "c"}}})),
            ],
            vec![
                new(json!({"replicas": 2})),
                new(json!({"replicas": 2, "storage": {"emptyDir": {}}})),
                new(json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteOnce"]}}})),
            ],
        ),
        (
            rules::JOBS_RUN_ONE,
            vec![new(json!({"restartPolicy": {"type": "OnFailure"}})), new(json!({"replicas": 1, "restartPolicy": {"type": "Never"}}))],
            ["OnFailure", "Never"]
                .map(|kind| new(json!({"replicas": 2, "restartPolicy": {"type": kind}, "storage": {"existingClaim": {"name": "c"}}})))
                .into(),
        ),
        (
            rules::STORAGE_KIND_FIXED,
            vec![switch(folder.clone(), json!({"storage": {"emptyDir": {"sizeLimit": "1Gi"}}})), switch(json!({}), claim(json!({})))],
            vec![
                switch(json!({}), folder.clone()),
                switch(folder.clone(), json!({})),
                switch(claim(json!({})), folder),
                switch(json!({}), given("a")),
                switch(given("a"), json!({})),
                switch(given("a"), claim(json!({}))),
            ],
        ),
        (
            rules::STORAGE_CLASS_FIXED,
            vec![
                switch(claim(json!({"storageClassName": "a"})), claim(json!({"storageClassName": "a", "size": "20Gi"}))),
                switch(claim(json!({"storageClassName": ""})), claim(json!({"storageClassName": "", "size": "20Gi"}))),
            ],
            vec![
                switch(claim(json!({"storageClassName": "a"})), claim(json!({"storageClassName": "b"}))),
                switch(claim(json!({"storageClassName": "a"})), json!({})),
                switch(json!({}), claim(json!({"storageClassName": "a"}))),
                switch(json!({}), claim(json!({"storageClassName": ""}))),
                switch(claim(json!({"storageClassName": ""})), claim(json!({}))),
            ],
        ),
        (
            rules::ACCESS_MODES_FIXED,
            vec![
                switch(json!({}), claim(json!({"accessModes": ["ReadWriteOnce"]}))),
                switch(
                    claim(json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})),
                    claim(json!({"accessModes": ["ReadWriteMany", "ReadWriteOnce"]})),
                ),
            ],
            vec![
                switch(json!({}), claim(json!({"accessModes": ["ReadWriteMany"]}))),
                switch(claim(json!({"accessModes": ["ReadWriteMany"]})), json!({})),
                switch(claim(json!({"accessModes": ["ReadWriteMany"]})), claim(json!({"accessModes": ["ReadWriteMany", "ReadWriteOnce"]}))),
            ],
        ),
        (
            rules::EXISTING_CLAIM_FIXED,
            vec![switch(given("a"), json!({"storage": {"existingClaim": {"name": "a"}}, "suspend": true}))],
            vec![switch(given("a"), given("b"))],
        ),
        (
            rules::SIZE_GROWS,
            vec![
                switch(claim(json!({"size": "1Gi"})), claim(json!({"size": "2Gi"}))),
                switch(claim(json!({"size": "1Gi"})), claim(json!({"size": "1024Mi"}))),
                switch(claim(json!({"size": "1Gi"})), json!({})),
                resized("1Gi", "100Ti", claim(json!({"size": "1Gi"}))),
                resized("5Gi", "100Ti", json!({})),
            ],
            vec![
                switch(claim(json!({"size": "2Gi"})), claim(json!({"size": "1Gi"}))),
                switch(claim(json!({"size": "20Gi"})), json!({})),
                switch(json!({}), claim(json!({"size": "1Gi"}))),
                resized("2Gi", "100Ti", claim(json!({"size": "1Gi"}))),
                resized("20Gi", "100Ti", json!({})),
                resized("nonsense", "100Ti", json!({})),
            ],
        ),
        (
            rules::ONE_STORAGE,
            vec![new(claim(json!({}))), new(json!({"storage": {"emptyDir": {}}})), new(given("c"))],
            vec![
                new(json!({"storage": {}})),
                new(json!({"storage": {"emptyDir": {}, "persistentVolumeClaim": {}}})),
                new(json!({"storage": {"existingClaim": {"name": "c"}, "persistentVolumeClaim": {"size": "1Gi"}}})),
            ],
        ),
        (
            rules::POSITIVE,
            vec![new(claim(json!({"size": "1"}))), new(claim(json!({"size": 1_000_000}))), new(json!({"storage": {"emptyDir": {"sizeLimit": "1Gi"}}}))],
            vec![new(claim(json!({"size": "0"}))), new(claim(json!({"size": 0}))), new(json!({"storage": {"emptyDir": {"sizeLimit": "0Gi"}}}))],
        ),
        (
            rules::ONE_FRONTEND,
            vec![new(json!({})), new(json!({"frontend": {"nginx": {}}}))],
            vec![new(json!({"frontend": {}}))],
        ),
        (
            rules::ONE_ROUTE,
            vec![new(json!({"route": {"ingress": {"hosts": ["a.example"]}}})), new(gateway(json!([{"name": "g"}]), "Terminate"))],
            vec![
                new(json!({"route": {}})),
                new(json!({"route": {"ingress": {"hosts": ["a.example"]}, "gateway": {"hosts": ["a.example"], "parentRefs": [{"name": "g"}]}}})),
            ],
        ),
        (
            rules::PARENTS_DIFFER,
            [
                json!([{"name": "g"}, {"name": "h"}]),
                json!([{"name": "g"}, {"name": "g", "namespace": "infra"}]),
                json!([{"name": "g", "sectionName": "a"}, {"name": "g", "sectionName": "b"}]),
            ]
                .map(|parents| new(gateway(parents, "Terminate")))
                .into(),
            [
                json!([{"name": "g"}, {"name": "g"}]),
                json!([{"name": "g", "namespace": "infra"}, {"name": "g", "namespace": "infra", "sectionName": "a"}]),
                json!([{"name": "g", "sectionName": "a"}, {"name": "g", "sectionName": "a"}]),
            ]
                .map(|parents| new(gateway(parents, "Terminate")))
                .into(),
        ),
        (
            rules::PASSTHROUGH_NEEDS_TLS,
            vec![new(gateway(json!([{"name": "g"}]), "Passthrough")), without_tls(gateway(json!([{"name": "g"}]), "Terminate"))],
            vec![without_tls(gateway(json!([{"name": "g"}]), "Passthrough"))],
        ),
        (
            rules::CLIENT_CERTIFICATES_PASS_THROUGH,
            vec![asking_clients(gateway(json!([{"name": "g"}]), "Passthrough")), asking_clients(json!({}))],
            vec![
                asking_clients(gateway(json!([{"name": "g"}]), "Terminate")),
                asking_clients(json!({"route": {"ingress": {"hosts": ["a.example"]}}})),
            ],
        ),
        (
            rules::ROUTE_SHOWS_NO_CHILD,
            ["registry-example-com", "team-b-tls"].map(shown).into(),
            ["team-a-tls", "team-a-ca", "team-a-admin"].map(shown).into(),
        ),
        (
            rules::ONE_SIGNER,
            [json!({}), json!({"privateCA": {}}), json!({"none": {}}), json!({"secret": {"name": "s"}}), json!({"certificateSigningRequest": {}}), json!({"certManager": {"issuerRef": {"name": "company"}}})]
                .map(|tls| new(json!({"tls": tls})))
                .into(),
            [
                json!({"none": {}, "privateCA": {}}),
                json!({"none": {}, "secret": {"name": "s"}}),
                json!({"privateCA": {}, "secret": {"name": "s"}}),
                json!({"privateCA": {}, "certificateSigningRequest": {}}),
                json!({"none": {}, "certificateSigningRequest": {}}),
                json!({"privateCA": {}, "certManager": {"issuerRef": {"name": "company"}}}),
            ]
                .map(|tls| new(json!({"tls": tls})))
                .into(),
        ),
        (
            rules::SIGNER_IS_OF_NO_NODE,
            ["example.com/registries", "acme.io/ca.v2", "a.kubernetes.io/x"].map(signer).into(),
            ["kubernetes.io/kube-apiserver-client", "kubernetes.io/legacy-unknown"].map(signer).into(),
        ),
        (
            rules::LIFE_OF_A_SHARED_AUTHORITY,
            [json!({"caSecretRef": {"name": "company"}}), json!({"duration": "87600h"})]
                .map(|ca| new(json!({"tls": {"privateCA": ca}})))
                .into(),
            vec![new(json!({"tls": {"privateCA": {"caSecretRef": {"name": "company"}, "duration": "87600h"}}}))],
        ),
        (
            rules::VERSION_NEEDS_TLS,
            [json!({"none": {}}), json!({"minimumVersion": "VersionTLS13"})].map(|tls| new(json!({"tls": tls}))).into(),
            [
                json!({"none": {}, "minimumVersion": "VersionTLS12"}),
                json!({"none": {}, "cipherSuites": [CIPHER]}),
                json!({"none": {}, "clientCASecretRef": {"name": "clients"}}),
            ]
                .map(|tls| new(json!({"tls": tls})))
                .into(),
        ),
        (
            rules::CIPHERS_ARE_OF_TLS_1_2,
            [json!({"cipherSuites": [CIPHER]}), json!({"cipherSuites": [CIPHER], "minimumVersion": "VersionTLS12"})]
                .map(|tls| new(json!({"tls": tls})))
                .into(),
            vec![new(json!({"tls": {"cipherSuites": [CIPHER], "minimumVersion": "VersionTLS13"}}))],
        ),
        (
            rules::CIPHERS_INCLUDE_THAT_OF_HTTP_2,
            vec![new(json!({"tls": {"cipherSuites": [CIPHER, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}}))],
            vec![new(json!({"tls": {"cipherSuites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}}))],
        ),
        (
            rules::CERTIFICATE_NEEDS_A_SIGNER,
            vec![
                new(certificate(json!({}))),
                new(lives("87600h", "720h")),
                // The life of an authority of our own is nothing to somebody else's.
                new(json!({"tls": {"certificateSigningRequest": {}, "certificate": {"duration": "100000h"}}})),
                new(json!({"tls": {"certManager": {"issuerRef": {"name": "company"}}, "certificate": {"duration": "100000h"}}})),
            ],
            [json!({"none": {}, "certificate": {}}), json!({"secret": {"name": "s"}, "certificate": {"duration": "2h"}})]
                .map(|tls| new(json!({"tls": tls})))
                .into(),
        ),
        (
            rules::AUTHORITY_OUTLIVES_CERTIFICATE,
            vec![
                new(lives("1h", "1h")),
                new(lives("90000h", "87601h")),
                new(authority("8760h")),
                new(certificate(json!({"duration": "87600h"}))),
            ],
            vec![new(lives("1h", "2h")), new(authority("8759h")), new(certificate(json!({"duration": "87601h"})))],
        ),
        (
            rules::AT_LEAST_AN_HOUR,
            vec![new(certificate(json!({"duration": "1h"}))), new(lives("60m", "3600s"))],
            vec![new(certificate(json!({"duration": "59m"}))), new(lives("1m", "1m")), new(authority("59m59s")), rotated(json!({"every": "59m"}))],
        ),
        (
            rules::AT_LEAST_A_MINUTE,
            vec![new(purging(json!({"age": "60s", "interval": "1h30m"})))],
            vec![new(purging(json!({"age": "10s"}))), new(purging(json!({"interval": "0s"}))), rotated(json!({"every": "1h", "overlap": "59s"}))],
        ),
        (
            rules::ONE_AUTH,
            vec![new(json!({"auth": {}})), new(json!({"auth": {"htpasswd": {"bcryptCost": 12}}}))],
            vec![new(json!({"auth": {"none": {}, "htpasswd": {}}})), new(json!({"auth": {"token": {"rules": [pulls(&json!({"users": ["*"]}))]}, "htpasswd": {}}}))],
        ),
        (
            rules::TEAMS_EXIST,
            vec![
                rule(json!({"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull"]})),
                new(json!({"auth": {"token": {"teams": [{"name": "red", "users": []}], "rules": [{"teams": ["red"], "repositories": ["**"], "actions": ["pull"]}]}}})),
            ],
            vec![
                rule(json!({"teams": ["red"], "repositories": ["**"], "actions": ["pull"]})),
                new(json!({"auth": {"token": {"teams": [{"name": "red", "users": ["a"]}], "rules": [{"teams": ["red", "bleu"], "repositories": ["**"], "actions": ["pull"]}]}}})),
            ],
        ),
        (
            rules::ISSUERS_DIFFER,
            vec![issuers(&["https://one.example.com", "https://two.example.com"])],
            vec![issuers(&["https://one.example.com", "https://one.example.com"])],
        ),
        (
            rules::ISSUER_NOT_SYSTEM,
            vec![issuer(json!({"name": "systems"}))],
            vec![issuer(json!({"name": "system"}))],
        ),
        (
            rules::KEYS_OR_AUTHORITY,
            vec![issuer(json!({"jwksConfigMapRef": {"name": "keys"}})), issuer(json!({"certificateAuthority": "PEM"}))],
            vec![issuer(json!({"jwksConfigMapRef": {"name": "keys"}, "certificateAuthority": "PEM"}))],
        ),
        (
            rules::RULE_IS_FOR_SOMEBODY,
            [json!({"users": ["*"]}), json!({"anonymous": true})].map(|who| rule(pulls(&who))).into(),
            [json!({}), json!({"users": [], "teams": []}), json!({"anonymous": false})].map(|who| rule(pulls(&who))).into(),
        ),
        (
            rules::RULE_HAS_REPOSITORIES,
            vec![rule(json!({"users": ["a"], "actions": ["catalog"]})), rule(json!({"users": ["a"], "repositories": ["a/*"], "actions": ["catalog", "pull"]}))],
            vec![rule(json!({"users": ["a"], "actions": ["pull"]})), rule(json!({"users": ["a"], "repositories": ["a/*"], "actions": ["catalog"]}))],
        ),
        (
            rules::ANONYMOUS_ONLY_READS,
            vec![rule(json!({"anonymous": true, "repositories": ["a"], "actions": ["pull", "catalog"]}))],
            ["push", "delete"].map(|action| rule(json!({"anonymous": true, "repositories": ["a"], "actions": ["pull", action]}))).into(),
        ),
        (
            rules::TEAM_PATTERNS_NEED_TEAMS,
            vec![rule(json!({"users": ["*"], "repositories": ["users/${user}/**"], "actions": ["pull"]}))],
            vec![rule(json!({"users": ["*"], "repositories": ["${team}/**"], "actions": ["pull"]}))],
        ),
        (
            rules::NO_AUTH_ALONE,
            vec![new(json!({"auth": {"none": {}}})), new(json!({"auth": {"users": user}})), new(json!({"auth": {"admin": {"username": "root"}}}))],
            vec![
                new(json!({"auth": {"none": {}, "users": user}})),
                new(json!({"auth": {"none": {}, "usersFrom": [{"secretRef": {"name": "s"}}]}})),
                new(json!({"auth": {"none": {}, "admin": {"generate": "Always"}}})),
            ],
        ),
        (
            rules::ONE_USERS_SOURCE,
            [json!({"secretRef": {"name": "s"}}), json!({"htpasswdSecretRef": {"name": "s", "key": "auth"}})].map(users_from).into(),
            [json!({}), json!({"secretRef": {"name": "s"}, "htpasswdSecretRef": {"name": "s"}})].map(users_from).into(),
        ),
        (
            rules::PULL_SECRETS_HAVE_NAMES,
            vec![new(json!({"pullSecrets": [{"user": "a"}, {"name": "one", "user": "a"}, {"name": "two", "user": "a"}]}))],
            [json!([{"user": "a"}, {"user": "b"}]), json!([{"name": "one", "user": "a"}, {"name": "one", "user": "b"}])]
                .map(|secrets| new(json!({"pullSecrets": secrets})))
                .into(),
        ),
        (
            rules::ONE_PULLS,
            vec![new(json!({"pullSecrets": [{"user": "a"}]}))],
            [json!({"name": "a"}), json!({"user": "a", "serviceAccountName": "default"})].map(|entry| new(json!({"pullSecrets": [entry]}))).into(),
        ),
        (
            rules::ACCOUNTS_PULL_WITH_TOKENS,
            vec![new(json!({"pullSecrets": [{"serviceAccountName": "default"}], "auth": {"token": {"rules": [pulls(&json!({"users": ["*"]}))], "kubernetes": {"audience": "team-a.registries.svc"}}}}))],
            [
                json!({}),
                json!({"token": {"rules": [pulls(&json!({"users": ["*"]}))]}}),
                json!({"token": {"rules": [pulls(&json!({"users": ["*"]}))], "kubernetes": {"audience": "https://kubernetes.default.svc"}}}),
                json!({"token": {"rules": [pulls(&json!({"users": ["*"]}))], "kubernetes": {"audience": "team-a.registries.svc.cluster.local"}}}),
            ]
            .map(|auth| new(json!({"pullSecrets": [{"serviceAccountName": "default"}], "auth": auth})))
            .into(),
        ),
        (
            rules::PULL_SECRETS_NEED_LOGINS,
            vec![new(json!({"pullSecrets": [{"user": "admin"}]})), new(json!({"pullSecrets": [], "auth": {"none": {}}}))],
            vec![new(json!({"pullSecrets": [{"user": "admin"}], "auth": {"none": {}}}))],
        ),
        (
            rules::ADDRESSES_ARE_NO_PATHS,
            ["registry.example.com", "registry:5000", "localhost", "192.0.2.1", "[2001:db8::1]:5000"].map(|at| new(json!({"addresses": [at]}))).into(),
            vec![new(json!({"addresses": ["registry"]}))],
        ),
        (
            rules::COMMON_LABELS,
            vec![new(json!({"commonLabels": {"cost-center": "4711", "example.com/team": "a.B_c", "empty": ""}}))],
            vec![new(json!({"commonLabels": {long: "b"}}))],
        ),
        (
            rules::INPUT_SECRETS_ARE_NO_CHILDREN,
            ["team-b-tls", "tls", "team-a-cert"].map(own_certificate).into(),
            ["team-a-tls", "team-a-ca", "team-a-csr"]
                .map(own_certificate)
                .into_iter()
                .chain([
                    new(json!({"tls": {"certificateSigningRequest": {"caBundleSecretRef": {"name": "team-a-ca"}}}})),
                    new(json!({"tls": {"certManager": {"issuerRef": {"name": "x"}, "caBundleSecretRef": {"name": "team-a-csr"}}}})),
                    new(json!({"frontend": {"nginx": {}}, "tls": {"clientCASecretRef": {"name": "team-a-ca"}}})),
                ])
                .collect(),
        ),
        (
            rules::CLIENT_CERTIFICATES_NEED_THE_FRONT_END,
            vec![new(json!({"frontend": {"nginx": {}}, "tls": {"clientCASecretRef": {"name": "clients"}}}))],
            [json!({"tls": {"clientCASecretRef": {"name": "clients"}}}), json!({"frontend": {}, "tls": {"clientCASecretRef": {"name": "clients"}}})]
                .map(new)
                .into(),
        ),
        (
            rules::USERS_SECRETS_ARE_NO_CHILDREN,
            vec![user_of("team-a-login"), users_from(json!({"secretRef": {"name": "team-b-admin"}}))],
            vec![
                user_of("team-a-admin"),
                user_of("team-a-htpasswd"),
                users_from(json!({"secretRef": {"name": "team-a-pull"}})),
                users_from(json!({"htpasswdSecretRef": {"name": "team-a-config"}})),
            ],
        ),
        (rules::CLAIM_IS_NO_CHILD, vec![new(given("team-b-data"))], vec![new(given("team-a-data"))]),
        (
            rules::RETRIES_NEED_ON_FAILURE,
            vec![new(json!({"restartPolicy": {"type": "OnFailure", "maxRetries": 0}}))],
            vec![new(json!({"restartPolicy": {"maxRetries": 1}})), new(json!({"restartPolicy": {"type": "Always", "maxRetries": 1}}))],
        ),
        (
            rules::NODE_PORT_NEEDS_TYPE,
            ["NodePort", "LoadBalancer"].map(|kind| new(json!({"service": {"type": kind, "nodePort": 30999}}))).into(),
            vec![new(json!({"service": {"nodePort": 30999}})), new(json!({"service": {"type": "ClusterIP", "nodePort": 30999}}))],
        ),
        (
            rules::LOAD_BALANCER_CLASS_NEEDS_TYPE,
            vec![new(json!({"service": {"type": "LoadBalancer", "loadBalancerClass": "example.com/a"}}))],
            vec![new(json!({"service": {"type": "NodePort", "loadBalancerClass": "example.com/a"}})), new(json!({"service": {"loadBalancerClass": "a"}}))],
        ),
        (
            rules::SOURCE_RANGES_NEED_TYPE,
            vec![new(json!({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}})), new(json!({"service": {"loadBalancerSourceRanges": []}}))],
            vec![new(json!({"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}))],
        ),
        (
            rules::TRAFFIC_POLICY_NEEDS_TYPE,
            ["NodePort", "LoadBalancer"].map(|kind| new(json!({"service": {"type": kind, "externalTrafficPolicy": "Local"}}))).into(),
            vec![new(json!({"service": {"externalTrafficPolicy": "Cluster"}})), new(json!({"service": {"type": "ClusterIP", "externalTrafficPolicy": "Local"}}))],
        ),
        (
            rules::NO_REGISTRY_ENV,
            vec![
                env(json!([{"name": "HTTP_PROXY", "value": "p"}, {"name": "MY_REGISTRY_X", "value": "y"}])),
                env(json!([{"name": "REGISTRY_PROXY_USERNAME", "valueFrom": upstream}, {"name": "REGISTRY_PROXY_PASSWORD", "valueFrom": upstream}])),
            ],
            vec![
                env(json!([{"name": "REGISTRY_HTTP_ADDR", "value": ":1"}])),
                env(json!([{"name": "REGISTRY_HTTP_SECRET", "valueFrom": upstream}])),
                env(json!([{"name": "REGISTRY_PROXY_PASSWORD", "value": "in the manifest"}])),
            ],
        ),
    ]
}

/// Where each rule stands: path and message.
fn places(schema: &Value, path: &str, found: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.insert((path.to_owned(), rule["message"].as_str().unwrap().to_owned()));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        places(field, &path, found);
    }
    if schema["items"].is_object() {
        places(&schema["items"], path, found);
    }
}

fn manifest(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": name}, "spec": spec})
}

/// Made once: without optimisation that takes a tenth of a second.
static SCHEMA: LazyLock<Value> = LazyLock::new(api::schema);

/// What the rules say without a cluster: path and message of each fault.
fn offline(change: &Change) -> Vec<(String, String)> {
    let known = |spec: &Value| {
        let mut object = manifest(change.name, spec);
        if let Some(capacity) = &change.capacity {
            object["status"] = json!({"storage": {"capacity": capacity}});
        }
        object
    };
    let old = change.old.as_ref().map(known);
    let verdict = Validator::new().validate(&SCHEMA, &known(&change.new), old.as_ref());
    let faults = verdict.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
    faults.into_iter().map(|fault| (fault.field_path.trim_start_matches('.').to_owned(), fault.message)).collect()
}

/// What `kubectl registry check` says about a manifest; nothing if it is content.
fn checked(change: &Change) -> String {
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    fs::write(file.path(), manifest(change.name, &change.new).to_string()).unwrap();
    let checked = check::check(&[file.path().to_owned()]);
    assert_eq!(checked.registries, 1, "{checked:?}");
    checked.faults.join("\n")
}

/// What the API server says: path and message of each fault.
async fn online(team: &Namespace, change: &Change, number: usize) -> Vec<(String, String)> {
    let api: Api<PrivateRegistry> = Api::namespaced(team.client.clone(), &team.name);
    let parse = |name: &str, spec: &Value| serde_json::from_value::<PrivateRegistry>(manifest(name, spec)).unwrap();
    let answer = match &change.old {
        None => {
            api.create(&PostParams { dry_run: true, ..PostParams::default() }, &parse(change.name, &change.new)).await
        }
        Some(old) => {
            let name = format!("switched-{number}");
            api.create(&PostParams::default(), &parse(&name, old)).await.unwrap();
            if let Some(capacity) = &change.capacity {
                let status = json!({"status": {"storage": {"capacity": capacity}}});
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            }
            let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
            let patch = json!([{"op": "replace", "path": "/spec", "value": change.new}]);
            api.patch(&name, &parameters, &Patch::Json::<()>(serde_json::from_value(patch).unwrap())).await
        }
    };
    match answer {
        Ok(_) => vec![],
        Err(kube::Error::Api(status)) => {
            let causes = status.details.clone().map(|details| details.causes).unwrap_or_default();
            let found: Vec<_> = causes.into_iter().map(|cause| (cause.field, cause.message)).collect();
            if found.is_empty() { vec![(String::new(), status.message.clone())] } else { found }
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn every_rule_accepts_and_refuses_the_same_here_and_on_the_api_server() {
    let Some(team) = namespace("rules").await else { return };
    let mut uncovered = BTreeSet::new();
    places(&api::schema(), "", &mut uncovered);
    let mut number = 0;
    for ((_, message), accepts, refuses) in cases() {
        for change in accepts {
            number += 1;
            let said = (offline(&change), online(&team, &change, number).await);
            assert_eq!(said, (vec![], vec![]), "{message}\nmust accept {} {}", change.name, change.new);
            if change.old.is_none() {
                assert_eq!(checked(&change), "", "check must accept {}", change.new);
            }
        }
        for change in refuses {
            number += 1;
            let (here, there) = (offline(&change), online(&team, &change, number).await);
            let says = |said: &[(String, String)]| said.iter().any(|(_, words)| words.contains(message));
            assert!(
                says(&here) && says(&there),
                "{message}\nmust refuse {} {}\nhere: {here:?}\nthere: {there:?}",
                change.name,
                change.new
            );
            if change.old.is_none() {
                let words = checked(&change);
                assert!(words.contains(message), "check says {words:?} about {}", change.new);
            }
            // The API server has no word for the whole object. Which entry of a list it was, the schema does not know.
            let place = |path: &str| if path == "<nil>" { String::new() } else { path.replace("[0]", "") };
            for (path, words) in there {
                uncovered.retain(|(at, message)| !(*at == place(&path) && words.contains(message.as_str())));
            }
        }
    }
    assert_eq!(uncovered, BTreeSet::new(), "rules without a manifest that they refuse");
}

/// A name becomes part of an address that is asked for.
#[tokio::test]
async fn what_is_no_name_of_an_object_is_refused_with_its_field_here_and_on_the_api_server() {
    let Some(team) = namespace("names").await else { return };
    type Naming = fn(&str) -> Value;
    let places: [(&str, Naming); 8] = [
        (
            "spec.auth.users[0].passwordSecretRef.name",
            |name| json!({"auth": {"users": [{"name": "alice", "passwordSecretRef": {"name": name}}]}}),
        ),
        (
            "spec.auth.usersFrom[0].secretRef.name",
            |name| json!({"auth": {"usersFrom": [{"secretRef": {"name": name}}]}}),
        ),
        ("spec.tls.secret.name", |name| json!({"tls": {"secret": {"name": name}}})),
        ("spec.tls.privateCA.caSecretRef.name", |name| json!({"tls": {"privateCA": {"caSecretRef": {"name": name}}}})),
        (
            "spec.tls.privateCA.caSecretRef.namespace",
            |name| json!({"tls": {"privateCA": {"caSecretRef": {"name": "ca", "namespace": name}}}}),
        ),
        ("spec.storage.existingClaim.name", given),
        (
            "spec.route.ingress.className",
            |name| json!({"route": {"ingress": {"className": name, "hosts": ["a.example.com"]}}}),
        ),
        ("spec.pullSecrets[0].name", |name| json!({"pullSecrets": [{"name": name, "user": "admin"}]})),
    ];
    for (place, spec) in places {
        assert_eq!(online(&team, &new(spec("a-name")), 0).await, vec![], "{place}");
        for name in ["other/secrets/ca", "../ca", "a?watch=true&x=", "a#b", "a%2fb", "a b", ""] {
            let change = new(spec(name));
            let said = online(&team, &change, 0).await;
            assert!(said.iter().any(|(at, _)| at == place), "{place}: {name:?}: {said:?}");
            assert!(checked(&change).contains(place), "{place}: {name:?}: {}", checked(&change));
        }
    }
}
