//! Who else has been told which authorities to trust, or been given a login, in numbers and words. Pure.

use super::merge::{Finding, Truth};
use super::summary::Problem;
use crate::api::{CopiesStatus, ReachStatus, TrustStatus, condition, reason};

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

/// How what has come to others is called.
struct Kind {
    condition: &'static str,
    places: &'static str,
    /// What all of them have.
    what: &'static str,
    /// What is being done to more of them.
    more: &'static str,
    all: &'static str,
    not_all: &'static str,
}

const NAMESPACES: Kind = Kind {
    condition: condition::NAMESPACES_TRUSTED,
    places: "namespaces",
    what: "the bundle",
    more: "told",
    all: reason::TOLD,
    not_all: reason::NOT_ALL_TOLD,
};
const NODES: Kind = Kind { condition: condition::NODES_TRUSTED, places: "nodes", ..NAMESPACES };
const LOGINS: Kind = Kind {
    condition: condition::PULL_SECRETS_COPIED,
    what: "the login",
    more: "written",
    all: reason::WRITTEN,
    not_all: reason::NOT_ALL_WRITTEN,
    ..NAMESPACES
};

/// How far the bundle, or a login, has come.
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
        let namespaces = self.namespaces.iter().map(|reach| reach.finding(&NAMESPACES));
        let nodes = self.nodes.iter().map(|reach| reach.finding(&NODES));
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
    /// The condition about logins in other namespaces.
    pub(super) fn of_logins(&self) -> Finding {
        self.finding(&LOGINS)
    }

    /// What the status says of them.
    pub(super) fn copies(&self) -> CopiesStatus {
        let ReachStatus { wanted, trusting, missing } = self.status();
        CopiesStatus { wanted, copied: trusting, missing }
    }

    fn finding(&self, kind: &Kind) -> Finding {
        if let Some(Problem { reason, message, .. }) = self.fault.as_ref().or(self.problem.as_ref()) {
            return Finding::new(kind.condition, Truth::False, reason, message.clone());
        }
        let Kind { condition, places, what, more, all, not_all } = *kind;
        let count = format!("{} of {} {places}", self.trusting(), self.wanted);
        if self.is_unfinished {
            let named = self.named().into_iter().map(|named| format!("; {named}")).collect::<String>();
            let words = format!("{count}; more are being {more}{named}");
            return Finding::new(condition, Truth::False, reason::PROGRESSING, words);
        }
        if self.wanted == 0 {
            return Finding::new(condition, Truth::True, all, format!("none of the {places} is meant"));
        }
        if self.lacking == 0 {
            let note = self.note.map(|note| format!("; {note}")).unwrap_or_default();
            return Finding::new(condition, Truth::True, all, format!("{count} have {what}{note}"));
        }
        Finding::new(condition, Truth::False, not_all, format!("{count}; {}", self.named().join("; ")))
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
    fn a_login_that_has_come_everywhere_is_said_in_words_of_its_own() {
        let said = |reach: &Reach| {
            let finding = reach.of_logins();
            (finding.kind, finding.status, finding.reason, finding.message)
        };
        let words = |text: &str| text.to_owned();
        let kind = "PullSecretsCopied";
        let all = (kind, Truth::True, words("Written"), words("2 of 2 namespaces have the login"));
        assert_eq!(said(&reach(2, 0)), all);
        let some = (kind, Truth::False, words("NotAllWritten"), words("1 of 2 namespaces; team-0: is not ours"));
        assert_eq!(said(&reach(2, 1)), some);
        assert_eq!((reach(2, 1).copies().wanted, reach(2, 1).copies().copied), (2, 1));
    }

    #[test]
    fn nothing_is_said_of_what_the_manifest_does_not_ask_for() {
        assert_eq!(Trust::default().findings().count(), 0);
        assert_eq!(Trust::default().status(), None);
    }
}
