//! What a person reads at the end: a line a group, what was skipped and why, and the one line that sums up.

use std::{
    fmt::{self, Display},
    path::PathBuf,
    time::Duration,
};

use super::tally::Tally;

/// What came of a group.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) tally: Tally,
    pub(super) took: Duration,
    /// One line a test that skipped itself, with the reason.
    pub(super) skipped: Vec<String>,
    pub(super) log: PathBuf,
}

impl Outcome {
    pub(super) fn has_failed(&self) -> bool {
        self.tally.failed > 0
    }
}

/// Everything that was run.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) outcomes: Vec<Outcome>,
    pub(super) took: Duration,
}

impl Summary {
    pub(super) fn has_failed(&self) -> bool {
        self.outcomes.iter().any(Outcome::has_failed)
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sum = Tally::default();
        writeln!(f, "{:<12}{:<10}{:>9}{:>9}{:>9}{:>9}", "group", "result", "seconds", "passed", "failed", "skipped")?;
        for outcome in &self.outcomes {
            let result = if outcome.has_failed() { "FAILED" } else { "ok" };
            row(f, &outcome.name, result, outcome.took, outcome.tally)?;
            sum += outcome.tally;
        }
        row(f, "all", if self.has_failed() { "FAILED" } else { "ok" }, self.took, sum)?;
        for line in self.outcomes.iter().flat_map(|outcome| &outcome.skipped) {
            writeln!(f, "{line}")?;
        }
        for outcome in self.outcomes.iter().filter(|outcome| outcome.has_failed()) {
            writeln!(f, "{} failed; everything it said: {}", outcome.name, outcome.log.display())?;
        }
        write!(f, "\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped)
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, result: &str, took: Duration, tally: Tally) -> fmt::Result {
    let Tally { passed, failed, skipped } = tally;
    writeln!(f, "{name:<12}{result:<10}{:>9.1}{passed:>9}{failed:>9}{skipped:>9}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, passed: u64, failed: u64, skipped: &[&str]) -> Outcome {
        Outcome {
            name: name.to_owned(),
            tally: Tally { passed, failed, skipped: skipped.len() as u64 },
            took: Duration::from_millis(1540),
            skipped: skipped.iter().map(ToString::to_string).collect(),
            log: PathBuf::from("/target/xtask").join(name).with_extension("log"),
        }
    }

    #[test]
    fn the_last_line_is_the_sum_and_stands_alone() {
        let outcomes = vec![outcome("unit", 40, 0, &[]), outcome("e2e", 2, 1, &["skipped a: needs root"])];
        let text = Summary { outcomes, took: Duration::from_secs(3) }.to_string();
        assert_eq!(text.lines().last(), Some("42 passed, 1 failed, 1 skipped"));
        assert!(text.contains("e2e         FAILED          1.5        2        1        1\n"), "{text}");
        assert!(text.contains("\nskipped a: needs root\n"), "{text}");
        assert!(text.contains("\ne2e failed; everything it said: /target/xtask/e2e.log\n"), "{text}");
    }

    #[test]
    fn one_failed_group_fails_everything() {
        let took = Duration::ZERO;
        let good = Summary { outcomes: vec![outcome("unit", 1, 0, &[]), outcome("e2e", 1, 0, &[])], took };
        let bad = Summary { outcomes: vec![outcome("unit", 1, 0, &[]), outcome("e2e", 1, 1, &[])], took };
        assert!(!good.has_failed() && bad.has_failed());
    }
}
