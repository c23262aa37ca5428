//! What is said of the Ingress or the route of a Gateway: what keeps it from being as wanted, and what its controller makes of it. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::merge::{Finding, Truth};
use super::summary::Problem;
use crate::api::{GatewayRef, condition, reason};
use crate::desired::kinds;
use crate::model::Resolved;
use crate::model::route::{Gateway, Route as Wanted};

/// Of a controller's words so many characters are told: they may be of any length.
const WORDS_AT_MOST: usize = 300;

/// Kind of what a Gateway's TLS to the registry is verified by.
const POLICY: &str = kinds::BACKEND_TLS_POLICY.kind;

/// The route, as the pass found it.
#[derive(Debug, Clone)]
pub struct Route {
    /// What keeps it from being as wanted, or that its controller refuses it.
    pub problem: Option<Problem>,
    /// What else is said of it. The registry is ready all the same.
    pub finding: Finding,
}

impl Route {
    /// Of one that is not as wanted.
    #[must_use]
    pub fn failed(problem: Problem) -> Self {
        let finding = say(Truth::False, &problem.reason, problem.message.clone());
        Self { problem: Some(problem), finding }
    }

    /// Of one of which there is something to say.
    pub fn said(status: Truth, reason: &str, message: impl Into<String>) -> Self {
        Self { problem: None, finding: say(status, reason, message.into()) }
    }
}

fn say(status: Truth, reason: &str, message: String) -> Finding {
    Finding::new(condition::ROUTE_READY, status, reason, message)
}

/// What the objects' controllers say of them; each stands there as its kind and itself.
#[must_use]
pub fn judge(registry: &Resolved, wanted: &Wanted, objects: &[(&str, &Value)]) -> Route {
    match wanted {
        Wanted::Ingress(_) => ingress(registry, objects),
        Wanted::Gateway(gateway) => routed(registry, gateway, objects),
    }
}

/// A controller may take an Ingress and never say so.
fn ingress(registry: &Resolved, objects: &[(&str, &Value)]) -> Route {
    let points = objects.iter().filter_map(|(_, live)| live.pointer("/status/loadBalancer/ingress")?.as_array());
    let addresses: Vec<_> =
        points.flatten().filter_map(|point| point["hostname"].as_str().or_else(|| point["ip"].as_str())).collect();
    let name = &registry.name;
    if addresses.is_empty() {
        let message = format!(
            "Ingress {name} is written; no controller has given it an address, which some never do: see kubectl describe ingress {name}"
        );
        return Route::said(Truth::Unknown, reason::NOT_TAKEN, message);
    }
    let message = format!("Ingress {name} is taken; its controller's address is {}", brief(&addresses.join(", ")));
    Route::said(Truth::True, reason::TAKEN, message)
}

/// What a Gateway's controller said last of one object for one Gateway.
struct Word {
    /// Which object for which Gateway.
    place: String,
    /// What is said against it.
    refusals: Vec<String>,
    /// Whether somebody has taken it.
    is_taken: bool,
}

fn routed(registry: &Resolved, gateway: &Gateway, objects: &[(&str, &Value)]) -> Route {
    let words: Vec<_> = objects.iter().flat_map(|(kind, live)| words(registry, gateway, kind, live)).collect();
    let refusals: Vec<_> = words
        .iter()
        .flat_map(|word| word.refusals.iter().map(move |refusal| format!("{} {refusal}", word.place)))
        .collect();
    if !refusals.is_empty() {
        let message = format!(
            "{}; correct spec.route.gateway, or the Gateway, which must have a listener for these hosts and allow routes of this namespace",
            brief(&refusals.join("; "))
        );
        return Route::failed(Problem::retrying(reason::ROUTE_REFUSED, message));
    }
    let open: Vec<_> = words.iter().filter(|word| !word.is_taken).map(|word| word.place.as_str()).collect();
    if !open.is_empty() {
        let message =
            format!("no controller has taken {} yet; is there a Gateway of this name?", brief(&open.join(", ")));
        return Route::said(Truth::Unknown, reason::NOT_TAKEN, message);
    }
    let places: Vec<_> = words.iter().map(|word| word.place.as_str()).collect();
    Route::said(Truth::True, reason::TAKEN, format!("taken: {}", brief(&places.join(", "))))
}

/// One for each Gateway of the manifest. What others say, for Gateways that it does not name, is not about it.
fn words(registry: &Resolved, gateway: &Gateway, kind: &str, live: &Value) -> Vec<Word> {
    let list = |pointer: &str| live.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let generation = live["metadata"]["generation"].as_i64();
    let name = &registry.name;
    if kind == POLICY {
        let of_gateway = |(namespace, gateway): (&str, &str)| {
            let is_it = |said: &&Value| {
                let told = &said["ancestorRef"];
                told["name"] == gateway && told["namespace"].as_str().unwrap_or(&registry.namespace) == namespace
            };
            let said: Vec<_> = list("/status/ancestors").iter().filter(is_it).collect();
            word(format!("{kind} {name} (Gateway {namespace}/{gateway})"), &said, generation)
        };
        // A policy is for a Gateway as a whole, whatever listeners the route names.
        let gateways: BTreeSet<_> = gateway
            .parents
            .iter()
            .map(|parent| (parent.namespace.as_deref().unwrap_or(&registry.namespace), parent.name.as_str()))
            .collect();
        return gateways.into_iter().map(of_gateway).collect();
    }
    let of_parent = |parent: &GatewayRef| {
        let is_it = |said: &&Value| is_parent(&said["parentRef"], parent, &registry.namespace);
        let said: Vec<_> = list("/status/parents").iter().filter(is_it).collect();
        let at = parent.section_name.as_ref().map(|listener| format!(", listener {listener}")).unwrap_or_default();
        let namespace = parent.namespace.as_ref().unwrap_or(&registry.namespace);
        word(format!("{kind} {name} (Gateway {namespace}/{}{at})", parent.name), &said, generation)
    };
    gateway.parents.iter().map(of_parent).collect()
}

/// What was said of an older version of the object does not count.
fn word(place: String, said: &[&Value], generation: Option<i64>) -> Word {
    let is_current = |condition: &&Value| {
        condition["observedGeneration"].as_i64().is_none_or(|seen| generation.is_none_or(|now| seen >= now))
    };
    let conditions: Vec<_> =
        said.iter().filter_map(|said| said["conditions"].as_array()).flatten().filter(is_current).collect();
    let says = |condition: &Value, kind: &str, status: &str| condition["type"] == kind && condition["status"] == status;
    let against = conditions
        .iter()
        .filter(|condition| says(condition, "Accepted", "False") || says(condition, "ResolvedRefs", "False"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let refusals = against
        .map(|condition| format!("is refused with {}: {}", text(&condition["reason"]), text(&condition["message"])))
        .collect();
    let is_taken = conditions.iter().any(|condition| says(condition, "Accepted", "True"));
    Word { place, refusals, is_taken }
}

/// Whether a status speaks of this Gateway.
fn is_parent(told: &Value, wanted: &GatewayRef, home: &str) -> bool {
    told["name"] == wanted.name.as_str()
        && told["namespace"].as_str().unwrap_or(home) == wanted.namespace.as_deref().unwrap_or(home)
        && told["sectionName"].as_str() == wanted.section_name.as_deref()
        && told["port"].as_i64() == wanted.port.map(i64::from)
}

fn brief(words: &str) -> String {
    match words.char_indices().nth(WORDS_AT_MOST) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PrivateRegistry;
    use crate::model::{Observed, Settings, resolve};

    fn registry(route: &Value) -> Resolved {
        let registry: PrivateRegistry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries"}, "spec": {"route": route},
        }))
        .unwrap();
        resolve(&registry, &Observed::default(), &Settings::default()).unwrap()
    }

    fn judged(route: &Value, objects: &[(&str, &Value)]) -> (Truth, String, String, bool) {
        let registry = registry(route);
        let Route { problem, finding } = judge(&registry, registry.route.as_ref().unwrap(), objects);
        (finding.status, finding.reason, finding.message, problem.is_some())
    }

    fn parent(name: &str, conditions: &Value) -> Value {
        json!({"parentRef": {"name": name, "namespace": "infra"}, "controllerName": "example.com/c", "conditions": conditions})
    }

    fn condition(kind: &str, status: &str, seen: i64) -> Value {
        json!({"type": kind, "status": status, "reason": "Why", "message": "because", "observedGeneration": seen})
    }

    #[test]
    fn an_ingress_without_an_address_is_no_fault() {
        let asked = json!({"ingress": {"hosts": ["a.example"]}});
        let (status, reason, message, blocks) = judged(&asked, &[("Ingress", &json!({}))]);
        assert_eq!((status, reason.as_str(), blocks), (Truth::Unknown, "NotTaken", false));
        assert!(message.contains("kubectl describe ingress team-a"), "{message}");
        let taken = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"hostname": "lb.example"}]}}});
        let (status, reason, message, blocks) = judged(&asked, &[("Ingress", &taken)]);
        assert_eq!((status, reason.as_str(), blocks), (Truth::True, "Taken", false));
        assert!(message.ends_with("192.0.2.7, lb.example"), "{message}");
    }

    #[test]
    fn what_controllers_say_counts_for_each_gateway_and_for_this_version_only() {
        let asked = json!({"gateway": {
            "hosts": ["a.example"],
            "parentRefs": [{"name": "inner", "namespace": "infra"}, {"name": "outer", "namespace": "infra"}],
        }});
        let yes = || json!([condition("Accepted", "True", 2), condition("ResolvedRefs", "True", 2)]);
        let route = |parents: Value| json!({"metadata": {"generation": 2}, "status": {"parents": parents}});
        let of = |gateway: &str, conditions: &Value| json!({"ancestorRef": {"name": gateway, "namespace": "infra"}, "conditions": conditions});
        let told = |ancestors: Value| json!({"metadata": {"generation": 2}, "status": {"ancestors": ancestors}});
        let policy = |conditions: Value| told(json!([of("inner", &conditions), of("outer", &conditions)]));
        let both = || route(json!([parent("inner", &yes()), parent("outer", &yes())]));
        let no = |kind| json!([condition("Accepted", "True", 2), condition(kind, "False", 2)]);
        for (route, policy, status, reason, words, blocks) in [
            (both(), policy(yes()), Truth::True, "Taken", "Gateway infra/outer", false),
            (route(json!([parent("inner", &yes())])), policy(yes()), Truth::Unknown, "NotTaken", "infra/outer", false),
            (route(json!([])), policy(yes()), Truth::Unknown, "NotTaken", "infra/inner", false),
            // A controller that does not know the policy would speak plain text.
            (both(), json!({}), Truth::Unknown, "NotTaken", "BackendTLSPolicy team-a", false),
            // Nor does it help, or harm, what somebody says for another Gateway.
            (
                both(),
                told(json!([of("else", &yes()), of("inner", &yes())])),
                Truth::Unknown,
                "NotTaken",
                "infra/outer",
                false,
            ),
            (
                both(),
                told(json!([of("else", &no("Accepted")), of("inner", &yes()), of("outer", &yes())])),
                Truth::True,
                "Taken",
                "BackendTLSPolicy team-a (Gateway infra/outer)",
                false,
            ),
            (both(), policy(no("Accepted")), Truth::False, "RouteRefused", "BackendTLSPolicy team-a", true),
            (
                route(json!([parent("inner", &no("ResolvedRefs")), parent("outer", &yes())])),
                policy(yes()),
                Truth::False,
                "RouteRefused",
                "Gateway infra/inner) is refused with Why: because",
                true,
            ),
            // Of an older version, and of a Gateway that is named no more.
            (
                route(json!([
                    parent("inner", &json!([condition("Accepted", "False", 1)])),
                    parent("outer", &yes()),
                    parent("former", &no("Accepted")),
                ])),
                policy(yes()),
                Truth::Unknown,
                "NotTaken",
                "infra/inner",
                false,
            ),
        ] {
            let found = judged(&asked, &[("BackendTLSPolicy", &policy), ("HTTPRoute", &route)]);
            assert_eq!((found.0, found.1.as_str(), found.3), (status, reason, blocks), "{}", found.2);
            assert!(found.2.contains(words), "{}", found.2);
        }
    }

    #[test]
    fn a_controller_that_talks_for_ever_is_cut_short() {
        let asked = json!({"gateway": {"hosts": ["a.example"], "parentRefs": [{"name": "g", "namespace": "infra"}]}});
        let endless = json!([{"type": "Accepted", "status": "False", "reason": "Why", "message": "ä".repeat(100_000)}]);
        let route = json!({"status": {"parents": [parent("g", &endless)]}});
        let (.., message, _) = judged(&asked, &[("HTTPRoute", &route)]);
        assert!(message.chars().count() < 600, "{}", message.chars().count());
    }
}
