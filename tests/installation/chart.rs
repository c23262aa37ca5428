//! What the charts make of values, and which they refuse.

use std::{collections::BTreeSet, fs, process::Command};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};

use crate::{DEFINITION, IMAGE, OPERATOR, documents, of_kind, operator, printed, rendered, root, run, texts, tool};

#[test]
fn the_definition_is_the_committed_one_and_outlives_its_release() {
    let mut definition = rendered(DEFINITION, &[])
        .into_iter()
        .find(|object| object["kind"] == "CustomResourceDefinition")
        .expect("the definition");
    let annotations = definition["metadata"]["annotations"].as_object_mut().expect("annotations");
    assert_eq!(annotations.remove("helm.sh/resource-policy"), Some(json!("keep")));
    let committed = fs::read_to_string(root().join("crds/privateregistries.privateregistry.dev.yaml")).unwrap();
    // Typed, because Helm writes 1 for 1.0.
    let definition: CustomResourceDefinition = serde_json::from_value(definition).unwrap();
    let committed: CustomResourceDefinition = serde_saphyr::from_str(&committed).unwrap();
    assert!(definition == committed, "the chart's definition differs: run `cargo xtask generate`");
}

#[test]
fn the_operators_pod_fits_the_restricted_pod_security_standard() {
    let objects = operator(&["--set", "replicas=2"]);
    let pod = &of_kind(&objects, "Deployment").next().expect("a Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    }
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[field].is_null(), "{field}");
    }
}

#[test]
fn operator_and_registries_run_the_image_that_was_chosen() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let by_digest = format!("image.digest={digest}");
    for (values, expected) in [
        (vec![], "operator.example/operator:0.1.0".to_owned()),
        (vec!["--set", "image.tag=v7"], "operator.example/operator:v7".to_owned()),
        (vec!["--set", "image.tag=v7", "--set", &by_digest], format!("operator.example/operator@{digest}")),
    ] {
        let objects = operator(&values);
        let container =
            &of_kind(&objects, "Deployment").next().expect("a Deployment")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], expected);
        assert!(
            texts(&container["args"]).any(|argument| argument == format!("--operator-image={expected}")),
            "{container}"
        );
    }
}

#[test]
fn every_argument_of_the_operators_pod_is_one_that_the_program_knows() {
    let nodes = "nodeTrust.enabled=true,nodeTrust.hosts={*=*.example.com:5000}";
    let both = [operator(&["--set", "watch.namespaces={red,blue}"]), operator(&["--set", nodes])];
    let arguments: Vec<_> = both
        .iter()
        .flat_map(|objects| {
            let pod = &of_kind(objects, "Deployment").next().expect("a Deployment")["spec"]["template"]["spec"];
            texts(&pod["containers"][0]["args"]).collect::<Vec<_>>()
        })
        .collect();
    let program = || Command::new(env!("CARGO_BIN_EXE_private-registry-operator"));
    // A known argument given twice, or help, is noticed only after all have been recognised.
    let help = printed(program().args([&arguments[0], "--help"]));
    for argument in arguments.iter().filter(|argument| argument.starts_with('-')) {
        let flag = argument.split('=').next().expect("a flag");
        assert!(help.contains(flag), "{flag} is not in\n{help}");
    }
}

/// Every value of the chart as `a.b.c`. What a pod's manifest defines is one value.
fn leaves(values: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in values.as_object().expect("an object") {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_leaf =
            ["resources", "podSecurityContext", "securityContext", "nodeTrust.resources"].contains(&path.as_str());
        match value.as_object() {
            Some(inner) if !is_leaf && !inner.is_empty() => leaves(value, &path, found),
            _ => drop(found.insert(path)),
        }
    }
}

#[test]
fn every_value_does_something_and_is_documented() {
    // What is given, and what is in the objects then and not before.
    let digest = format!("sha256:{}", "a".repeat(64));
    let cases = [
        ("watch.namespaces", json!(["red"]), "--watch-namespace=red"),
        ("image.repository", json!("other.example/operator"), "other.example/operator:"),
        ("image.tag", json!("v7"), "operator.example/operator:v7"),
        ("image.digest", json!(digest), "operator.example/operator@sha256:aaa"),
        ("image.pullPolicy", json!("Always"), "imagePullPolicy: Always"),
        ("imagePullSecrets", json!([{"name": "mine"}]), "imagePullSecrets:\n        - name: mine"),
        ("registry.image", json!("mirror.example/registry:3.1.2"), "--registry-image=mirror.example/registry:3.1.2"),
        ("frontend.image", json!("mirror.example/nginx:1"), "--frontend-image=mirror.example/nginx:1"),
        ("optionalKinds", json!(["Ingress"]), "--optional-kinds=Ingress\n"),
        ("clusterDomain", json!("corp.local"), "--cluster-domain=corp.local"),
        ("replicas", json!(2), "replicas: 2"),
        ("logFormat", json!("text"), "--log-format=text"),
        ("logLevel", json!("debug"), "--log-level=debug"),
        ("concurrency", json!(3), "--concurrency=3"),
        ("extraArgs", json!(["--lease-retry=1s"]), "- --lease-retry=1s"),
        ("extraEnv", json!([{"name": "HTTPS_PROXY", "value": "proxy"}]), "name: HTTPS_PROXY"),
        ("http.address", json!("[::]"), "--listen=[::]:8080"),
        ("http.port", json!(9090), "containerPort: 9090"),
        ("metrics.service.annotations", json!({"a": "b-7"}), "a: b-7"),
        ("metrics.serviceMonitor.enabled", json!(true), "kind: ServiceMonitor"),
        ("metrics.serviceMonitor.interval", json!("7s"), "interval: 7s"),
        ("metrics.serviceMonitor.labels", json!({"release": "b-7"}), "release: b-7"),
        ("serviceAccount.name", json!("mine"), "serviceAccountName: mine"),
        ("serviceAccount.annotations", json!({"a": "b-7"}), "a: b-7"),
        ("nameOverride", json!("other"), "name: operator-other"),
        ("fullnameOverride", json!("whole"), "name: whole"),
        ("podAnnotations", json!({"a": "b-7"}), "a: b-7"),
        ("podLabels", json!({"a": "b-7"}), "a: b-7"),
        ("priorityClassName", json!("high"), "priorityClassName: high"),
        ("nodeSelector", json!({"disk": "ssd"}), "disk: ssd"),
        ("tolerations", json!([{"key": "infra", "operator": "Exists"}]), "key: infra"),
        ("affinity", json!({"nodeAffinity": {}}), "nodeAffinity: {}"),
        ("topologySpreadConstraints", json!([{"topologyKey": "zone"}]), "topologyKey: zone"),
        ("resources", json!({"limits": {"cpu": "7"}}), "cpu: \"7\""),
        ("nodeTrust.namespace", json!("b-7"), "name: \"b-7\""),
        ("nodeTrust.paths.containerd", json!("/b-7"), "path: /b-7"),
        ("nodeTrust.paths.docker", json!("/b-7"), "--docker=/b-7"),
        ("nodeTrust.paths.podman", json!("/b-7"), "--podman=/b-7"),
        ("nodeTrust.hosts", json!(["red=b-7.example"]), "- --node-trust-host=red=b-7.example"),
        ("nodeTrust.proofNamespace", json!("b-7"), "--node-proof-namespace=b-7"),
        ("nodeTrust.cleanUp", json!(true), "- --clean-up"),
        ("nodeTrust.seLinuxOptions", json!({"type": "spc_t"}), "type: spc_t"),
        ("nodeTrust.nodeSelector", json!({"a": "b-7"}), "a: b-7"),
        ("nodeTrust.tolerations", json!([{"key": "b-7"}]), "key: b-7"),
        ("nodeTrust.resources", json!({"limits": {"cpu": "b-7"}}), "cpu: b-7"),
        ("podSecurityContext", json!({"fsGroup": 7}), "fsGroup: 7"),
        ("securityContext", json!({"privileged": true}), "privileged: true"),
    ];
    let mut values = BTreeSet::new();
    let text = fs::read_to_string(root().join(OPERATOR).join("values.yaml")).unwrap();
    leaves(&serde_saphyr::from_str(&text).unwrap(), "", &mut values);
    // These take something away, or bring all of it: see the tests of each.
    let others =
        ["rbac.create", "serviceAccount.create", "nodeTrust.enabled", "nodeTrust.admissionPolicy", "nodeTrust.proof"]
            .map(str::to_owned);
    let tried = cases.iter().map(|(path, ..)| (*path).to_owned());
    assert_eq!(tried.chain(others).collect::<BTreeSet<_>>(), values);

    let readme = fs::read_to_string(root().join(OPERATOR).join("README.md")).unwrap();
    for path in values {
        let last = path.rsplit('.').next().unwrap_or_default();
        assert!(
            readme.contains(&format!("`{path}`")) || readme.contains(&format!("`.{last}`")),
            "{path} is not in README.md"
        );
    }
    let with = |value: &str| {
        // Details of the monitor show in a monitor.
        let monitor = format!("metrics.serviceMonitor.enabled={}", value.starts_with("metrics.serviceMonitor."));
        let nodes = format!("nodeTrust.enabled={}", value.starts_with("nodeTrust."));
        let image = r#"image.repository="operator.example/operator""#;
        let mut helm = tool("helm");
        helm.args(["template", "operator", OPERATOR, "--namespace", "system"]);
        printed(helm.args(["--set-json", image, "--set-json", &monitor, "--set-json", &nodes, "--set-json", value]))
    };
    let before = with("replicas=1");
    for (path, value, sign) in cases {
        assert!(!before.contains(sign), "{path}: {sign} is there anyway");
        let text = with(&format!("{path}={value}"));
        assert!(text.contains(sign), "{path}={value}: no {sign} in\n{text}");
    }
}

#[test]
fn names_that_yaml_takes_for_something_else_stay_names() {
    let mut helm = tool("helm");
    helm.args(["template", "7", OPERATOR, "--namespace", "8"]).args(IMAGE);
    let objects = documents(&printed(helm.args(["--set-string", "watch.namespaces={yes,123}"])));
    let mut namespaces = BTreeSet::new();
    for object in &objects {
        namespaces.insert(object["metadata"]["namespace"].as_str().unwrap_or_else(|| panic!("{object}")));
        let labels = object["metadata"]["labels"].as_object().unwrap();
        assert!(labels.values().all(Value::is_string), "{labels:?}");
        for subject in object["subjects"].as_array().into_iter().flatten() {
            assert_eq!(subject["namespace"], "8");
        }
    }
    assert_eq!(namespaces, BTreeSet::from(["123", "8", "yes"]));
}

/// What Helm prints after an installation.
fn notes(values: &[&str]) -> String {
    let mut helm = tool("helm");
    helm.args(["install", "operator", OPERATOR, "--namespace", "system", "--dry-run=client"]).args(IMAGE).args(values);
    let text = printed(&mut helm);
    text.split_once("NOTES:").expect("notes").1.to_owned()
}

#[test]
fn the_notes_say_what_can_be_read_and_give_the_next_three_commands() {
    let commands = |notes: &str| {
        let lines = notes.lines().filter(|line| line.starts_with("   "));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let everywhere = notes(&[]);
    assert!(
        everywhere.contains("every Secret of the cluster") && everywhere.contains("watch.namespaces"),
        "{everywhere}"
    );
    let [apply, wait, read] = &commands(&everywhere)[..] else { panic!("{everywhere}") };
    let file = apply.strip_prefix("kubectl apply -f ").expect("a file");
    let registry = documents(&fs::read_to_string(root().join(file)).unwrap()).pop().unwrap();
    let (name, namespace) = (&registry["metadata"]["name"], &registry["metadata"]["namespace"]);
    assert_eq!((name, namespace), (&json!("team-a"), &json!("registries")));
    assert!(wait.starts_with("kubectl --namespace registries wait privateregistry/team-a "), "{wait}");
    assert!(read.starts_with("kubectl --namespace registries get secret team-a-admin "), "{read}");
    assert!(read.ends_with(r#"go-template='{{.data.password | base64decode}}{{"\n"}}'"#), "{read}");

    let here = notes(&["--set", "watch.namespaces={red,blue}"]);
    assert!(here.contains("can read their Secrets: red, blue."), "{here}");
    let [apply, wait, read] = &commands(&here)[..] else { panic!("{here}") };
    let manifest =
        apply.strip_prefix("echo '").and_then(|rest| rest.strip_suffix("' | kubectl apply -f -")).expect("a manifest");
    let manifest: Value = serde_saphyr::from_str(manifest).unwrap();
    assert_eq!(
        (&manifest["metadata"], &manifest["spec"]),
        (&json!({"name": "team-a", "namespace": "red"}), &json!({}))
    );
    assert!(
        wait.starts_with("kubectl --namespace red wait ") && read.starts_with("kubectl --namespace red get secret ")
    );
}

#[test]
fn parts_appear_when_they_are_asked_for() {
    let budgets = |values| of_kind(&operator(values), "PodDisruptionBudget").count();
    assert_eq!((budgets(&[]), budgets(&["--set", "replicas=2"])), (0, 1));
    let monitors = |values| of_kind(&operator(values), "ServiceMonitor").count();
    assert_eq!((monitors(&[]), monitors(&["--set", "metrics.serviceMonitor.enabled=true"])), (0, 1));
    let none = operator(&[
        "--set",
        "rbac.create=false",
        "--set",
        "serviceAccount.create=false",
        "--set",
        "serviceAccount.name=mine",
    ]);
    for kind in ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount"] {
        assert_eq!(of_kind(&none, kind).count(), 0, "{kind}");
    }
    assert_eq!(of_kind(&none, "Deployment").next().unwrap()["spec"]["template"]["spec"]["serviceAccountName"], "mine");
}

#[test]
fn the_longest_release_name_still_gives_legal_names() {
    let release = format!("r{}", "x".repeat(52));
    let output = printed(tool("helm").args(["template", &release, OPERATOR]).args(IMAGE));
    for object in documents(&output) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.len() <= 63 && !name.ends_with('-'), "{name}");
        for value in object["metadata"]["labels"].as_object().unwrap().values() {
            assert!(value.as_str().unwrap().len() <= 63, "{value}");
        }
    }
}

#[test]
fn charts_pass_helms_own_checks() {
    printed(tool("helm").args(["lint", "--strict", DEFINITION]));
    printed(tool("helm").args(["lint", "--strict", OPERATOR]).args(IMAGE));
}

#[test]
fn a_wrong_value_is_refused_with_its_name() {
    for (values, named) in [
        (&[][..], "image.repository"),
        (&["image.repository=a@b"], "repository"),
        (&["image.repository=a/b:tag"], "repository"),
        (&["image.tag=a b"], "tag"),
        (&["image.digest=sha256:12"], "digest"),
        (&["image.pullPolicy=Sometimes"], "pullPolicy"),
        (&["watch.namespaces={Red}"], "namespaces"),
        (&["watch.namespaces={red,red}"], "namespaces"),
        (&["watch.namespace=red"], "namespace"),
        (&["replicas=0"], "replicas"),
        (&["replicaCount=2"], "replicaCount"),
        (&["http.port=80"], "port"),
        (&["http.address=somewhere"], "address"),
        (&["clusterDomain=Corp_Local"], "clusterDomain"),
        (&["logLevel=loud"], "logLevel"),
        (&["logFormat=xml"], "logFormat"),
        (&["concurrency=0"], "concurrency"),
        (&["registry.image="], "image"),
        (&["frontend.image="], "image"),
        (&["metrics.serviceMonitor.interval=often"], "interval"),
        (&["serviceAccount.create=false"], "serviceAccount.name"),
        (&["watch=null"], "watch"),
        (&["concurrency=null"], "concurrency"),
        (&["metrics=null"], "metrics"),
    ] {
        let mut helm = tool("helm");
        helm.args(["template", "operator", OPERATOR]);
        if !values.is_empty() {
            helm.args(IMAGE);
        }
        values.iter().for_each(|value| drop(helm.args(["--set", value]).get_args()));
        let output = run(&mut helm);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{values:?} was accepted");
        assert!(complaint.contains(named), "{values:?}: {complaint}");
    }
}
