//! Who has been told which authorities to trust, in numbers and words. Pure.

use super::merge::{Finding, Truth};
use super::summary::Problem;
use crate::api::{ReachStatus, TrustStatus, condition, reason};

/// Places that are named at most, in status and condition.
const NAMED: usize = 10;

/// Who has been told.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Namespaces; `None`: the manifest asks for none.
    pub namespaces: Option<Reach>,
    /// Pods of every namespace, likewise.
    pub cluster: Option<Cluster>,
    /// Nodes, likewise.
    pub nodes: Option<Reach>,
}

/// Whether pods of every namespace can mount the bundle.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Name of the object that they mount.
    pub object: String,
    /// Why they cannot, or not as it should be.
    pub problem: Option<Problem>,
}

/// How far the bundle has come.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Places that should have it.
    pub wanted: usize,
    /// How many of them lack it.
    pub lacking: usize,
    /// The first of those, and why.
    pub missing: Vec<(String, String)>,
    /// Whether more of them will be told in the next pass.
    pub is_unfinished: bool,
    /// Why some or all are not told.
    pub problem: Option<Problem>,
    /// What of the manifest cannot be followed.
    pub fault: Option<Problem>,
    /// What is worth knowing when all is well.
    pub note: Option<&'static str>,
}

impl Trust {
    /// What of the manifest cannot be followed: that is not for others to put right, so the registry is not ready.
    pub(super) fn faults(&self) -> impl Iterator<Item = &Problem> {
        [&self.namespaces, &self.nodes].into_iter().flatten().filter_map(|reach| reach.fault.as_ref())
    }

    /// Conditions, of what the manifest asks for.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let namespaces = self.namespaces.iter().map(|reach| reach.finding(condition::NAMESPACES_TRUSTED, "namespaces"));
        let nodes = self.nodes.iter().map(|reach| reach.finding(condition::NODES_TRUSTED, "nodes"));
        namespaces.chain(self.cluster.iter().map(Cluster::finding)).chain(nodes)
    }

    /// What the status says.
    pub(super) fn status(&self) -> Option<TrustStatus> {
        let [namespaces, nodes] = [&self.namespaces, &self.nodes].map(|reach| reach.as_ref().map(Reach::status));
        let cluster_trust_bundle =
            self.cluster.as_ref().filter(|cluster| cluster.problem.is_none()).map(|cluster| cluster.object.clone());
        let told = TrustStatus { namespaces, cluster_trust_bundle, nodes };
        (told != TrustStatus::default()).then_some(told)
    }
}

impl Cluster {
    fn finding(&self) -> Finding {
        match &self.problem {
            Some(Problem { reason, message, .. }) => {
                Finding::new(condition::CLUSTER_TRUSTED, Truth::False, reason, message.clone())
            }
            None => {
                let words =
                    format!("ClusterTrustBundle {} has the bundle: pods of every namespace can mount it", self.object);
                Finding::new(condition::CLUSTER_TRUSTED, Truth::True, reason::TOLD, words)
            }
        }
    }
}

impl Reach {
    fn finding(&self, kind: &'static str, places: &str) -> Finding {
        if let Some(Problem { reason, message, .. }) = self.fault.as_ref().or(self.problem.as_ref()) {
            return Finding::new(kind, Truth::False, reason, message.clone());
        }
        let count = format!("{} of {} {places}", self.trusting(), self.wanted);
        if self.is_unfinished {
            let named = self.named().into_iter().map(|named| format!("; {named}")).collect::<String>();
            return Finding::new(
                kind,
                Truth::False,
                reason::PROGRESSING,
                format!("{count}; more are being told{named}"),
            );
        }
        if self.wanted == 0 {
            return Finding::new(kind, Truth::True, reason::TOLD, format!("none of the {places} is meant"));
        }
        if self.lacking == 0 {
            let note = self.note.map(|note| format!("; {note}")).unwrap_or_default();
            return Finding::new(kind, Truth::True, reason::TOLD, format!("{count} have the bundle{note}"));
        }
        Finding::new(kind, Truth::False, reason::NOT_ALL_TOLD, format!("{count}; {}", self.named().join("; ")))
    }

    fn status(&self) -> ReachStatus {
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        ReachStatus { wanted: number(self.wanted), trusting: number(self.trusting()), missing: self.named() }
    }

    fn trusting(&self) -> usize {
        self.wanted.saturating_sub(self.lacking)
    }

    /// The first of those that lack it, each with its reason.
    fn named(&self) -> Vec<String> {
        let named = self.missing.iter().take(NAMED).map(|(place, why)| format!("{place}: {why}"));
        let more = self.lacking.saturating_sub(self.missing.len().min(NAMED));
        named.chain((more > 0).then(|| format!("and {more} more"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(wanted: usize, missing: usize) -> Reach {
        let named = (0..missing).map(|number| (format!("team-{number}"), "is not ours".to_owned())).collect();
        Reach { wanted, lacking: missing, missing: named, ..Reach::default() }
    }

    fn said(reach: Reach) -> (Truth, String, String) {
        let trust = Trust { namespaces: Some(reach), ..Trust::default() };
        let finding = trust.findings().next().unwrap();
        (finding.status, finding.reason, finding.message)
    }

    #[test]
    fn who_lacks_the_bundle_is_counted_and_the_first_are_named() {
        let (status, reason, message) = said(reach(18, 0));
        assert_eq!(
            (status, reason.as_str(), message.as_str()),
            (Truth::True, "Told", "18 of 18 namespaces have the bundle")
        );
        let (status, reason, message) = said(reach(18, 1));
        assert_eq!((status, reason.as_str()), (Truth::False, "NotAllTold"));
        assert_eq!(message, "17 of 18 namespaces; team-0: is not ours");
        let many = reach(400, 300);
        assert_eq!(many.status().missing.len(), 11);
        assert!(said(many).2.ends_with("team-9: is not ours; and 290 more"));
    }

    #[test]
    fn nothing_is_said_of_what_the_manifest_does_not_ask_for() {
        assert_eq!(Trust::default().findings().count(), 0);
        assert_eq!(Trust::default().status(), None);
    }
}
