//! Checks of nodes: whether they trust the registry, and what their kubelets say of pulls from it. Pure.

use private_registry_operator::api::condition::NODES_TRUSTED;

use super::check::{Check, Group, Trouble, Verdict};
use super::facts::{Facts, Has, Pull};
use super::registry::{Weight, condition};
use super::words::{Known, known};

/// Pulls that are told.
const TOLD: usize = 5;

pub(super) static GROUP: Group<Facts> = Group {
    name: ", from nodes",
    checks: &[
        Check {
            id: "node-ready",
            title: "the node is ready",
            page: "troubleshooting.md#what-is-looked-at",
            needs: &["registry"],
            judge: ready,
        },
        Check {
            id: "node-platform",
            title: "the image is made for the node",
            page: "clients.md#pulling",
            needs: &["image"],
            judge: platform,
        },
        Check {
            id: "nodes-trust",
            title: "nodes trust it",
            page: "conditions.md#nodestrusted",
            needs: &["registry"],
            judge: trust,
        },
        Check {
            id: "pulls",
            title: "kubelets pull from it",
            page: "clients.md#what-goes-wrong-in-the-words-that-you-will-see",
            needs: &["registry"],
            judge: pulls,
        },
    ],
};

fn ready(facts: &Facts) -> Option<Verdict> {
    Some(match facts.node.as_ref()? {
        Ok(node) if node.is_ready => Verdict::good(format!("{}, {}, {}", node.name, node.platform, node.runtime)),
        Ok(node) => Verdict::failed(
            format!("{} is not: {}", node.name, node.message),
            format!("kubectl describe node {}", node.name),
        ),
        Err(why) => Verdict::skipped(format!("cannot be known: {why}")),
    })
}

fn platform(facts: &Facts) -> Option<Verdict> {
    let Some(Ok(node)) = &facts.node else { return None };
    let Some(Ok(Has::Image { platforms, .. })) = &facts.has else {
        return Some(Verdict::skipped("the image is not known"));
    };
    if platforms.is_empty() {
        return Some(Verdict::skipped("the image is of one platform, which its manifest does not say"));
    }
    // A variant is more than the node says of itself.
    let is_for = |platform: &String| *platform == node.platform || platform.starts_with(&format!("{}/", node.platform));
    Some(match platforms.iter().any(is_for) {
        true => Verdict::good(node.platform.as_str()),
        false => Verdict::failed(
            format!("it is for {}, and the node is {}", platforms.join(", "), node.platform),
            "build the image for this platform, too, or keep pods away from the node",
        ),
    })
}

fn trust(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    let status = facts.status();
    let Some(reach) = status.trust.as_ref().and_then(|trust| trust.nodes.as_ref()) else {
        // The condition is there before anything was counted.
        return Some(condition(facts, NODES_TRUSTED, Weight::Counts).unwrap_or_else(|| {
            Verdict::skipped("the operator tells nodes of no registry without spec.trust.nodes, so it does not know")
        }));
    };
    let Some(Ok(node)) = &facts.node else { return condition(facts, NODES_TRUSTED, Weight::Counts) };
    let own = reach.missing.iter().find_map(|missing| missing.strip_prefix(&node.name)?.strip_prefix(": "));
    Some(match own {
        Some(why) => {
            Verdict::Failed(Trouble::new(format!("{} does not: {why}", node.name), "").on("trust-on-nodes.md#messages"))
        }
        None if reach.trusting >= reach.wanted => Verdict::good(format!("{}, as all {}", node.name, reach.wanted)),
        // The first ten that lack it are named.
        None if reach.missing.len() < 10 => Verdict::warning(
            format!(
                "{} does; of {} nodes {} do: {}",
                node.name,
                reach.wanted,
                reach.trusting,
                reach.missing.join("; ")
            ),
            "",
        ),
        None => return condition(facts, NODES_TRUSTED, Weight::Counts),
    })
}

fn pulls(facts: &Facts) -> Option<Verdict> {
    let pulls = match &facts.pulls {
        Ok(pulls) => pulls,
        Err(why) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
    };
    let (over, now): (Vec<_>, Vec<_>) = pulls.iter().partition(|pull| pull.is_over);
    if now.is_empty() {
        return Some(Verdict::good(match over.len() {
            0 => "no pull is known to have failed".to_owned(),
            1 => "the one that failed is over".to_owned(),
            count => format!("the {count} that failed are over"),
        }));
    }
    let line = |pull: &&Pull| {
        let on = if pull.node.is_empty() { String::new() } else { format!(" on {}", pull.node) };
        format!("pod {}/{}{on}: {}", pull.namespace, pull.pod, pull.message)
    };
    let mut lines: Vec<_> = now.iter().take(TOLD).map(line).collect();
    if now.len() > TOLD {
        lines.push(format!("and {} more", now.len() - TOLD));
    }
    let mut causes: Vec<&Known> = Vec::new();
    for cause in now.iter().filter_map(|pull| known(&pull.message)) {
        if causes.iter().all(|told| told.cure != cause.cure) {
            causes.push(cause);
        }
    }
    let cure = match causes.is_empty() {
        true => "kubectl describe the pod: its events have all that the kubelet says".to_owned(),
        false => causes.iter().map(|known| known.cure).collect::<Vec<_>>().join("\n"),
    };
    Some(Verdict::Failed(Trouble { why: lines.join("\n"), cure, page: causes.first().map(|known| known.page) }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::check::{Looked, Missing, Outcome};
    use super::super::facts::testing::{condition, facts, registry};
    use super::*;

    fn of(id: &str, facts: &Facts) -> Option<Looked> {
        let section = GROUP.look("", facts, &mut Missing::default());
        section.checks.into_iter().find(|looked| looked.id == id)
    }

    fn told(wanted: i32, trusting: i32, missing: &[&str]) -> Facts {
        let status: Value = json!({
            "trust": {"nodes": {"wanted": wanted, "trusting": trusting, "missing": missing}},
            "conditions": [condition("NodesTrusted", if wanted == trusting { "True" } else { "False" }, "NotAllTold", "1 of 2")],
        });
        Facts { registry: Ok(registry(&json!({"trust": {"nodes": {}}}), &status)), ..facts() }
    }

    #[test]
    fn a_node_that_does_not_trust_the_registry_is_told_with_the_agents_words() {
        let refusing = told(2, 1, &["node-1: its runtime refuses the certificate although the files are there: x509"]);
        let looked = of("nodes-trust", &refusing).unwrap();
        assert_eq!(looked.outcome, Outcome::Failed);
        assert!(looked.seen.starts_with("node-1 does not: its runtime refuses the certificate"), "{}", looked.seen);
        assert_eq!(looked.page.as_deref(), Some("docs/trust-on-nodes.md#messages"));
        // Another node's fault is not this one's, and a name that begins alike is another node.
        let other = of("nodes-trust", &told(2, 1, &["node-10: is being proved by a pull"])).unwrap();
        assert_eq!(other.outcome, Outcome::Warning, "{other:?}");
        assert_eq!(of("nodes-trust", &told(2, 2, &[])).unwrap().outcome, Outcome::Good);
        let any = Facts { node: None, ..told(2, 1, &["node-10: is being proved by a pull"]) };
        assert_eq!(of("nodes-trust", &any).unwrap().outcome, Outcome::Failed);
        let nobody = of("nodes-trust", &facts()).unwrap();
        assert!(nobody.outcome == Outcome::Skipped && nobody.seen.contains("spec.trust.nodes"), "{nobody:?}");
    }

    #[test]
    fn pulls_that_fail_are_told_in_the_kubelets_words_with_the_cure_and_those_that_are_over_are_not() {
        let pull = |pod: &str, message: &str, is_over| Pull {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            node: "node-1".to_owned(),
            message: message.to_owned(),
            is_over,
        };
        let unknown = "Failed to pull image \"a/b\": x509: certificate signed by unknown authority";
        let pulls = vec![
            pull("web", unknown, false),
            pull("old", "Failed to pull image \"a/c\": not found", true),
            pull("api", unknown, false),
        ];
        let looked = of("pulls", &Facts { pulls: Ok(pulls.clone()), ..facts() }).unwrap();
        assert_eq!(looked.outcome, Outcome::Failed);
        assert_eq!(looked.seen, format!("pod shop/web on node-1: {unknown}\npod shop/api on node-1: {unknown}"));
        assert!(looked.cure.matches("spec.trust.nodes").count() == 1, "one cause, one cure: {}", looked.cure);
        assert_eq!(looked.page.as_deref(), Some("docs/clients.md#containerd-and-with-it-most-kubelets"));
        let over = of("pulls", &Facts { pulls: Ok(vec![pulls[1].clone()]), ..facts() }).unwrap();
        assert_eq!((over.outcome, over.seen.as_str()), (Outcome::Good, "the one that failed is over"));
        let new = of("pulls", &Facts { pulls: Ok(vec![pull("web", "something new", false)]), ..facts() }).unwrap();
        assert!(new.outcome == Outcome::Failed && new.cure.contains("kubectl describe"), "{new:?}");
    }

    #[test]
    fn a_node_that_is_not_ready_or_of_another_platform_is_told() {
        let mut facts = facts();
        assert_eq!(of("node-platform", &facts).unwrap().outcome, Outcome::Good);
        facts.has =
            Some(Ok(Has::Image { digest: "sha256:1".to_owned(), platforms: vec!["linux/arm64/v8".to_owned()] }));
        let looked = of("node-platform", &facts).unwrap();
        assert!(looked.outcome == Outcome::Failed && looked.seen.contains("it is for linux/arm64/v8"), "{looked:?}");
        let node = facts.node.as_mut().unwrap().as_mut().unwrap();
        node.platform = "linux/arm64".to_owned();
        (node.is_ready, node.message) = (false, "KubeletNotReady: no network".to_owned());
        assert_eq!(of("node-platform", &facts).unwrap().outcome, Outcome::Good, "a variant is the same platform");
        let looked = of("node-ready", &facts).unwrap();
        assert!(looked.outcome == Outcome::Failed && looked.seen.contains("KubeletNotReady: no network"), "{looked:?}");
        facts.node = None;
        assert!(of("node-ready", &facts).is_none() && of("node-platform", &facts).is_none());
    }
}
