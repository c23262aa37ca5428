//! How many tests passed, failed and were skipped, as the runners themselves say in their closing lines.

use std::ops::AddAssign;

/// Nextest's closing line is five blanks from the edge; what failed tests said is four further in than they said it.
const NEXTEST_MARGIN: &str = "     ";

/// Numbers of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Tally {
    /// A check that is one test in itself.
    pub(super) fn one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 }
    }

    /// What cargo's own runner said: the sum of the closing lines of all its programs. `None` when there is none.
    pub(super) fn of_libtest(output: &str) -> Option<Self> {
        let tallies = output.lines().filter_map(libtest);
        tallies.fold(None, |sum, tally| {
            let mut sum = sum.unwrap_or_default();
            sum += tally;
            Some(sum)
        })
    }

    /// What cargo's own runner had said when its program was ended, because these tests did not.
    pub(super) fn of_ended_libtest(output: &str, hung: &[String]) -> Self {
        let finished =
            |how: &str| output.lines().filter(|line| line.starts_with("test ") && line.ends_with(how)).count();
        let failed = finished(" ... FAILED") + hung.len();
        Self { passed: finished(" ... ok") as u64, failed: failed as u64, skipped: finished(" ... ignored") as u64 }
    }

    /// What nextest said in its one closing line. What failed tests said stands around it, with closing lines of their own.
    pub(super) fn of_nextest(output: &str) -> Option<Self> {
        output.lines().filter_map(|line| nextest(line.strip_prefix(NEXTEST_MARGIN)?)).next_back()
    }

    /// Tests that the runner counts as passed, but that skipped themselves.
    pub(super) fn skip(&mut self, tests: u64) {
        let skipped = tests.min(self.passed);
        self.passed -= skipped;
        self.skipped += skipped;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The tests that are marked `#[ignore]`: `SKIP [         ] (─────) program test` in nextest's words, `test module::test ... ignored` in cargo's.
pub(super) fn ignored(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter_map(|line| {
        let nextest = line.trim().strip_prefix("SKIP [").and_then(|rest| rest.split_once("] "));
        let libtest = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"));
        nextest.map(|(_, test)| test.trim_start_matches(['(', '─', ')', ' '])).or(libtest.map(|(test, _)| test))
    })
}

/// `test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn libtest(line: &str) -> Option<Tally> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |name| count(numbers, ';', name);
    Some(Tally { passed: number("passed")?, failed: number("failed")?, skipped: number("ignored")? })
}

/// `Summary [   0.1s] 4/5 tests run: 2 passed (1 slow), 1 failed, 1 timed out, 3 skipped`
fn nextest(line: &str) -> Option<Tally> {
    let (run, numbers) = line.strip_prefix("Summary [")?.split_once("] ")?.1.split_once(" run: ")?;
    let total = run.split_whitespace().next()?.rsplit('/').next()?.parse::<u64>().ok()?;
    let number = |name| count(numbers, ',', name);
    let passed = number("passed").unwrap_or_default();
    Some(Tally { passed, failed: total.saturating_sub(passed), skipped: number("skipped")? })
}

fn count(numbers: &str, separator: char, name: &str) -> Option<u64> {
    let mut fields = numbers.split(separator).map(str::split_whitespace);
    fields.find_map(|mut words| {
        let number = words.next()?.parse().ok()?;
        (words.next()? == name).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Option<Tally> {
        Some(Tally { passed, failed, skipped })
    }

    #[test]
    fn closing_lines_are_read() {
        for (line, expected) in [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s",
                tally(12, 0, 1),
            ),
            (
                "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
                tally(2, 1, 0),
            ),
            ("test the_result ... ok", None),
            ("error: could not compile `x` (lib test) due to 2 previous errors", None),
            ("", None),
        ] {
            assert_eq!(Tally::of_libtest(line), expected, "{line}");
        }
        for (line, expected) in [
            ("     Summary [   0.012s] 1 test run: 1 passed, 0 skipped", tally(1, 0, 0)),
            ("     Summary [  61.2s] 6 tests run: 3 passed (1 slow), 2 failed, 1 timed out, 4 skipped", tally(3, 3, 4)),
            ("     Summary [   0.1s] 2/9 tests run: 1 passed, 1 failed, 0 skipped", tally(1, 8, 0)),
            ("     Summary [   0.1s] 2 tests run: 2 failed, 0 skipped", tally(0, 2, 0)),
            ("        PASS [   0.1s] (1/1) x y", None),
        ] {
            assert_eq!(Tally::of_nextest(line), expected, "{line}");
        }
    }

    #[test]
    fn the_lines_of_several_programs_are_added_up() {
        let output = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured\nmore\n\
                      test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured\n";
        assert_eq!(Tally::of_libtest(output), tally(5, 1, 1));
    }

    #[test]
    fn what_a_failed_test_said_is_not_counted() {
        let output = "        FAIL [   9.9s] (17/24) x y\n  stdout ───\n    running 1 test\n    Summary [ 1.0s] 1 test run: 1 passed, 0 skipped\n    \
                      test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured\n     Summary [  66.9s] 24 tests run: 23 passed, 1 failed, 1 skipped\n";
        assert_eq!(Tally::of_nextest(output), tally(23, 1, 1));
    }

    #[test]
    fn ignored_tests_are_named() {
        let output = "     Summary [ 140.1s] 22 tests run: 22 passed, 1 skipped\n        SKIP [         ] (─────) testbed::sandbox owner\n\
                      test later ... ignored, not yet\ntest now ... ok\n";
        assert_eq!(ignored(output).collect::<Vec<_>>(), ["testbed::sandbox owner", "later"]);
    }

    #[test]
    fn a_test_that_skipped_itself_counts_as_skipped_and_not_as_passed() {
        let mut tally = Tally { passed: 3, failed: 1, skipped: 0 };
        tally.skip(2);
        assert_eq!(tally, Tally { passed: 1, failed: 1, skipped: 2 });
    }
}
