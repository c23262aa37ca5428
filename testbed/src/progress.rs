//! What is being done, how far it is, how long it takes: living lines on a terminal, a plain line now and then elsewhere.
//! Writes to standard error only, so that a command's output stays clean.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a plain line says how far a step is.
const PLAIN_EVERY: Duration = Duration::from_secs(20);

/// Shows steps. Copies write to the same place.
#[derive(Debug, Clone)]
pub struct Progress(Sink);

#[derive(Debug, Clone)]
enum Sink {
    Terminal(MultiProgress),
    Lines,
    Silent,
}

impl Progress {
    /// Living lines if standard error is a terminal, plain lines otherwise.
    pub fn auto() -> Self {
        if stderr().is_terminal() { Self(Sink::Terminal(MultiProgress::new())) } else { Self(Sink::Lines) }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self(Sink::Silent)
    }

    /// Begins a step, named by what is being done ("build etcd").
    pub fn step(&self, what: impl Into<String>) -> Step {
        let what = what.into();
        let bar = match &self.0 {
            Sink::Terminal(bars) => Some(bars.add(spinner(&what))),
            Sink::Lines => {
                line(&format!("{what} …"));
                None
            }
            Sink::Silent => None,
        };
        let (plain, started) = (matches!(self.0, Sink::Lines), Instant::now());
        Step { what, bar, plain, started, said: Mutex::new(started) }
    }

    /// Prints a line above the living ones.
    pub fn say(&self, text: &str) {
        match &self.0 {
            Sink::Terminal(bars) => drop(bars.println(text)),
            Sink::Lines => line(text),
            Sink::Silent => {}
        }
    }
}

/// One thing being done. Disappears without a word when dropped; [`Step::done`] leaves a line.
#[derive(Debug)]
pub struct Step {
    what: String,
    bar: Option<ProgressBar>,
    plain: bool,
    started: Instant,
    said: Mutex<Instant>,
}

impl Step {
    /// Says what is going on inside the step.
    pub fn note(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.what));
        }
        self.say_sometimes(detail);
    }

    /// Says how far the step is. `total` may be a guess; more than it is shown as it is.
    pub fn advance(&self, done: u64, total: u64, unit: &str) {
        let left = remaining(self.started.elapsed(), done, total);
        let left = left.map(|left| format!(", about {} left", clock(left))).unwrap_or_default();
        self.note(&format!("{done} of about {total} {unit}{left}"));
    }

    /// Ends the step with a line that says how long it took.
    pub fn done(self) {
        let text = format!("{} ({})", self.what, clock(self.started.elapsed()));
        match &self.bar {
            Some(bar) => {
                bar.set_style(ProgressStyle::with_template("✓ {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.finish_with_message(text);
            }
            None if self.plain => line(&text),
            None => {}
        }
    }

    fn say_sometimes(&self, detail: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plain && said.elapsed() > PLAIN_EVERY {
            *said = Instant::now();
            line(&format!("{}: {detail} ({})", self.what, clock(self.started.elapsed())));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.finish_and_clear();
        }
    }
}

/// How long the rest takes if it goes on like this; `None` while that would be a guess from too little.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    if done * 20 < total || done > total || elapsed < Duration::from_secs(3) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a display")]
    Some(elapsed.mul_f64((total - done) as f64 / done as f64))
}

fn clock(duration: Duration) -> String {
    match duration.as_secs() {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds => format!("{}:{:02} min", seconds / 60, seconds % 60),
    }
}

fn spinner(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn line(text: &str) {
    writeln!(stderr(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_guessed_from_what_is_done_but_not_from_too_little() {
        let minute = Duration::from_secs(60);
        assert_eq!(remaining(minute, 500, 1000), Some(minute));
        assert_eq!(remaining(minute, 10, 1000), None);
        assert_eq!(remaining(Duration::from_secs(1), 500, 1000), None);
        assert_eq!(remaining(minute, 1001, 1000), None);
    }

    #[test]
    fn times_are_shown_as_a_person_says_them() {
        assert_eq!(clock(Duration::from_millis(1540)), "1.5 s");
        assert_eq!(clock(Duration::from_secs(75)), "75 s");
        assert_eq!(clock(Duration::from_secs(754)), "12:34 min");
    }
}
