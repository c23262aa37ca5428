//! What a user installs: the charts render what they promise and refuse the rest with words, the operator gets the rights it uses and no others,
//! and every example is a valid manifest. Needs Helm, kubectl and a Lua of Argo CD's kind, no cluster.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use private_registry_operator::apply::KINDS;
use serde_json::{Value, json};
use testbed::{Family, Progress, Tools};

const OPERATOR: &str = "charts/private-registry-operator";
const DEFINITION: &str = "charts/private-registry-crds";
const IMAGE: [&str; 2] = ["--set", "image.repository=operator.example/operator"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tool(name: &str) -> Command {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        Tools::ensure(&[Family::Helm, Family::Kubectl, Family::Argocd], &Progress::silent()).expect("get the programs")
    });
    let mut command = Command::new(tools.path(name).expect("it was asked for"));
    command.current_dir(root());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints, which must succeed.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The objects of the release `operator` in the namespace `system`.
fn rendered(chart: &str, values: &[&str]) -> Vec<Value> {
    documents(&printed(tool("helm").args(["template", "operator", chart, "--namespace", "system"]).args(values)))
}

fn operator(values: &[&str]) -> Vec<Value> {
    rendered(OPERATOR, &[&IMAGE, values].concat())
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned())
}

/// One right: `verb group/resource`, with the only name that it is for, if there is one.
type Rights = BTreeSet<String>;

fn right(verb: &str, group: &str, resource: &str) -> String {
    format!("{verb} {group}/{resource}")
}

/// What the roles of one kind grant, in the namespace if there is one.
fn granted(objects: &[Value], kind: &str, namespace: Option<&str>) -> Rights {
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
        ("privateregistry.dev", "privateregistries", &["list", "watch"]),
        ("privateregistry.dev", "privateregistries/status", &["patch"]),
        ("privateregistry.dev", "privateregistries/finalizers", &["update"]),
        ("", "pods", &["list", "watch"]),
        ("events.k8s.io", "events", &["create", "patch"]),
    ];
    let children = KINDS.iter().map(|kind| (kind.group, kind.plural, kind.verbs));
    let all = fixed.into_iter().chain(children);
    all.flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| right(verb, group, resource))).collect()
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
    assert_eq!(granted(&objects, "ClusterRole", None), used());
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
    let objects = operator(&["--set", "watch.namespaces={red,blue}"]);
    let container =
        &of_kind(&objects, "Deployment").next().expect("a Deployment")["spec"]["template"]["spec"]["containers"][0];
    let arguments: Vec<_> = texts(&container["args"]).collect();
    let program = || Command::new(env!("CARGO_BIN_EXE_private-registry-operator"));
    // A known argument given twice, or help, is noticed only after all have been recognised.
    let help = printed(program().args([&arguments[0], "--help"]));
    for argument in &arguments[1..] {
        let flag = argument.split('=').next().expect("a flag");
        assert!(help.contains(flag), "{flag} is not in\n{help}");
    }
}

/// Every value of the chart as `a.b.c`. What a pod's manifest defines is one value.
fn leaves(values: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, value) in values.as_object().expect("an object") {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_leaf = ["resources", "podSecurityContext", "securityContext"].contains(&path.as_str());
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
        ("podSecurityContext", json!({"fsGroup": 7}), "fsGroup: 7"),
        ("securityContext", json!({"privileged": true}), "privileged: true"),
    ];
    let mut values = BTreeSet::new();
    let text = fs::read_to_string(root().join(OPERATOR).join("values.yaml")).unwrap();
    leaves(&serde_saphyr::from_str(&text).unwrap(), "", &mut values);
    // These two take something away: see the next test.
    let tried = cases.iter().map(|(path, ..)| (*path).to_owned());
    assert_eq!(
        tried.chain(["rbac.create".to_owned(), "serviceAccount.create".to_owned()]).collect::<BTreeSet<_>>(),
        values
    );

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
        let image = r#"image.repository="operator.example/operator""#;
        let mut helm = tool("helm");
        helm.args(["template", "operator", OPERATOR, "--namespace", "system"]);
        printed(helm.args(["--set-json", image, "--set-json", &monitor, "--set-json", value]))
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

/// Every YAML file below a folder.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_example_is_a_valid_manifest() {
    let mut registries = 0;
    for path in manifests(&root().join("deploy/examples")) {
        let objects = documents(&fs::read_to_string(&path).unwrap());
        assert!(!objects.is_empty(), "{}", path.display());
        let own = of_kind(&objects, "PrivateRegistry").count();
        registries += own;
        if own > 0 {
            let mut check = Command::new(env!("CARGO_BIN_EXE_private-registry-operator"));
            let said = printed(check.args(["check", "-f"]).arg(&path));
            assert!(
                said.starts_with(&format!("{own} ")) && said.ends_with(", 0 invalid\n"),
                "{}: {said}",
                path.display()
            );
        }
    }
    assert!(registries > 8, "only {registries} examples were found");
}

#[test]
fn an_overlay_changes_the_image_everywhere() {
    for folder in ["deploy/cluster", "deploy/namespaced"] {
        let text = printed(tool("kubectl").args(["kustomize", folder]));
        assert!(!text.contains("image: private-registry-operator:"), "{folder}");
        let objects = documents(&text);
        let deployment = of_kind(&objects, "Deployment").next().expect("a Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let image = container["image"].as_str().unwrap();
        assert!(image.starts_with("registry.example.com/"), "{image}");
        assert!(
            texts(&container["args"]).any(|argument| argument == format!("--operator-image={image}")),
            "{container}"
        );
    }
}

#[test]
fn the_gitops_example_is_a_whole_that_kustomize_can_build() {
    let objects = documents(&printed(tool("kubectl").args(["kustomize", "deploy/examples/gitops"])));
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Namespace", "PrivateRegistry"]);
    assert_eq!(objects[1]["metadata"]["namespace"], objects[0]["metadata"]["name"]);
}

/// What Argo CD would show for an object: status and message.
fn health(object: &Value) -> (String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, object).unwrap();
    let mut judge = tool("argocd-health");
    let answer = printed(judge.arg("deploy/argocd/health.lua").stdin(File::open(file.path()).unwrap()));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("no {field}: {answer}")).to_owned();
    (text("status"), text("message"))
}

#[test]
fn argo_cd_is_told_how_to_judge_a_registry() {
    let of = |metadata: Value, status: Value| health(&json!({"metadata": metadata, "spec": {}, "status": status})).0;
    let plain = || json!({"name": "team-a", "generation": 2});
    // As the operator sets them: all three with the reason of the first thing that stands in the way.
    let judged = |ready: &str, reconciling: &str, stalled: &str, reason: &str| {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": reason, "message": format!("{reason} said")});
        let conditions =
            [condition("Ready", ready), condition("Reconciling", reconciling), condition("Stalled", stalled)];
        json!({"observedGeneration": 2, "conditions": conditions})
    };

    assert_eq!(health(&json!({"metadata": plain(), "spec": {}})).0, "Progressing", "nobody has looked at it");
    assert_eq!(
        of(json!({"generation": 3}), judged("True", "False", "False", "Settled")),
        "Progressing",
        "an older version"
    );
    let paused = json!({"generation": 2, "annotations": {"privateregistry.dev/paused": "true"}});
    assert_eq!(of(paused, judged("True", "False", "False", "Settled")), "Suspended");
    for (status, expected) in [
        (judged("True", "False", "False", "Settled"), "Healthy"),
        (judged("False", "True", "False", "Progressing"), "Progressing"),
        (judged("Unknown", "False", "False", "Progressing"), "Progressing"),
        (judged("False", "False", "True", "Immutable"), "Degraded"),
        (judged("False", "True", "True", "WaitingForSecret"), "Degraded"),
        (judged("False", "False", "False", "Failed"), "Degraded"),
        (judged("True", "False", "False", "Suspended"), "Suspended"),
        (judged("True", "False", "False", "StoppedByUser"), "Suspended"),
        (judged("True", "False", "False", "Completed"), "Suspended"),
    ] {
        let (judgement, message) = health(&json!({"metadata": plain(), "status": status}));
        assert_eq!(judgement, expected, "{status}");
        assert!(message.ends_with(" said"), "{message}");
    }
}
