//! The node agents: off by default, and with the least that their work needs.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::{IMAGE, OPERATOR, of_kind, operator, printed, rights, run, texts, tool};

const ON: [&str; 2] = ["--set", "nodeTrust.enabled=true"];
const NAME: &str = "operator-private-registry-operator-nodes";
const NAMESPACE: &str = "private-registry-nodes";

fn on(values: &[&str]) -> Vec<Value> {
    operator(&[&ON, values].concat())
}

fn pod(objects: &[Value]) -> &Value {
    &of_kind(objects, "DaemonSet").next().expect("a DaemonSet")["spec"]["template"]["spec"]
}

fn arguments(objects: &[Value]) -> Vec<String> {
    texts(&pod(objects)["containers"][0]["args"]).collect()
}

#[test]
fn nobody_gets_node_agents_who_did_not_ask() {
    let objects = operator(&[]);
    assert_eq!(of_kind(&objects, "DaemonSet").chain(of_kind(&objects, "Namespace")).count(), 0);
}

#[test]
fn an_agent_may_write_the_folders_that_were_named_and_nothing_else() {
    for (values, paths) in [
        (&[][..], &[("containerd", "/etc/containerd")][..]),
        (
            &[
                "--set",
                "nodeTrust.paths.containerd=,nodeTrust.paths.docker=/etc/docker,nodeTrust.paths.podman=/etc/containers",
            ],
            &[("docker", "/etc/docker"), ("podman", "/etc/containers")],
        ),
        (
            &["--set", "nodeTrust.paths.containerd=/var/lib/rancher/k3s/agent/etc/containerd"],
            &[("containerd", "/var/lib/rancher/k3s/agent/etc/containerd")],
        ),
    ] {
        let objects = on(values);
        let pod = pod(&objects);
        let volumes: Vec<_> = paths
            .iter()
            .map(|(name, path)| json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}))
            .collect();
        assert_eq!(pod["volumes"], json!(volumes));
        let mounts: Vec<_> =
            paths.iter().map(|(name, path)| json!({"name": name, "mountPath": format!("/host{path}")})).collect();
        let container = &pod["containers"][0];
        assert_eq!(container["volumeMounts"], json!(mounts));
        for (name, path) in paths {
            assert!(arguments(&objects).contains(&format!("--{name}={path}")));
        }
        let context = &container["securityContext"];
        assert_eq!(context["privileged"], false);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod[field].is_null(), "{field}");
        }
        assert_eq!(pod["containers"].as_array().map(Vec::len), Some(1));
    }
}

#[test]
fn an_agent_reads_orders_and_its_node_writes_its_report_and_has_no_other_right() {
    let objects = on(&[]);
    let mut of_agents: Vec<Value> = Vec::new();
    for binding in of_kind(&objects, "RoleBinding").chain(of_kind(&objects, "ClusterRoleBinding")) {
        if binding["subjects"][0]["name"] != NAME {
            continue;
        }
        assert_eq!(binding["subjects"], json!([{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]));
        let kind = binding["roleRef"]["kind"].as_str().unwrap();
        let is_bound = |role: &&Value| {
            role["metadata"]["name"] == binding["roleRef"]["name"]
                && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        };
        of_agents.push(of_kind(&objects, kind).find(is_bound).expect("the role").clone());
    }
    let granted = |kind: &str, namespace: Option<&str>| rights::granted(&of_agents, kind, namespace);
    let on_maps = |verbs: &[&str]| verbs.iter().map(|verb| format!("{verb} /configmaps")).collect::<BTreeSet<_>>();
    assert_eq!(granted("Role", Some("system")), on_maps(&["get", "list", "watch"]));
    assert_eq!(granted("Role", Some(NAMESPACE)), on_maps(&["get", "create", "patch"]));
    assert_eq!(granted("ClusterRole", None), BTreeSet::from(["get /nodes".to_owned()]));
    assert_eq!(of_agents.len(), 3);
}

#[test]
fn the_operator_makes_pods_in_a_namespace_where_nothing_can_be_mounted_and_in_no_other() {
    let objects = on(&["--set", "nodeTrust.proofNamespace=proving"]);
    let of_operator = |namespace: &str| {
        let bound: Vec<_> = of_kind(&objects, "RoleBinding")
            .filter(|binding| binding["subjects"][0]["namespace"] == "system")
            .filter(|binding| binding["metadata"]["namespace"] == namespace)
            .map(|binding| binding["roleRef"]["name"].clone())
            .collect();
        let roles: Vec<_> =
            of_kind(&objects, "Role").filter(|role| bound.contains(&role["metadata"]["name"])).cloned().collect();
        rights::granted(&roles, "Role", Some(namespace))
    };
    assert_eq!(of_operator("proving"), ["list", "create", "delete"].map(|verb| format!("{verb} /pods")).into());
    assert_eq!(of_operator(NAMESPACE), BTreeSet::new());
    let namespace = of_kind(&objects, "Namespace").find(|found| found["metadata"]["name"] == "proving").unwrap();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

#[test]
fn a_namespace_of_their_own_lets_them_mount_folders_and_no_release_lives_there() {
    let objects = on(&["--set", "nodeTrust.namespace=trusting"]);
    let namespace = of_kind(&objects, "Namespace").next().expect("a Namespace");
    assert_eq!(namespace["metadata"]["name"], "trusting");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    assert_eq!(of_kind(&objects, "DaemonSet").next().unwrap()["metadata"]["namespace"], "trusting");
    let binding = of_kind(&objects, "ClusterRoleBinding").find(|binding| binding["metadata"]["name"] == NAME).unwrap();
    assert_eq!(binding["subjects"][0]["namespace"], "trusting");
}

#[test]
fn every_argument_of_an_agent_is_one_that_the_program_knows() {
    let paths = "nodeTrust.cleanUp=true,nodeTrust.paths.docker=/etc/docker,nodeTrust.paths.podman=/etc/containers";
    let objects = on(&["--set", paths]);
    let program = || Command::new(env!("CARGO_BIN_EXE_private-registry-operator"));
    let help = printed(program().args(["node-agent", "--help"]));
    let arguments = arguments(&objects);
    assert_eq!(arguments[0], "node-agent");
    for argument in &arguments[1..] {
        let flag = argument.split('=').next().expect("a flag");
        assert!(help.contains(flag), "{flag} is not in\n{help}");
    }
    assert!(
        arguments.contains(&"--clean-up".to_owned()) && arguments.contains(&"--orders=system".to_owned()),
        "{arguments:?}"
    );
}

#[test]
fn the_policy_is_about_agents_alone_and_can_be_left_out() {
    let objects = on(&[]);
    let policy = of_kind(&objects, "ValidatingAdmissionPolicy").next().expect("a policy");
    let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
    assert_eq!(condition, format!("request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{NAME}'"));
    let binding = of_kind(&objects, "ValidatingAdmissionPolicyBinding").next().expect("its binding");
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    let without = on(&["--set", "nodeTrust.admissionPolicy=false"]);
    assert!(!without.iter().any(|object| object["kind"].as_str().unwrap().starts_with("ValidatingAdmission")));
}

#[test]
fn values_that_cannot_work_are_refused_with_words() {
    for (value, words) in [
        ("nodeTrust.namespace=system", "must be another one than the release's"),
        ("watch.namespaces={red}", "nodes belong to no namespace"),
        ("nodeTrust.hosts={registry.example.com}", "hosts"),
        ("nodeTrust.proofNamespace=system", "proofNamespace must be another one"),
        ("nodeTrust.paths.containerd=", "needs one of nodeTrust.paths"),
        ("nodeTrust.paths.containerd=/etc/../root", "containerd"),
        ("nodeTrust.paths.containerd=etc", "containerd"),
        ("nodeTrust.paths.docker=/", "docker"),
        ("nodeTrust.paths.crio=/etc/crio", "crio"),
        ("nodeTrust.cleanup=true", "cleanup"),
    ] {
        let mut helm = tool("helm");
        helm.args(["template", "operator", OPERATOR, "--namespace", "system"])
            .args(IMAGE)
            .args(ON)
            .args(["--set", value]);
        let output = run(&mut helm);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{value} was accepted");
        assert!(complaint.contains(words), "{value}: {complaint}");
    }
}
