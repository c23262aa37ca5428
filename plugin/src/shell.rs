//! What a person sees: the only place that prints.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};

/// Prints to standard output. Whoever closes it early, as `head` does, has read enough.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(harmless(text).as_bytes());
}

/// Prints a line to standard error, likewise.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", harmless(line));
}

/// Without what would steer a terminal: much of what is printed was written by others.
fn harmless(text: &str) -> String {
    text.replace(|character: char| character.is_control() && !['\n', '\t'].contains(&character), "\u{fffd}")
}

/// Asks for a yes. `forced` is the flag `--yes`.
pub(crate) fn confirm(question: &str, forced: bool) -> Result<()> {
    if forced {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Nobody can be asked here: say so with --yes");
    }
    let _ = write!(std::io::stderr(), "{} [y/N] ", harmless(question));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        bail!("nothing was changed");
    }
    Ok(())
}

/// `1 file`, `2 files`.
pub(crate) fn files(count: usize) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(harmless("CN=\u{1b}[2Ja\rb\u{9b}c\td\n"), "CN=\u{fffd}[2Ja\u{fffd}b\u{fffd}c\td\n");
    }
}
