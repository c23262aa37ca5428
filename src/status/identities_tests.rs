use serde_json::{Value, json};

use super::*;
use crate::model::{Observed, Settings, resolve};

fn registry(auth: &Value, more: &Value) -> Resolved {
    let mut spec = json!({"auth": auth});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let registry = serde_json::from_value(json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
        "metadata": {"name": "team-a", "namespace": "registries", "generation": 7}, "spec": spec,
    }));
    resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap()
}

/// The cluster's tokens, an issuer whose mapping is wrong, and two good ones.
fn auth() -> Value {
    json!({"token": {
        "kubernetes": {"audience": "here"},
        "issuers": [
            {"name": "broken", "issuer": "https://broken.example.com", "audience": "here", "claimMapping": {"user": "claims."}},
            {"name": "github", "issuer": "https://github.example.com", "audience": "here"},
            {"name": "gitlab", "issuer": "https://gitlab.example.com", "audience": "here", "jwksConfigMapRef": {"name": "keys"}},
        ],
        "rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}],
    }})
}

fn all() -> Resolved {
    registry(&auth(), &json!({}))
}

/// What a pod says: of the cluster, of `github`, of `gitlab`.
fn says(cluster: Standing, github: Standing, gitlab: Standing) -> Result<Report, Silence> {
    let registry = all();
    let names = registry.issuers().iter().map(|issuer| report::name_of(&issuer.login));
    Ok(Report { issuers: names.zip([github, gitlab]).collect(), cluster: Some(cluster) })
}

fn heard(pods: &[Result<Report, Silence>]) -> Heard {
    Wanted::of(&all()).unwrap().heard(pods)
}

const GOOD: Standing = Standing::Good;

#[test]
fn of_several_replicas_the_worst_counts() {
    let well = || says(GOOD, GOOD, GOOD);
    let away = || says(GOOD, Standing::Unreachable, GOOD);
    let lacking = Heard::Lacking([(Voucher::Issuer(1), Standing::Unreachable)].into());
    for (pods, wanted) in [
        (vec![], Heard::Nothing),
        (vec![well(), well()], Heard::Good),
        (vec![well(), away()], lacking.clone()),
        (vec![away(), well()], lacking.clone()),
        // What is known is told although another pod says nothing, or does not know yet.
        (vec![away(), Err(Silence::Untold)], lacking.clone()),
        (vec![says(GOOD, Standing::Pending, GOOD), away()], lacking),
        (vec![well(), Err(Silence::Untold)], Heard::Silent(Silence::Untold)),
        (vec![Err(Silence::Untold), Err(Silence::Unreachable)], Heard::Silent(Silence::Unreachable)),
        (vec![well(), says(Standing::Pending, GOOD, GOOD)], Heard::Nothing),
        // A word of a newer version, and a pod that knows another version of the manifest.
        (vec![says(GOOD, Standing::Unclear, GOOD)], Heard::Nothing),
        (vec![Ok(Report { cluster: Some(GOOD), ..Report::default() })], Heard::Nothing),
        (vec![well(), Ok(Report::default())], Heard::Nothing),
    ] {
        assert_eq!(heard(&pods), wanted, "{pods:?}");
    }
}

#[test]
fn who_is_silent_for_a_moment_is_neither_ill_nor_well() {
    let lacking = Heard::Lacking([(Voucher::Cluster, Standing::Forbidden)].into());
    for silent in [Heard::Nothing, Heard::Silent(Silence::Unreachable)] {
        for before in [&lacking, &Heard::Good] {
            assert_eq!(silent.clone().after(before, PATIENCE - 1), *before);
            assert_eq!(silent.clone().after(before, PATIENCE), silent);
        }
        assert_eq!(silent.clone().after(&Heard::Nothing, 1), silent);
    }
    assert_eq!(Heard::Good.after(&lacking, 0), Heard::Good);
    assert_eq!(lacking.clone().after(&Heard::Good, 0), lacking);
}

fn told(registry: &Resolved, heard: &Heard, before: Option<&Condition>) -> (Truth, String, String) {
    let told = finding(registry, heard, Some(&Workload::Running { ready: 1 }), before).unwrap();
    assert_eq!(told.kind, "IdentitiesReady");
    (told.status, told.reason, told.message)
}

#[test]
fn the_condition_names_the_field_why_and_what_to_do() {
    let issuer = Voucher::Issuer;
    for (of, standing, reason, words) in [
        (Voucher::Cluster, Standing::Forbidden, "ClusterForbids", "auth.token.kubernetes: ServiceAccount team-a"),
        (
            Voucher::Cluster,
            Standing::Forbidden,
            "ClusterForbids",
            "kubectl create clusterrolebinding registry-registries-team-a --clusterrole=system:auth-delegator --serviceaccount=registries:team-a",
        ),
        (Voucher::Cluster, Standing::Unauthorized, "AccountUnknown", "kubectl registry restart team-a"),
        (Voucher::Cluster, Standing::Unreachable, "ClusterUnreachable", "--container sidecar"),
        (
            issuer(1),
            Standing::Unreachable,
            "IssuerUnreachable",
            "auth.token.issuers[1], github: the registry's pod cannot reach https://github.example.com",
        ),
        (issuer(1), Standing::Untrusted, "IssuerUntrusted", "certificateAuthority"),
        (
            issuer(1),
            Standing::Unusable,
            "IssuerKeysUnusable",
            "https://github.example.com/.well-known/openid-configuration",
        ),
        (
            issuer(2),
            Standing::Missing,
            "IssuerKeysMissing",
            "auth.token.issuers[2], gitlab: ConfigMap keys does not exist, or has no key jwks.json; create it",
        ),
        (issuer(2), Standing::Unusable, "IssuerKeysUnusable", "ConfigMap keys holds under jwks.json no"),
    ] {
        let said = told(&all(), &Heard::Lacking([(of, standing)].into()), None);
        assert_eq!((said.0, said.1.as_str()), (Truth::False, reason));
        assert!(said.2.contains(words) && said.2.contains("Until then"), "{said:?}");
    }
    let two = [(issuer(2), Standing::Missing), (issuer(1), Standing::Unreachable)];
    let said = told(&all(), &Heard::Lacking(two.into()), None).2;
    assert!(said.starts_with("auth.token.issuers[1]") && said.ends_with(" (and 1 more)"), "{said}");
    let said = told(&all(), &Heard::Good, None);
    assert_eq!(
        said,
        (Truth::True, "Accepting".to_owned(), "tokens of the cluster, github, gitlab are logins".to_owned())
    );
}

#[test]
fn what_nobody_says_is_unknown_and_the_reason_is_told() {
    let reason = |heard: Heard| {
        let (truth, reason, _) = told(&all(), &heard, None);
        assert_eq!(truth, Truth::Unknown);
        reason
    };
    assert_eq!(reason(Heard::Nothing), "Progressing");
    assert_eq!(reason(Heard::Silent(Silence::Unreachable)), "Unreachable");
    assert_eq!(reason(Heard::Silent(Silence::Untold)), "NotTold");
    // Of an issuer that the manifest has no more.
    assert_eq!(reason(Heard::Lacking([(Voucher::Issuer(7), Standing::Missing)].into())), "Progressing");
    let closed = json!({"tls": {"clientCASecretRef": {"name": "clients"}}});
    let said = told(&registry(&auth(), &closed), &Heard::Silent(Silence::Untold), None);
    assert!(said.1 == "NotTold", "{said:?}");

    let stopped = Workload::Stopped { reason: reason::SUSPENDED, message: String::new() };
    for (workload, reason) in
        [(Some(stopped), "Suspended"), (None, "NotRunning"), (Some(Workload::Running { ready: 0 }), "NotRunning")]
    {
        let said = finding(&all(), &Heard::Good, workload.as_ref(), None).unwrap();
        assert_eq!((said.status, said.reason.as_str()), (Truth::Unknown, reason));
    }
}

#[test]
fn an_operator_that_has_just_started_goes_on_with_what_was_told_of_the_same_manifest() {
    let condition = |status: &str, generation: i64| {
        serde_json::from_value::<Condition>(json!({
            "type": "IdentitiesReady", "status": status, "reason": "ClusterForbids", "message": "said", "observedGeneration": generation,
            "lastTransitionTime": "2026-12-01T00:00:00Z",
        }))
        .unwrap()
    };
    let said = |before: &Condition, heard: Heard| told(&all(), &heard, Some(before)).1;
    assert_eq!(said(&condition("False", 7), Heard::Nothing), "ClusterForbids");
    assert_eq!(said(&condition("False", 6), Heard::Nothing), "Progressing");
    assert_eq!(said(&condition("Unknown", 7), Heard::Nothing), "Progressing");
    assert_eq!(said(&condition("False", 7), Heard::Good), "Accepting");
}

#[test]
fn without_logins_from_elsewhere_nothing_is_said() {
    let rules = json!([{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}]);
    for auth in [json!({}), json!({"none": {}}), json!({"token": {"rules": rules}})] {
        assert_eq!(finding(&registry(&auth, &json!({})), &Heard::Good, None, None), None);
    }
}
