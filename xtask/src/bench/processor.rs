//! Processor time, as the kernel counts it. What a time consists of is told by it: waiting for others, or work of one's own.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// The kernel counts in hundredths of a second, on every machine that Linux calls by `USER_HZ`.
const TICK: Duration = Duration::from_millis(10);

/// Of a process since it started.
pub(super) fn of_process(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    used(&fs::read_to_string(&path).with_context(|| format!("read {path}"))?)
        .with_context(|| format!("understand {path}"))
}

/// Of the threads of this process that have a name and still run.
pub(super) fn of_threads(name: &str) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task").context("list threads")? {
        let thread = thread.context("list threads")?.path();
        // A thread may end at any moment.
        if read(&thread, "comm").trim() == name {
            sum += used(&read(&thread, "stat")).unwrap_or_default();
        }
    }
    Ok(sum)
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// The 14th and 15th field: in the program and in the kernel for it. The second is the name in brackets, which may contain anything.
fn used(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 4 0 100";
        assert_eq!(used(stat), Some(Duration::from_millis(1750)));
        assert_eq!(used(""), None);
    }
}
