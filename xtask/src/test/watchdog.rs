//! Ends tests that hang. Tests that share a cluster share a process, and cargo's own runner knows no limit: it only says which tests have been
//! running for a minute. From that on the time is counted here. Knows nothing of what the tests do.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// When the runner says for the first time that a test is slow.
const SLOW: Duration = Duration::from_secs(60);
const IS_SLOW: &str = " has been running for over 60 seconds";

/// The tests of a program that are known to be slow, and how long a test may run.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Duration,
    slow: BTreeMap<String, Instant>,
    ended: Vec<String>,
}

impl Watchdog {
    /// A `limit` of less than a minute is one of a minute.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, slow: BTreeMap::new(), ended: Vec::new() }
    }

    /// Hears a line of the runner.
    pub(super) fn hear(&mut self, line: &str, now: Instant) {
        let Some(said) = line.strip_prefix("test ") else { return };
        if let Some(test) = said.strip_suffix(IS_SLOW) {
            self.slow.insert(test.to_owned(), now);
        } else if let Some((test, _)) = said.split_once(" ... ") {
            self.slow.remove(test);
        }
    }

    /// Ends the programs that the process `runner` runs, when a test of theirs runs for too long. The runner goes on and says how they ended.
    pub(super) fn look(&mut self, runner: u32, now: Instant) -> Result<()> {
        let beyond = self.limit.saturating_sub(SLOW);
        if !self.slow.values().any(|since| now.duration_since(*since) >= beyond) {
            return Ok(());
        }
        self.ended.extend(std::mem::take(&mut self.slow).into_keys());
        let programs = match children(runner)? {
            none if none.is_empty() => vec![runner],
            programs => programs,
        };
        let ids = programs.iter().map(u32::to_string);
        Command::new("kill").arg("-KILL").args(ids).status().context("run kill").map(drop)
    }

    /// What was done, if anything.
    pub(super) fn verdict(self) -> Option<Verdict> {
        let Self { limit, ended: tests, .. } = self;
        (!tests.is_empty()).then_some(Verdict { limit, tests })
    }
}

/// That a program was ended.
#[derive(Debug)]
pub(super) struct Verdict {
    limit: Duration,
    /// The tests that were slow and had not finished.
    pub(super) tests: Vec<String>,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, tests) = (self.limit.as_secs(), self.tests.join(", "));
        write!(
            f,
            "ended, because a test had not finished after {seconds} s, with everything that ran beside it: {tests}"
        )
    }
}

/// The processes that a process started and that still run: field 4 of `/proc/ID/stat`, proc(5).
fn children(parent: u32) -> Result<Vec<u32>> {
    let Ok(entries) = fs::read_dir("/proc") else { return Ok(Vec::new()) };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.context("list processes")?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name stands in brackets and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if after_name.split_whitespace().nth(1) == Some(&parent.to_string()) {
            children.push(id);
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    fn after(lines: &[&str], since: Duration) -> Option<String> {
        let (mut watchdog, start) = (Watchdog::new(LIMIT), Instant::now());
        lines.iter().for_each(|line| watchdog.hear(line, start));
        let mut program = Command::new("sleep").arg("60").spawn().unwrap();
        watchdog.look(program.id(), start + since).unwrap();
        let verdict = watchdog.verdict().map(|verdict| verdict.to_string());
        if verdict.is_none() {
            assert!(program.try_wait().unwrap().is_none(), "it runs on");
            program.kill().unwrap();
        }
        assert!(!program.wait().unwrap().success());
        verdict
    }

    #[test]
    fn a_program_is_ended_only_when_a_test_of_it_is_late() {
        let (good, slow) = ("test a ... ok", "test m::b has been running for over 60 seconds");
        let (soon, late) = (Duration::from_secs(539), Duration::from_secs(540));
        for (lines, since, expected) in [
            (vec![good], late, false),
            (vec![good, slow], soon, false),
            (vec![good, slow], late, true),
            (vec![slow, "test m::b ... FAILED"], late, false),
            (vec![slow, "test m::b ... ok", "what m::b said: test m::b"], late, false),
        ] {
            let verdict = after(&lines, since);
            assert_eq!(verdict.is_some(), expected, "{lines:?}, {since:?} later: {verdict:?}");
            assert!(verdict.is_none_or(|words| words.ends_with(": m::b") && words.contains("after 600 s")));
        }
    }
}
