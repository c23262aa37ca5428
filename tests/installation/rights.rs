//! The roles of both charts: what the operator uses and no more, and what users get.

use std::collections::BTreeSet;

use private_registry_operator::desired::kinds::KINDS;
use serde_json::{Value, json};

use crate::{DEFINITION, of_kind, operator, rendered, texts};

/// One right: `verb group/resource`, with the only name that it is for, if there is one.
pub(crate) type Rights = BTreeSet<String>;

fn right(verb: &str, group: &str, resource: &str) -> String {
    format!("{verb} {group}/{resource}")
}

/// What the roles of one kind grant, in the namespace if there is one.
pub(crate) fn granted(objects: &[Value], kind: &str, namespace: Option<&str>) -> Rights {
    let mut rights = Rights::new();
    for role in of_kind(objects, kind).filter(|role| role["metadata"]["namespace"].as_str() == namespace) {
        for rule in role["rules"].as_array().expect("rules") {
            let names = texts(&rule["resourceNames"]).map(|name| format!(" {name}")).collect::<String>();
            for (group, resource) in
                texts(&rule["apiGroups"]).flat_map(|group| texts(&rule["resources"]).map(move |r| (group.clone(), r)))
            {
                rights.extend(texts(&rule["verbs"]).map(|verb| right(&verb, &group, &resource) + &names));
            }
        }
    }
    rights
}

/// What the operator does where registries live: the table of children, and little else.
fn used() -> Rights {
    let fixed: [(&str, &str, &[&str]); 5] = [
        ("privateregistry.dev", "privateregistries", &["get", "list", "watch", "patch"]),
        ("privateregistry.dev", "privateregistries/status", &["patch"]),
        ("privateregistry.dev", "privateregistries/finalizers", &["update"]),
        ("", "pods", &["list", "watch", "patch"]),
        ("events.k8s.io", "events", &["create", "patch"]),
    ];
    let children = KINDS.iter().filter(|kind| !kind.is_cluster_wide).map(|kind| (kind.group, kind.plural, kind.verbs));
    let all = fixed.into_iter().chain(children);
    all.flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| right(verb, group, resource))).collect()
}

/// What the operator does with what belongs to no namespace.
fn used_of_the_cluster() -> Rights {
    let verbs = ["get", "list", "watch", "create", "delete"];
    let requests = verbs.iter().map(|verb| right(verb, "certificates.k8s.io", "certificatesigningrequests"));
    let namespaces = ["list", "watch"].map(|verb| right(verb, "", "namespaces"));
    let wide = KINDS.iter().filter(|kind| kind.is_cluster_wide);
    let wide = wide.flat_map(|kind| kind.verbs.iter().map(|verb| right(verb, kind.group, kind.plural)));
    let attest = right("attest", "certificates.k8s.io", "signers") + " privateregistry.dev/registry";
    requests.chain(namespaces).chain(wide).chain([attest]).collect()
}

/// For electing a leader, in the operator's own namespace.
fn used_for_the_lease() -> Rights {
    let group = "coordination.k8s.io";
    let named = |verb| right(verb, group, "leases") + " operator-private-registry-operator";
    Rights::from([right("create", group, "leases"), named("get"), named("update")])
}

#[test]
fn the_whole_cluster_is_served_with_the_rights_that_are_used_and_no_others() {
    let objects = operator(&[]);
    let all: Rights = used().union(&used_of_the_cluster()).cloned().collect();
    assert_eq!(granted(&objects, "ClusterRole", None), all);
    assert_eq!(granted(&objects, "Role", Some("system")), used_for_the_lease());
    let roles = of_kind(&objects, "ClusterRole").chain(of_kind(&objects, "Role")).count();
    let bindings = of_kind(&objects, "ClusterRoleBinding").chain(of_kind(&objects, "RoleBinding")).count();
    assert_eq!((roles, bindings), (2, 2));
}

#[test]
fn chosen_namespaces_are_served_with_roles_there_and_nothing_for_the_whole_cluster() {
    let objects = operator(&["--set", "watch.namespaces={red,blue,system}"]);
    for namespace in ["red", "blue"] {
        assert_eq!(granted(&objects, "Role", Some(namespace)), used(), "{namespace}");
    }
    let both: Rights = used().union(&used_for_the_lease()).cloned().collect();
    assert_eq!(granted(&objects, "Role", Some("system")), both);
    let of_the_cluster: Vec<_> = objects.iter().filter(|object| object["metadata"]["namespace"].is_null()).collect();
    assert!(of_the_cluster.is_empty(), "{of_the_cluster:#?}");
}

#[test]
fn a_kind_that_an_administrator_leaves_out_comes_with_no_right() {
    for left_out in KINDS.iter().filter(|kind| kind.is_optional && !kind.is_cluster_wide) {
        let others = KINDS.iter().filter(|kind| kind.is_optional && *kind != left_out).map(|kind| kind.kind);
        let values = format!("optionalKinds={{{}}}", others.collect::<Vec<_>>().join(","));
        let objects = operator(&["--set", &values, "--set", "watch.namespaces={red}"]);
        let missing = used().difference(&granted(&objects, "Role", Some("red"))).cloned().collect::<Rights>();
        let rights = left_out.verbs.iter().map(|verb| right(verb, left_out.group, left_out.plural));
        assert_eq!(missing, rights.collect(), "{left_out:?}");
    }
}

#[test]
fn every_role_is_bound_to_the_operator_alone() {
    for values in [&[][..], &["--set", "watch.namespaces={red,blue}"]] {
        let objects = operator(values);
        let place = |object: &Value, name: &Value| (object["metadata"]["namespace"].to_string(), name.to_string());
        let names =
            |kind| of_kind(&objects, kind).map(|role| place(role, &role["metadata"]["name"])).collect::<BTreeSet<_>>();
        let bindings: Vec<_> =
            of_kind(&objects, "RoleBinding").chain(of_kind(&objects, "ClusterRoleBinding")).collect();
        let bound = bindings.iter().map(|binding| place(binding, &binding["roleRef"]["name"]));
        let roles: BTreeSet<_> = names("Role").union(&names("ClusterRole")).cloned().collect();
        assert_eq!(bound.collect::<BTreeSet<_>>(), roles);
        let account =
            json!([{"kind": "ServiceAccount", "name": "operator-private-registry-operator", "namespace": "system"}]);
        for binding in bindings {
            assert_eq!(binding["subjects"], account);
        }
    }
}

#[test]
fn an_administrator_of_a_namespace_may_grant_what_the_operator_needs_there() {
    // The built-in role admin has the rest; RBAC lets nobody grant what they don't have.
    let roles = rendered(DEFINITION, &[]);
    let users = granted(&roles, "ClusterRole", None);
    let ours = |right: &&String| right.contains(" privateregistry.dev/") || right.contains(" events.k8s.io/");
    let missing: Vec<_> = used().iter().filter(ours).filter(|right| !users.contains(*right)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn viewers_read_editors_write_and_nobody_gets_more() {
    let roles = rendered(DEFINITION, &[]);
    let rights_of = |name: &str| {
        let role: Vec<_> =
            of_kind(&roles, "ClusterRole").filter(|role| role["metadata"]["name"] == name).cloned().collect();
        granted(&role, "ClusterRole", None)
    };
    let on = |resource: &'static str, verbs: &'static [&str]| {
        verbs.iter().map(move |verb| right(verb, "privateregistry.dev", resource))
    };
    let read = &["get", "list", "watch"];
    let view: Rights = on("privateregistries", read).chain(on("privateregistries/status", read)).collect();
    assert_eq!(rights_of("private-registry-view"), view);
    let edit: Rights = on("privateregistries", &["create", "update", "patch", "delete", "deletecollection"]).collect();
    assert_eq!(rights_of("private-registry-edit"), edit);
    // Each built-in role takes up what is labelled for it.
    let labels_of = |name: &str| {
        let role = of_kind(&roles, "ClusterRole").find(|role| role["metadata"]["name"] == name).expect("a role");
        let labels = role["metadata"]["labels"].as_object().expect("labels").iter();
        labels
            .filter(|(_, value)| *value == "true")
            .filter_map(|(key, _)| key.strip_prefix("rbac.authorization.k8s.io/aggregate-to-").map(str::to_owned))
            .collect::<Vec<_>>()
    };
    assert_eq!(labels_of("private-registry-view"), ["admin", "edit", "view"]);
    assert_eq!(labels_of("private-registry-edit"), ["admin", "edit"]);
    assert_eq!(labels_of("private-registry-admin"), ["admin"]);
    assert_eq!(of_kind(&rendered(DEFINITION, &["--set", "userRoles=false"]), "ClusterRole").count(), 0);
}
