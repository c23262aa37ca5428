//! The rights that the chart gives are those that the operator uses: no more, so that little is lost with it, and no fewer.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::wait::PATIENCE;

/// Group, resource with subresource, verb.
type Right = (String, String, String);

/// Given, and never seen in the log of requests. Each with its reason.
const UNSEEN: &[(&str, &str, &str)] = &[
    // Asked for by an admission plugin, about the owner references of children.
    ("privateregistry.dev", "privateregistries/finalizers", "update"),
];

fn given(rules: &Value) -> BTreeSet<Right> {
    let words = |value: &Value| {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut rights = BTreeSet::new();
    for rule in rules.as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(words(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    rights
}

#[tokio::test]
async fn the_rights_of_the_chart_are_those_that_are_used() {
    let Some(team) = namespace("rights").await else { return };
    let mark = team.mark().await;
    let operator = team.operator().await;
    for registry in team.every_sort_of_registry().await {
        // Everything is written, changed, and taken away again.
        for child in registry.children().await {
            child.edit(json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "drifted"}}})).await;
        }
    }
    team.settles().await;
    let changing = team
        .registry(
            "changing",
            json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}}),
        )
        .await
        .ready()
        .await;
    changing.apply(json!({"storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}, "tls": {"none": {}}, "auth": {"none": {}}, "restartPolicy": {"type": "Never"}})).await.unwrap();
    let changing = changing.ready().await;
    changing.child("PodDisruptionBudget", "").disappears(PATIENCE).await;
    changing.apply(json!({"storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}})).await.unwrap();
    changing.ready().await;
    let gateway = |mode: &str| json!({"suspend": true, "route": {"gateway": {"mode": mode, "hosts": ["a.example"], "parentRefs": [{"name": "g"}]}}});
    let routed = team
        .registry("routed", json!({"suspend": true, "route": {"ingress": {"hosts": ["a.example"]}}}))
        .await
        .ready()
        .await;
    for spec in [gateway("Terminate"), gateway("Passthrough"), json!({"suspend": true})] {
        routed.apply(spec).await.unwrap();
        routed.says("Ready", "True", "").await;
    }
    routed.child("TLSRoute", "").disappears(PATIENCE).await;
    team.settles().await;
    operator.stop().await;

    let all = team.cluster.plane.audit().await.unwrap().since(mark).await.unwrap();
    let name = team.operators_name();
    let ours: Vec<_> = all.iter().filter(|entry| entry.user == name && !entry.resource.is_empty()).collect();
    let mut used = BTreeSet::new();
    for entry in &ours {
        let resource = match entry.subresource.as_str() {
            "" => entry.resource.clone(),
            subresource => format!("{}/{subresource}", entry.resource),
        };
        used.insert((entry.group.clone(), resource.clone(), entry.verb.clone()));
        // An apply that makes an object needs the right to create it, too.
        if entry.verb == "patch" && entry.code == 201 {
            used.insert((entry.group.clone(), resource, "create".to_owned()));
        }
    }
    let mut granted = given(&team.object("Role", "operator-private-registry-operator").at("/rules").await);
    granted.extend(given(&team.object("Role", "operator-private-registry-operator-leader").at("/rules").await));
    for (group, resource, verb) in UNSEEN {
        assert!(
            granted.remove(&((*group).to_owned(), (*resource).to_owned(), (*verb).to_owned())),
            "{resource} {verb} is not given any more"
        );
    }
    // Those on requests to cert-manager are used where it is: cert_manager.rs.
    granted.retain(|(group, ..)| group != "cert-manager.io");
    // Everybody may ask what he may.
    for review in ["selfsubjectaccessreviews", "selfsubjectrulesreviews"] {
        used.remove(&("authorization.k8s.io".to_owned(), review.to_owned(), "create".to_owned()));
    }

    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), Vec::<&Right>::new(), "given and not used");
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), Vec::<&Right>::new(), "used and not given");

    // Nor was any operator of this run refused, but where a test takes rights away, sets a quota, or has a class that allows no
    // growth.
    let everybody = team.cluster.whole_log().await;
    let an_operator = |user: &str| {
        user.ends_with(":operator-private-registry-operator")
            && ![":no-rights:", ":one-of-two:", ":parts-quota:", ":growth:", ":revoking-untold:", ":frontend-untold:"]
                .iter()
                .any(|namespace| user.contains(namespace))
    };
    let refused: Vec<_> = everybody.iter().filter(|entry| entry.code == 403 && an_operator(&entry.user)).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}
