//! That logins from elsewhere cannot work is told in a condition, as the pods say it. Something that is told what to say answers in a pod's place.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use private_registry_operator::access::report::{Report, Standing};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::answers::acceptor;
use crate::cluster::{Namespace, namespace};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

/// What stands in the place of a pod.
struct Sidecar {
    says: Arc<Mutex<String>>,
    /// What it was asked.
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn spec(replicas: i32) -> Value {
    json!({
        "replicas": replicas,
        "storage": {"persistentVolumeClaim": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}},
        "auth": {"token": {
            "kubernetes": {"audience": "here"},
            "rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}],
        }},
    })
}

fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n\r\n{body}")
}

fn says(cluster: Standing) -> String {
    let report = Report { cluster: Some(cluster), ..Report::default() };
    answer(200, &serde_json::to_string(&report).unwrap())
}

impl Registry<'_> {
    /// Gives its pods addresses of this machine, which begin so.
    async fn has_pods_at(&self, network: &str, count: usize) -> Vec<IpAddr> {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        let api: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let pods = eventually(PATIENCE, "the pods are there", async || {
            let pods = api.list(&ours).await.unwrap().items;
            let has_address = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
            let count_now = pods.iter().filter(has_address).count();
            if count_now == count { Ok(pods) } else { Err(format!("{count_now} of {count}")) }
        })
        .await;
        let mut addresses = Vec::new();
        for (number, pod) in pods.iter().enumerate() {
            let address = format!("{network}.{}", number + 1);
            // A kubelet may be writing, too; and a merge would leave the former one in the list.
            let patch = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
            addresses.push(address.parse().unwrap());
        }
        addresses
    }

    /// Lets something answer at a pod's address, with the registry's own certificate.
    async fn sidecar(&self, at: IpAddr, says: String) -> Sidecar {
        let (certificate, key) = (self.tls().decoded("tls.crt").await, self.tls().decoded("tls.key").await);
        let acceptor = acceptor(&certificate, &key);
        let listener = TcpListener::bind(SocketAddr::new(at, 5000)).await.unwrap();
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(Mutex::new(Vec::new())));
        let (answer, noted) = (Arc::clone(&says), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = vec![0; 1024];
                let length = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..length]).into_owned();
                noted.lock().unwrap().push(head);
                let answer = answer.lock().unwrap().clone();
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }
        });
        Sidecar { says, asked, task }
    }

    async fn told(&self, status: &str, reason: &str) -> String {
        self.says_within(within(120), "IdentitiesReady", status, reason).await
    }
}

impl Sidecar {
    fn says(&self, what: String) {
        *self.says.lock().unwrap() = what;
    }

    fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn events(team: &Namespace, reason: &str) -> usize {
    let all: Vec<Value> = serde_json::from_str(&team.events().await).unwrap_or_default();
    all.iter().filter(|event| event["reason"] == reason).count()
}

#[tokio::test]
async fn that_logins_from_elsewhere_cannot_work_is_told_and_goes_when_they_can() {
    let Some(team) = namespace("identities").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", spec(2)).await.ready().await;
    let pods = registry.has_pods_at("127.97.1", 2).await;
    let well = registry.sidecar(pods[0], says(Standing::Good)).await;
    let other = registry.sidecar(pods[1], says(Standing::Forbidden)).await;

    let words = registry.told("False", "ClusterForbids").await;
    for part in ["auth.token.kubernetes", "kubectl create clusterrolebinding", "system:auth-delegator"] {
        assert!(words.contains(part), "{words}");
    }
    registry.says("Ready", "True", "Settled").await;
    let asked = well.asked.lock().unwrap().clone();
    assert!(asked[0].starts_with("GET /auth/token HTTP/1.0\r\n"), "{asked:?}");
    let key = registry.child("Secret", "-token").decoded("refresh.key").await;
    let proof = asked[0].lines().find_map(|line| line.strip_prefix("Authorization: ")).unwrap();
    assert!(!asked[0].contains(&key) && !operator.log().contains(proof));
    let version = registry.object.at("/metadata/resourceVersion").await;
    let transition = registry.condition("IdentitiesReady").await["lastTransitionTime"].clone();

    // One that says something else for once is not well again, however much it says, and nothing is written for it.
    let before = other.questions();
    other.says(format!("{}{}", says(Standing::Good), " ".repeat(10 << 20)));
    eventually(within(60), "the pod is asked again", async || {
        if other.questions() > before { Ok(()) } else { Err(before.to_string()) }
    })
    .await;
    other.says(says(Standing::Forbidden));
    team.settles().await;
    assert_eq!(registry.object.at("/metadata/resourceVersion").await, version);
    assert_eq!(registry.condition("IdentitiesReady").await["lastTransitionTime"], transition);
    assert_eq!(events(&team, "ClusterForbids").await, 1, "{}", team.events().await);

    other.says(says(Standing::Good));
    registry.told("True", "Accepting").await;

    registry
        .apply({
            let mut suspended = spec(2);
            suspended["suspend"] = json!(true);
            suspended
        })
        .await
        .unwrap();
    registry.told("Unknown", "Suspended").await;
    registry.says("Ready", "True", "Suspended").await;
    // Without logins from elsewhere nothing is said of them.
    let mut plain = spec(2);
    plain["auth"]["token"].as_object_mut().unwrap().remove("kubernetes");
    registry.apply(plain).await.unwrap();
    eventually(PATIENCE, "the condition goes", async || match registry.condition("IdentitiesReady").await {
        Value::Null => Ok(()),
        condition => Err(condition.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_pod_that_does_not_say_or_cannot_be_reached_makes_nothing_ill() {
    let Some(team) = namespace("identities-silent").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", spec(1)).await.ready().await;
    let pods = registry.has_pods_at("127.97.2", 1).await;
    registry.told("Unknown", "Unreachable").await;
    // As one of an older version does.
    let _sidecar = registry.sidecar(pods[0], answer(401, r#"{"errors": [{"code": "UNAUTHORIZED"}]}"#)).await;
    let words = registry.told("Unknown", "NotTold").await;
    assert!(words.contains("older version"), "{words}");
    registry.says("Ready", "True", "Settled").await;
}
