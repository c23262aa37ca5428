//! What a person sees: the only place that prints.

use std::io::Write as _;

/// Prints to standard output. Whoever closes it early, as `head` does, has read enough.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error, likewise.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
