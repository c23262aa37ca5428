//! What the operator counts of registries, beside what the loop and the process count of themselves ([`operator_engine::metrics`]).
//!
//! The expiry of certificates has a series per registry, which is removed together with it: the only labels that come from input.

use std::sync::Arc;

use operator_engine::Program;
use operator_engine::metrics::Metrics as EngineMetrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByRegistry {
    namespace: String,
    name: String,
}

/// What the operator counts of registries. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registries: Gauge,
    certificate_not_after: Family<ByRegistry, Gauge>,
}

impl Metrics {
    /// All metrics of a process at zero: those of registries, and those of the engine, on one page.
    #[must_use]
    pub fn new(program: &Program) -> (Self, Arc<EngineMetrics>) {
        let own = Self::default();
        let all = EngineMetrics::new(program, |registry| own.register(registry));
        (own, all)
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("registries", "Registries known to this process", self.registries.clone());
        registry.register_with_unit(
            "registry_certificate_not_after_timestamp",
            "When the registry's serving certificate expires, in seconds since 1970",
            Unit::Seconds,
            self.certificate_not_after.clone(),
        );
    }

    /// How many registries are known.
    pub fn set_registries(&self, count: usize) {
        self.registries.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// When a registry's serving certificate expires, in seconds since 1970.
    pub fn set_certificate_not_after(&self, namespace: &str, name: &str, seconds_since_epoch: i64) {
        self.certificate_not_after.get_or_create(&of(namespace, name)).set(seconds_since_epoch);
    }

    /// The registry is gone, or has no certificate any more: its series goes too.
    pub fn forget_certificate(&self, namespace: &str, name: &str) {
        self.certificate_not_after.remove(&of(namespace, name));
    }
}

fn of(namespace: &str, name: &str) -> ByRegistry {
    ByRegistry { namespace: namespace.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::PROGRAM;

    #[test]
    fn every_metric_has_a_help_text_the_prefix_and_a_row_in_the_documentation() {
        let (own, all) = Metrics::new(&PROGRAM);
        all.reconciled("settled", Duration::from_millis(3));
        all.api_request("get", "Secret", "2xx", Duration::from_millis(3));
        all.wrote("Service", "created");
        all.reconcile_failed("NotOurs");
        all.watch_delivered("Secret", Duration::ZERO);
        own.set_certificate_not_after("team", "a", 1);
        let text = all.encode();
        let page = include_str!("../docs/operations.md");
        let mut described = 0;
        for line in text.lines().filter(|l| *l != "# EOF") {
            let name = line.strip_prefix("# ").and_then(|l| l.split(' ').nth(1)).unwrap_or(line);
            assert!(name.starts_with("private_registry_operator_"), "{line}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a name and words");
                assert!(words.len() > 10, "{line}");
                let row = format!("| `{}", name.trim_start_matches("private_registry_operator_"));
                assert!(page.contains(&row), "{name} is not in docs/operations.md");
                described += 1;
            }
        }
        assert_eq!(described, 16, "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_registry_that_is_gone_leaves_no_series() {
        let (own, all) = Metrics::new(&PROGRAM);
        own.set_certificate_not_after("team", "a", 1_700_000_000);
        own.set_certificate_not_after("team", "b", 1_700_000_000);
        own.forget_certificate("team", "a");
        let text = all.encode();
        assert!(!text.contains(r#"name="a""#), "{text}");
        assert!(text.contains(
            r#"private_registry_operator_registry_certificate_not_after_timestamp_seconds{namespace="team",name="b"} 1700000000"#
        ));
    }
}
