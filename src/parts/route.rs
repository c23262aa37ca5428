//! What leads clients outside of the cluster to the Service: an Ingress, or a route of the Gateway API. It needs to know how the registry speaks, so it
//! waits for the first certificate. Nothing else of the registry hangs on it: its addresses are in certificate and logins whatever becomes of it.

use std::collections::BTreeSet;

use operator_engine::apply::{Live, Outcome};

use super::certificate::{Certificate, Serving};
use super::context::routed_host;
use super::{Keep, Pass};
use crate::api::{IngressController, PrivateRegistry, reason};
use crate::desired::kinds::{BACKEND_TLS_POLICY, HTTP_ROUTE, INGRESS, TLS_ROUTE};
use crate::desired::route::{self as desired, Backend};
use crate::model::{self, Child};
use crate::status::{self, Problem, Truth, route};

/// What the part gives back.
#[derive(Default)]
pub struct Route {
    /// What the status says; `None`: the manifest asks for nothing of that.
    pub report: Option<status::Route>,
    /// What must stay.
    pub keep: Keep,
}

/// Brings it to what is wanted.
pub async fn settle(pass: &Pass<'_>, certificate: &Certificate) -> Route {
    let registry = pass.registry;
    if let Some(blocked) = &registry.faults.route {
        return kept(pass, status::Route::failed(Problem::of(blocked)));
    }
    let Some(wanted) = &registry.route else { return Route::default() };
    let served = match &certificate.serving {
        Serving::Certificate(served) => Some(&**served),
        Serving::Nothing | Serving::Missing => None,
    };
    let Some(backend) = Backend::of(registry, wanted.hosts(), served) else {
        let why = "it is written when there is a certificate, see CertificateReady; what is there stays";
        return kept(pass, status::Route::said(Truth::False, reason::PROGRESSING, why));
    };
    let mut written = Vec::new();
    // No route goes without the policy before it, and what served before stays until both are there.
    for object in desired::build(registry, wanted, &backend) {
        let kind = object.kind;
        match pass.apply(object).await {
            Ok(applied) if applied.outcome == Outcome::Replacing => {
                let why = format!(
                    "the former {} {} is being deleted; it is made again when it is gone",
                    kind.kind, registry.name
                );
                return kept(pass, status::Route::failed(Problem::retrying(reason::BEING_DELETED, why)));
            }
            Ok(applied) => written.push((kind, applied.live)),
            Err(error) => {
                let mut problem = pass.problem(error);
                let is_bare = kind == BACKEND_TLS_POLICY && is_absent(pass).await;
                if is_bare {
                    let why = "the HTTPRoute is taken away meanwhile: without the policy a Gateway would send logins in plain text";
                    problem.message = format!("{}; {why}", problem.message);
                }
                let mut route = kept(pass, status::Route::failed(problem));
                if is_bare {
                    route.keep.remove(&pass.named(HTTP_ROUTE, Child::Route));
                }
                return route;
            }
        }
    }
    let objects: Vec<_> = written.iter().map(|(kind, live): &(_, Live)| (kind.kind, live.value())).collect();
    let mut report = route::judge(registry, wanted, &objects);
    if report.problem.is_none()
        && let Some(host) = taken(pass, wanted.hosts())
    {
        let why = format!(
            "{host} is a host of spec.route of another registry, too, which is older: proxies send clients to one of the two; take it out of one of them"
        );
        report = status::Route::said(Truth::False, reason::HOST_TAKEN, why);
    }
    if is_unverified(wanted, &backend) {
        let note = "the connection from the controller to the registry is encrypted but not verified, because ingress-nginx can verify it with a bundle only and there is none: spec.tls.secret has no ca.crt";
        report.finding.message = format!("{}; {note}", report.finding.message);
    }
    let keep = written.iter().map(|(kind, _)| pass.named(kind, Child::Route)).collect();
    Route { report: Some(report), keep }
}

/// Whether there is no policy, as far as that can be said.
async fn is_absent(pass: &Pass<'_>) -> bool {
    let name = pass.registry.name.child(Child::Route);
    matches!(pass.ctx.engine.read_child(&pass.owner, BACKEND_TLS_POLICY, &name).await, Ok(None))
}

/// What is there stays as it is.
fn kept(pass: &Pass<'_>, report: status::Route) -> Route {
    let all = [BACKEND_TLS_POLICY, HTTP_ROUTE, INGRESS, TLS_ROUTE];
    Route { report: Some(report), keep: all.map(|kind| pass.named(kind, Child::Route)).into() }
}

/// Whether annotations of ours make a controller speak TLS to whom it does not verify.
fn is_unverified(wanted: &model::Route, backend: &Backend) -> bool {
    let model::Route::Ingress(ingress) = wanted else { return false };
    ingress.controller == Some(IngressController::IngressNginx)
        && matches!(backend, Backend::Tls { has_bundle: false, .. })
}

/// The first of these hosts that another registry has, which was there first. Of two that were made in one second it is the first by name.
fn taken<'a>(pass: &Pass<'_>, hosts: &'a [String]) -> Option<&'a String> {
    let rank = |registry: &PrivateRegistry| {
        let meta = &registry.metadata;
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.namespace.clone(), meta.name.clone())
    };
    let is_taken = |host: &&String| {
        let (kind, namespace, name) = routed_host((*host).clone());
        let rivals = pass.ctx.references.to(kind, &namespace, &name);
        let rivals: BTreeSet<_> = rivals.into_iter().filter(|rival| rival != pass.key).collect();
        let mut rivals = rivals.iter().filter_map(|rival| pass.ctx.registries.get(rival));
        rivals.any(|rival| rival.metadata.deletion_timestamp.is_none() && rank(&rival) < rank(pass.manifest))
    };
    hosts.iter().find(is_taken)
}
