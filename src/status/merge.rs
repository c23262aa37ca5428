//! Setting, keeping and flipping conditions, after the API conventions: `lastTransitionTime` moves only when the status flips.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Truth {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Nobody can say.
    Unknown,
}

impl From<bool> for Truth {
    fn from(yes: bool) -> Self {
        if yes { Self::True } else { Self::False }
    }
}

/// What one condition should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its type.
    pub kind: &'static str,
    /// Its status.
    pub status: Truth,
    /// One CamelCase word.
    pub reason: String,
    /// Names the object and the next action.
    pub message: String,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(kind: &'static str, status: impl Into<Truth>, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status: status.into(), reason: reason.to_owned(), message: message.into() }
    }
}

/// The conditions that `findings` make of those that stood before. Types that nobody speaks of any more go.
#[must_use]
pub fn merge(before: &[Condition], findings: Vec<Finding>, generation: i64, now: Timestamp) -> Vec<Condition> {
    let now = whole_seconds(now);
    findings
        .into_iter()
        .map(|finding| {
            let status = finding.status.to_string();
            let since = before
                .iter()
                .find(|condition| condition.type_ == finding.kind && condition.status == status)
                .map_or(Time(now), |condition| condition.last_transition_time.clone());
            Condition {
                type_: finding.kind.to_owned(),
                status,
                reason: finding.reason,
                message: finding.message,
                last_transition_time: since,
                observed_generation: Some(generation),
            }
        })
        .collect()
}

/// A time as status holds it: a finer one would differ from what the server returns, at every pass.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_when_the_status_flips() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let said = |status: bool, reason| vec![Finding::new("Ready", status, reason, "")];
        let first = merge(&[], said(false, "A"), 1, at(10));
        let same = merge(&first, said(false, "B"), 2, at(20));
        assert_eq!(same[0].last_transition_time, Time(at(10)));
        assert_eq!((same[0].reason.as_str(), same[0].observed_generation), ("B", Some(2)));
        let flipped = merge(&same, said(true, "C"), 2, at(30));
        assert_eq!(flipped[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_feature_that_is_gone_takes_its_condition_along() {
        let before = merge(&[], vec![Finding::new("CertificateReady", true, "A", "")], 1, Timestamp::UNIX_EPOCH);
        assert!(merge(&before, vec![], 1, Timestamp::UNIX_EPOCH).is_empty());
    }
}
