//! Where the election's record lives: a `coordination.k8s.io/v1` Lease.
//!
//! Every write carries the resourceVersion that was read, so of two writers one fails. Labels and annotations that others put on the Lease stay.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error, ResourceExt as _};
use tokio::sync::OnceCell;

use super::super::api_error;
use super::Record;

/// Why the lease could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// It is not as we thought it was: somebody else wrote.
    Conflict,
    /// Anything else, with what to do about it.
    Failed(String),
}

/// Keeps one [`Record`]. A write succeeds only on the version it names.
pub trait LeaseStore: Send + Sync {
    /// What a write must name.
    type Version: Clone + Send + Sync;

    /// The record now; `None` if there is none.
    fn read(&self) -> impl Future<Output = Result<Option<(Record, Self::Version)>, StoreError>> + Send;

    /// Makes the record where there is none.
    fn create(&self, record: &Record) -> impl Future<Output = Result<Self::Version, StoreError>> + Send;

    /// Replaces the record of that version.
    fn replace(
        &self,
        record: &Record,
        version: &Self::Version,
    ) -> impl Future<Output = Result<Self::Version, StoreError>> + Send;
}

/// The Lease object of a cluster.
#[derive(Clone)]
pub struct KubeLease {
    client: Client,
    name: String,
    /// Shared by clones.
    namespace: Arc<OnceCell<String>>,
    fallback: String,
}

impl std::fmt::Debug for KubeLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KubeLease").field(&self.place()).finish()
    }
}

impl KubeLease {
    /// The Lease `namespace/name`, through `client`, which must not be fenced.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        Self { client, name, fallback: namespace.clone(), namespace: Arc::new(OnceCell::new_with(Some(namespace))) }
    }

    /// The Lease of that name that somebody holds, in whatever namespace: who is started from a shell must not become a second writer
    /// beside the operator of the cluster. The one in the namespace `fallback` if there is none, or if this user may not look.
    pub fn wherever_held(client: Client, fallback: &str, name: &str) -> Self {
        Self { client, name: name.to_owned(), namespace: Arc::default(), fallback: fallback.to_owned() }
    }

    async fn namespace(&self) -> Result<&str, StoreError> {
        let namespace = self.namespace.get_or_try_init(async || {
            let named = ListParams::default().fields(&format!("metadata.name={}", self.name));
            let leases = match Api::<Lease>::all(self.client.clone()).list(&named).await {
                Ok(leases) => leases.items,
                Err(Error::Api(status)) if status.code == 403 => vec![],
                Err(error) => {
                    let why = api_error::explain(&error);
                    return Err(StoreError::Failed(format!("look for Leases called {}: {why}", self.name)));
                }
            };
            let held = |lease: &Lease| {
                lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.holder_identity.as_ref())
                    .is_some_and(|holder| !holder.is_empty())
            };
            let mut held: Vec<_> = leases.iter().filter(|lease| held(lease)).filter_map(Lease::namespace).collect();
            held.sort_by_key(|namespace| (*namespace != self.fallback, namespace.clone()));
            let namespace = held.into_iter().next().unwrap_or_else(|| self.fallback.clone());
            tracing::info!(namespace, name = self.name, "taking part in the leader election");
            Ok(namespace)
        });
        namespace.await.map(String::as_str)
    }

    /// `NAMESPACE/NAME` of the Lease. Final once the Lease was read.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.namespace.get().unwrap_or(&self.fallback), self.name)
    }

    async fn api(&self) -> Result<Api<Lease>, StoreError> {
        Ok(Api::namespaced(self.client.clone(), self.namespace().await?))
    }

    fn failed(&self, doing: &str, error: &Error) -> StoreError {
        match error {
            Error::Api(status) if status.is_conflict() || status.is_already_exists() => StoreError::Conflict,
            _ => StoreError::Failed(format!("{doing} Lease {}: {}", self.place(), api_error::explain(error))),
        }
    }
}

impl LeaseStore for KubeLease {
    type Version = ObjectMeta;

    async fn read(&self) -> Result<Option<(Record, ObjectMeta)>, StoreError> {
        let lease = self.api().await?.get_opt(&self.name).await.map_err(|error| self.failed("read", &error))?;
        Ok(lease.map(|lease| (record(lease.spec.unwrap_or_default()), lease.metadata)))
    }

    async fn create(&self, record: &Record) -> Result<ObjectMeta, StoreError> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec(record)) };
        let made = self.api().await?.create(&PostParams::default(), &lease).await;
        made.map(|lease| lease.metadata).map_err(|error| self.failed("create", &error))
    }

    async fn replace(&self, record: &Record, version: &ObjectMeta) -> Result<ObjectMeta, StoreError> {
        let metadata = ObjectMeta { managed_fields: None, ..version.clone() };
        let lease = Lease { metadata, spec: Some(spec(record)) };
        let written = self.api().await?.replace(&self.name, &PostParams::default(), &lease).await;
        match written {
            // Deleted since: as good as changed by somebody else.
            Err(Error::Api(status)) if status.is_not_found() => Err(StoreError::Conflict),
            written => written.map(|lease| lease.metadata).map_err(|error| self.failed("write", &error)),
        }
    }
}

fn record(spec: LeaseSpec) -> Record {
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(
            spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default(),
        ),
        acquired: spec.acquire_time.map(|time| time.0),
        renewed: spec.renew_time.map(|time| time.0),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

fn spec(record: &Record) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: Some(i32::try_from(record.duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: record.acquired.map(MicroTime),
        renew_time: record.renewed.map(MicroTime),
        lease_transitions: Some(record.transitions),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use kube::client::Body;

    use super::*;

    type Log = Arc<Mutex<Vec<(Method, String, serde_json::Value)>>>;

    /// An API server that answers every request alike, and what it was sent.
    fn server(code: u16, body: &'static str) -> (KubeLease, Log) {
        let log = Log::default();
        let seen = Arc::clone(&log);
        let service = tower::service_fn(move |request: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                let (head, sent) = request.into_parts();
                let sent = sent.collect_bytes().await?;
                let sent = serde_json::from_slice(&sent).unwrap_or_default();
                seen.lock().unwrap().push((head.method, head.uri.path().to_owned(), sent));
                Ok::<_, Error>(Response::builder().status(code).body(Body::from(body.as_bytes().to_vec())).unwrap())
            }
        });
        (KubeLease::new(Client::new(service, "x"), "ns", "operator"), log)
    }

    const LEASE: &str = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease",
        "metadata":{"name":"operator","namespace":"ns","resourceVersion":"7","labels":{"who":"else"},"managedFields":[{"manager":"m"}]},
        "spec":{"holderIdentity":"a_1","leaseDurationSeconds":15,"acquireTime":"2026-01-02T03:04:05.000006Z","renewTime":"2026-01-02T03:04:06.000007Z","leaseTransitions":3}}"#;

    #[tokio::test]
    async fn a_lease_is_read_and_written_back_with_its_version_and_labels() {
        let (lease, log) = server(200, LEASE);
        let (record, version) = lease.read().await.unwrap().unwrap();
        assert_eq!((record.holder.as_str(), record.duration.as_secs(), record.transitions), ("a_1", 15, 3));
        lease.replace(&Record { holder: String::new(), ..record }, &version).await.unwrap();

        let log = log.lock().unwrap();
        let (method, path, sent) = &log[1];
        assert_eq!(
            (method, path.as_str()),
            (&Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/ns/leases/operator")
        );
        assert_eq!(sent["metadata"]["resourceVersion"], "7");
        assert_eq!(sent["metadata"]["labels"]["who"], "else");
        assert_eq!(sent["spec"]["holderIdentity"], "");
        assert_eq!(sent["spec"]["renewTime"], "2026-01-02T03:04:06.000007Z");
        assert!(sent["metadata"].get("managedFields").is_none());
    }

    #[tokio::test]
    async fn who_comes_second_gets_a_conflict() {
        for code in [409, 404] {
            let (lease, _) = server(code, r#"{"kind":"Status","status":"Failure","code":409,"reason":"Conflict"}"#);
            let record = record(LeaseSpec::default());
            assert_eq!(lease.replace(&record, &ObjectMeta::default()).await, Err(StoreError::Conflict));
            assert_eq!(lease.create(&record).await, Err(StoreError::Conflict));
        }
    }

    #[tokio::test]
    async fn a_missing_right_is_named() {
        let (lease, _) = server(
            403,
            r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"leases is forbidden"}"#,
        );
        let Err(StoreError::Failed(why)) = lease.read().await else { panic!("must fail") };
        assert!(why.starts_with("read Lease ns/operator: leases is forbidden (403); grant the right"), "{why}");
    }

    /// An API server whose Leases called `operator` are these: namespace and holder.
    fn leases(code: u16, held: &[(&str, &str)]) -> KubeLease {
        let item = |(namespace, holder): &(&str, &str)| serde_json::json!({"metadata": {"name": "operator", "namespace": namespace}, "spec": {"holderIdentity": holder}});
        let items: Vec<_> = held.iter().map(item).collect();
        let answer = serde_json::json!({"kind": "Status", "code": code, "metadata": {}, "items": items}).to_string();
        let service = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/apis/coordination.k8s.io/v1/leases");
            assert!(request.uri().query().is_some_and(|query| query.contains("metadata.name%3Doperator")));
            let answer = Response::builder().status(code).body(Body::from(answer.clone().into_bytes()));
            std::future::ready(Ok::<_, Error>(answer.unwrap()))
        });
        KubeLease::wherever_held(Client::new(service, "x"), "mine", "operator")
    }

    #[tokio::test]
    async fn who_comes_from_a_shell_stands_in_line_behind_the_operator_of_the_cluster() {
        for (held, namespace) in [
            (&[("system", "pod_1")][..], "system"),
            (&[("a", "pod_1"), ("mine", "pod_2")], "mine"),
            (&[("b", "pod_1"), ("a", "pod_2")], "a"),
            // Given back: nobody is there.
            (&[("system", "")], "mine"),
            (&[], "mine"),
        ] {
            let lease = leases(200, held);
            let clone = lease.clone();
            assert_eq!(lease.namespace().await, Ok(namespace), "{held:?}");
            assert_eq!(clone.place(), format!("{namespace}/operator"));
        }
        // Who may not look has the rights of a pod, whose namespace is known.
        assert_eq!(leases(403, &[]).namespace().await, Ok("mine"));
        assert!(matches!(leases(500, &[]).namespace().await, Err(StoreError::Failed(_))));
    }

    #[tokio::test]
    async fn no_lease_is_no_error() {
        let (lease, _) = server(404, r#"{"kind":"Status","status":"Failure","code":404,"reason":"NotFound"}"#);
        assert_eq!(lease.read().await.unwrap().map(|(record, _)| record), None);
    }
}
