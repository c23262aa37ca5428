//! The orders, as the API server shows them. Nothing is known before the first complete list, and nothing is forgotten because the API server is
//! away: what a node trusts does not hang on that.

use std::collections::BTreeMap;
use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use operator_engine::process::api_error::explain;
use operator_engine::process::health::{Health, State};
use tokio::sync::watch;
use tracing::warn;

use super::orders::{self, Orders, Refused};
use super::trust_files::Owner;

/// Latch of readiness.
const ORDERS: &str = "orders";
/// The server ends a watch after this time. Below what load balancers take for idle.
const WATCH_SECONDS: u32 = 200;
/// Orders in a page of a list: they are small, but whoever may write them decides how small.
const PAGE: u32 = 25;

/// Follows the orders of a namespace for ever; `known` is `None` until all are.
pub(super) async fn follow(client: Client, namespace: &str, health: &Health, known: &watch::Sender<Option<Orders>>) {
    health.set(ORDERS, State::Waiting("first list".to_owned()));
    let api = Api::<ConfigMap>::namespaced(client, namespace);
    let config = watcher::Config::default().labels(&orders::selector()).timeout(WATCH_SECONDS).page_size(PAGE);
    let mut stream = pin!(kube::runtime::watcher(api, config).default_backoff());
    let mut listed = Orders::new();
    let mut complaint = String::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed = Orders::new(),
            Ok(Event::InitApply(object)) => take(&mut listed, &object),
            Ok(Event::InitDone) => {
                health.set(ORDERS, State::Ok);
                complaint.clear();
                let all = std::mem::take(&mut listed);
                known.send_if_modified(|known| {
                    let is_new = known.as_ref() != Some(&all);
                    *known = Some(all);
                    is_new
                });
            }
            Ok(Event::Apply(object)) => change(known, |orders| take(orders, &object)),
            Ok(Event::Delete(object)) => change(known, |orders| {
                owner(&object).map(|owner| orders.remove(&owner));
            }),
            Err(error) => {
                let words = format!("orders in {namespace} cannot be watched: {}", told(&error));
                if words != complaint {
                    warn!("{words}");
                }
                if known.borrow().is_none() {
                    health.set(ORDERS, State::Failed(words.clone()));
                }
                complaint = words;
            }
        }
    }
}

fn change(known: &watch::Sender<Option<Orders>>, change: impl FnOnce(&mut Orders)) {
    known.send_modify(|known| change(known.get_or_insert_default()));
}

fn take(orders: &mut Orders, object: &ConfigMap) {
    let Some(owner) = owner(object) else {
        warn!(name = object.metadata.name, "this ConfigMap has an order's label and not its name; it is not heeded");
        return;
    };
    let order = orders::read(&owner, object.data.as_ref().unwrap_or(&BTreeMap::new()));
    orders.insert(owner, order);
}

fn owner(object: &ConfigMap) -> Option<Owner> {
    orders::owner(object.metadata.name.as_deref()?)
}

/// The orders that are followed: so many that their report fits into one object. The others are refused, and keep what they have.
pub(super) fn limited(mut all: Orders) -> Orders {
    let most = orders::MOST_ORDERS;
    for order in all.values_mut().skip(most) {
        let bundle = match &order {
            Ok(order) => order.bundle.clone(),
            Err(refused) => refused.bundle.clone(),
        };
        let why = format!(
            "a node follows the orders of {most} registries, and there are more: take spec.trust.nodes out of others"
        );
        *order = Err(Refused { bundle, why });
    }
    all
}

fn told(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => explain(source),
        watcher::Error::WatchError(status) => explain(&kube::Error::Api(status.clone())),
        watcher::Error::NoResourceVersion => "the API server's answer has no resource version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::orders::testing;
    use super::*;

    #[test]
    fn orders_beyond_the_limit_are_refused_and_told() {
        let order = |n: usize| {
            let name = format!("registries/r{n:04}");
            let order = testing::order(&name, &[("a.example", "a.example")]);
            (Owner::parse(&name).unwrap(), Ok(order))
        };
        let all = limited((0..orders::MOST_ORDERS + 2).map(order).collect());
        let refused: Vec<_> =
            all.iter().filter(|(_, order)| order.is_err()).map(|(owner, _)| owner.to_string()).collect();
        assert_eq!(refused, ["registries/r1000", "registries/r1001"]);
        assert!(matches!(all.values().last(), Some(Err(Refused { bundle, .. })) if bundle == "ab12"));
    }
}
