//! One program of a group: run, everything it says kept in a log, its tests counted.

use std::{
    cell::RefCell,
    fs::File,
    io::Write,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testbed::Progress;

use super::{tally::Tally, watchdog::Watchdog};
use crate::workspace;

/// What a program is expected to say.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counts {
    /// Nothing that counts: passing is one test.
    AsOne,
    /// The tests that cargo's own runner counts. None of them may run for longer than this.
    Libtest(Duration),
    /// The tests that nextest counts.
    Nextest,
}

/// A program to run.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) command: Command,
    pub(super) counts: Counts,
}

/// Where output goes.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    pub(super) path: PathBuf,
    text: String,
    echo: bool,
}

impl Log {
    /// `echo`: say everything on the terminal too.
    pub(super) fn create(path: PathBuf, echo: bool) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { file, path, text: String::new(), echo })
    }

    /// Everything that was said.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has been on the terminal already.
    pub(super) fn is_echoed(&self) -> bool {
        self.echo
    }

    pub(super) fn line(&mut self, line: &str, progress: &Progress) -> Result<()> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.echo {
            progress.say(line);
        }
        writeln!(self.file, "{line}").with_context(|| format!("write {}", self.path.display()))
    }
}

impl Step {
    /// Runs the program. A program that fails is no error but a count.
    pub(super) fn run(self, log: &mut Log, progress: &Progress, shown: &testbed::progress::Step) -> Result<Tally> {
        let Self { command, counts } = self;
        let name = in_words(&command);
        log.line(&format!("$ {name}"), progress)?;
        let begin = log.text.len();
        let watchdog = RefCell::new(match counts {
            Counts::Libtest(limit) => Some(Watchdog::new(limit)),
            Counts::AsOne | Counts::Nextest => None,
        });
        let status = workspace::watched_lines(
            command,
            |line| {
                if !line.is_empty() {
                    shown.note(line.trim());
                }
                watchdog.borrow_mut().iter_mut().for_each(|watchdog| watchdog.hear(line, Instant::now()));
                log.line(line, progress)
            },
            |program| watchdog.borrow_mut().iter_mut().try_for_each(|watchdog| watchdog.look(program, Instant::now())),
        )?;
        if !status.success() {
            log.line(&format!("{name}: {status}"), progress)?;
        }
        let said = &log.text[begin..];
        let tally = match counts {
            Counts::AsOne => return Ok(Tally::one(status.success())),
            Counts::Libtest(_) => Tally::of_libtest(said),
            Counts::Nextest => Tally::of_nextest(said),
        };
        if let Some(verdict) = watchdog.into_inner().and_then(Watchdog::verdict) {
            let tally = Tally::of_ended_libtest(said, &verdict.tests);
            log.line(&verdict.to_string(), progress)?;
            return Ok(tally);
        }
        match tally {
            Some(tally) if status.success() == (tally.failed == 0) => Ok(tally),
            Some(tally) => Ok(Tally { failed: tally.failed.max(1), ..tally }),
            None if status.success() => {
                log.line(&format!("{name} has not said how many tests it ran"), progress)?;
                Ok(Tally::one(false))
            }
            None => Ok(Tally::one(false)),
        }
    }
}

fn in_words(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBTEST: Counts = Counts::Libtest(Duration::from_secs(600));

    fn run(script: &str, counts: Counts) -> (Tally, String) {
        let folder = tempfile::tempdir().unwrap();
        let progress = Progress::silent();
        let mut log = Log::create(folder.path().join("log"), false).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let tally = Step { command, counts }.run(&mut log, &progress, &progress.step("test")).unwrap();
        assert_eq!(std::fs::read_to_string(&log.path).unwrap(), log.text());
        (tally, log.text().to_owned())
    }

    #[test]
    fn a_runner_is_believed_only_as_far_as_its_exit_code_agrees() {
        let passed = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'";
        assert_eq!(run(passed, LIBTEST).0, Tally { passed: 3, failed: 0, skipped: 0 });
        let (tally, _) = run(&format!("{passed}; exit 101"), LIBTEST);
        assert_eq!(tally, Tally { passed: 3, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_test_that_hangs_is_ended_named_and_counted_as_failed() {
        let script = "echo 'test a ... ok'; echo 'test b ... FAILED'; echo 'test m::c has been running for over 60 seconds'\nsleep 50; exit 101";
        let started = Instant::now();
        let (tally, text) = run(script, Counts::Libtest(Duration::from_secs(60)));
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(tally, Tally { passed: 1, failed: 2, skipped: 0 });
        assert!(text.ends_with("after 60 s, with everything that ran beside it: m::c\n"), "{text}");
    }

    #[test]
    fn a_runner_that_says_nothing_has_failed() {
        assert_eq!(run("true", LIBTEST).0, Tally::one(false));
        assert_eq!(run("exit 101", LIBTEST).0, Tally::one(false));
    }

    #[test]
    fn a_check_counts_as_one_and_both_its_outputs_are_kept() {
        assert_eq!(run("true", Counts::AsOne).0, Tally::one(true));
        let (tally, text) = run("echo one; echo two >&2; exit 3", Counts::AsOne);
        assert_eq!(tally, Tally::one(false));
        assert!(text.contains("one\ntwo\n") && text.ends_with("exit status: 3\n"), "{text}");
    }
}
