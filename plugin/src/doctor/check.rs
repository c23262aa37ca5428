//! What a check is, and in which order checks hang on each other. Pure: what was found out is given, nothing is asked.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was found out, or in words why not.
pub(crate) type Found<T> = Result<T, String>;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Good,
    /// It could not be known, or does not matter here.
    Skipped,
    /// Worth knowing; nobody is kept from pulling.
    Warning,
    Failed,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// With what was seen; may be empty.
    Good(String),
    /// In words why.
    Skipped(String),
    Warning(Trouble),
    Failed(Trouble),
}

/// What is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What was seen.
    pub(super) why: String,
    /// What to do next. Empty where `why` says it, as the operator's own words do.
    pub(super) cure: String,
    /// A better page than that of the check.
    pub(super) page: Option<&'static str>,
}

impl Trouble {
    pub(super) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { why: why.into(), cure: cure.into(), page: None }
    }

    pub(super) fn on(self, page: &'static str) -> Self {
        Self { page: Some(page), ..self }
    }
}

impl Verdict {
    pub(super) fn good(seen: impl Into<String>) -> Self {
        Self::Good(seen.into())
    }

    pub(super) fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }

    pub(super) fn warning(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Warning(Trouble::new(why, cure))
    }

    pub(super) fn failed(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::Failed(Trouble::new(why, cure))
    }
}

/// One thing that is looked at, by what was found out.
pub(super) struct Check<F> {
    /// Stays the same, for programs.
    pub(super) id: &'static str,
    /// What is so when all is well.
    pub(super) title: &'static str,
    /// Where the documentation says more: a page below `docs/` with its section.
    pub(super) page: &'static str,
    /// Checks that must be good before this one says anything.
    pub(super) needs: &'static [&'static str],
    /// `None`: this registry has no such thing.
    pub(super) judge: fn(&F) -> Option<Verdict>,
}

/// Checks that are printed together.
pub(super) struct Group<F: 'static> {
    pub(super) name: &'static str,
    pub(super) checks: &'static [Check<F>],
}

/// A check that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Looked {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) outcome: Outcome,
    /// What was seen, or why nothing was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) seen: String,
    /// What to do next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cure: String,
    /// A page of the documentation, where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) page: Option<String>,
}

/// A group that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Section {
    /// What it is about.
    pub(crate) name: String,
    pub(crate) checks: Vec<Looked>,
}

/// Checks that were not good, with their titles: what needs them is not looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Missing(BTreeMap<&'static str, &'static str>);

impl<F> Group<F> {
    /// Looks at each check in turn. `about` stands before the group's name.
    pub(super) fn look(&self, about: &str, facts: &F, missing: &mut Missing) -> Section {
        let checks = self.checks.iter().filter_map(|check| check.look(facts, missing)).collect();
        Section { name: format!("{about}{}", self.name), checks }
    }
}

impl<F> Check<F> {
    fn look(&self, facts: &F, missing: &mut Missing) -> Option<Looked> {
        // Whether there is such a thing comes first: who has no TLS is told nothing of certificates.
        let verdict = (self.judge)(facts)?;
        let verdict = match self.needs.iter().find_map(|need| missing.0.get(need)) {
            Some(title) => Verdict::Skipped(format!("not looked at: first this must be so: {title}")),
            None => verdict,
        };
        if !matches!(verdict, Verdict::Good(_) | Verdict::Warning(_)) {
            missing.0.insert(self.id, self.title);
        }
        let (outcome, trouble) = match verdict {
            Verdict::Good(seen) => (Outcome::Good, Trouble::new(seen, "")),
            Verdict::Skipped(why) => (Outcome::Skipped, Trouble::new(why, "")),
            Verdict::Warning(trouble) => (Outcome::Warning, trouble),
            Verdict::Failed(trouble) => (Outcome::Failed, trouble),
        };
        let is_wrong = matches!(outcome, Outcome::Warning | Outcome::Failed);
        let page = is_wrong.then(|| format!("docs/{}", trouble.page.unwrap_or(self.page)));
        Some(Looked { id: self.id, title: self.title, outcome, seen: trouble.why, cure: trouble.cure, page })
    }
}

/// Whether nothing failed.
pub(super) fn is_well(sections: &[Section]) -> bool {
    count(sections, Outcome::Failed) == 0
}

pub(super) fn count(sections: &[Section], outcome: Outcome) -> usize {
    sections.iter().flat_map(|section| &section.checks).filter(|looked| looked.outcome == outcome).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn check(id: &'static str, needs: &'static [&'static str], judge: fn(&u8) -> Option<Verdict>) -> Check<u8> {
        Check { id, title: "it is so", page: "clients.md", needs, judge }
    }

    fn outcomes(checks: &'static [Check<u8>]) -> Vec<(&'static str, Outcome)> {
        let group = Group { name: "group", checks };
        let section = group.look("", &0, &mut Missing::default());
        section.checks.iter().map(|looked| (looked.id, looked.outcome)).collect()
    }

    #[test]
    fn what_needs_something_that_is_not_good_is_not_looked_at_and_says_so() {
        static CHECKS: &[Check<u8>] = &[
            check("a", &[], |_| Some(Verdict::failed("broken", "mend it"))),
            check("b", &["a"], |_| Some(Verdict::good(""))),
            check("c", &["b"], |_| Some(Verdict::failed("broken, too", ""))),
            check("d", &[], |_| Some(Verdict::good(""))),
            check("e", &["d"], |_| Some(Verdict::warning("old", "renew it"))),
            check("f", &["e"], |_| Some(Verdict::good(""))),
            check("g", &[], |_| Some(Verdict::skipped("cannot be known"))),
            check("h", &["g"], |_| Some(Verdict::good(""))),
        ];
        use Outcome::{Failed, Good, Skipped, Warning};
        let expected = [Failed, Skipped, Skipped, Good, Warning, Good, Skipped, Skipped];
        let outcomes = outcomes(CHECKS);
        assert_eq!(outcomes.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>(), expected, "{outcomes:?}");
        let group = Group { name: "group", checks: CHECKS };
        let section = group.look("registries/a, ", &0, &mut Missing::default());
        assert_eq!(section.name, "registries/a, group");
        assert_eq!(section.checks[1].seen, "not looked at: first this must be so: it is so");
        assert_eq!(section.checks[0].page.as_deref(), Some("docs/clients.md"));
        let sections = [section];
        assert!(!is_well(&sections) && count(&sections, Skipped) == 4);
    }

    #[test]
    fn what_a_registry_does_not_have_is_neither_shown_nor_missed() {
        static CHECKS: &[Check<u8>] =
            &[check("a", &[], |_| None), check("b", &["a"], |_| Some(Verdict::good(""))), check("c", &["b"], |_| None)];
        assert_eq!(outcomes(CHECKS), [("b", Outcome::Good)]);
    }
}
