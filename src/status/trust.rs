//! Who has been told which authorities to trust, in numbers and words. Pure.

use super::merge::{Finding, Truth};
use super::summary::Problem;
use crate::api::{ReachStatus, TrustStatus, condition, reason};

/// Places that are named at most, in status and condition.
const NAMED: usize = 10;

/// Who has been told.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// What of the manifest could not be followed.
    pub fault: Option<Problem>,
    /// Namespaces; `None`: the manifest asks for none.
    pub namespaces: Option<Reach>,
}

/// How far the bundle has come.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Places that should have it.
    pub wanted: usize,
    /// Those that lack it, and why.
    pub missing: Vec<(String, String)>,
    /// Whether more of them will be told in the next pass.
    pub is_unfinished: bool,
    /// Why none is told: reason and words.
    pub problem: Option<(&'static str, String)>,
}

impl Trust {
    /// Conditions, of what the manifest asks for.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        let reach = self.namespaces.iter().map(|reach| reach.finding(condition::NAMESPACES_TRUSTED, "namespaces"));
        let fault = self.fault.iter().map(|fault| {
            Finding::new(condition::NAMESPACES_TRUSTED, Truth::False, &fault.reason, fault.message.clone())
        });
        fault.chain(reach)
    }

    /// What the status says.
    pub(super) fn status(&self) -> Option<TrustStatus> {
        self.namespaces.as_ref().map(|reach| TrustStatus { namespaces: Some(reach.status()) })
    }
}

impl Reach {
    fn finding(&self, kind: &'static str, places: &str) -> Finding {
        if let Some((reason, words)) = &self.problem {
            return Finding::new(kind, Truth::False, reason, words.clone());
        }
        let trusting = self.trusting();
        let count = format!("{trusting} of {} {places}", self.wanted);
        if self.is_unfinished {
            return Finding::new(kind, Truth::False, reason::PROGRESSING, format!("{count}; more are being told"));
        }
        if self.missing.is_empty() {
            return Finding::new(kind, Truth::True, reason::TOLD, format!("{count} have the bundle"));
        }
        Finding::new(kind, Truth::False, reason::NOT_ALL_TOLD, format!("{count}; {}", self.named().join("; ")))
    }

    fn status(&self) -> ReachStatus {
        let number = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        ReachStatus { wanted: number(self.wanted), trusting: number(self.trusting()), missing: self.named() }
    }

    fn trusting(&self) -> usize {
        self.wanted.saturating_sub(self.missing.len())
    }

    /// The first of those that lack it, each with its reason.
    fn named(&self) -> Vec<String> {
        let named = self.missing.iter().take(NAMED).map(|(place, why)| format!("{place}: {why}"));
        let more = self.missing.len().saturating_sub(NAMED);
        named.chain((more > 0).then(|| format!("and {more} more"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(wanted: usize, missing: usize) -> Reach {
        let missing = (0..missing).map(|number| (format!("team-{number}"), "is not ours".to_owned())).collect();
        Reach { wanted, missing, ..Reach::default() }
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
