//! How far a transfer has come: one line on a terminal that changes, and nothing where nobody looks.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::output;

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(100);

/// One transfer.
pub(crate) struct Progress {
    title: String,
    total: u64,
    done: Cell<u64>,
    shown: Cell<Option<Instant>>,
    is_seen: bool,
}

impl Progress {
    pub(crate) fn of(title: impl Into<String>, total: u64) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        Self { title: title.into(), total, done: Cell::new(0), shown: Cell::new(None), is_seen }
    }

    /// So many bytes more are where they should be.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_add(bytes));
        self.show();
    }

    /// So many bytes have to be sent again.
    pub(crate) fn take_back(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_sub(bytes));
    }

    fn show(&self) {
        let is_due = self.shown.get().is_none_or(|shown| shown.elapsed() >= EVERY);
        if self.is_seen && is_due {
            self.shown.set(Some(Instant::now()));
            let _ = write!(std::io::stderr(), "\r{}\x1b[K", line(&self.title, self.done.get(), self.total));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.get().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(title: &str, done: u64, total: u64) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    format!("{title}: {} of {} ({percent} %)", output::size(done.min(total)), output::size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_never_says_more_than_all() {
        assert_eq!(line("a", 512 << 10, 2 << 20), "a: 512.0 KiB of 2.0 MiB (25 %)");
        assert_eq!(line("a", 3, 2), "a: 2 B of 2 B (100 %)");
        assert_eq!(line("a", 0, 0), "a: 0 B of 0 B (100 %)");
        assert_eq!(line("a", u64::MAX / 2, u64::MAX), "a: 8.0 EiB of 16.0 EiB (1 %)");
    }

    #[test]
    fn what_is_sent_again_counts_once() {
        let progress = Progress::of("a", 10);
        progress.add(6);
        progress.take_back(6);
        progress.add(10);
        assert_eq!(progress.done.get(), 10);
    }
}
