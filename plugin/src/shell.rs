//! What a person sees: the only place that prints.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};

use anyhow::{Context as _, Result, bail};
use private_registry_operator::secret::Sensitive;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::called;

/// More than any password has, and any token.
const LONGEST_PASSWORD: usize = 64 << 10;

/// Prints to standard output. Whoever closes it early, as `head` does, has read enough.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(harmless(text).as_bytes());
}

/// Prints a line to standard error, likewise.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", harmless(&called::renamed(line)));
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

/// The password on standard input, without the line break behind it.
pub(crate) fn password_from_stdin() -> Result<Sensitive<String>> {
    let mut text = Vec::with_capacity(LONGEST_PASSWORD);
    let read = std::io::stdin().take(LONGEST_PASSWORD as u64).read_to_end(&mut text);
    let text = Sensitive::new(text);
    read.context("read the password from standard input")?;
    password(text.expose()).context("read the password from standard input")
}

/// Asks for a password at the terminal, which does not show it.
pub(crate) fn ask_password(question: &str) -> Result<Sensitive<String>> {
    // Not standard input and output: what is printed may go to a file.
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let Ok(mut terminal) = terminal else {
        bail!("{question} Nobody can be asked here: give the password with --password-stdin")
    };
    let _ = write!(terminal, "{} ", harmless(question));
    let text = {
        let _hidden = Hidden::on(&terminal)?;
        let mut text = Vec::with_capacity(LONGEST_PASSWORD);
        let read = BufReader::new(&terminal).take(LONGEST_PASSWORD as u64).read_until(b'\n', &mut text);
        let text = Sensitive::new(text);
        read.context("read the password")?;
        text
    };
    let _ = writeln!(terminal);
    password(text.expose()).context("read the password")
}

/// A terminal that shows nothing of what is typed, until this goes.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn on(terminal: &'a File) -> Result<Self> {
        let before = tcgetattr(terminal).context("look at the terminal")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &silent).context("hide what is typed")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn password(line: &[u8]) -> Result<Sensitive<String>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Ok(text) = str::from_utf8(line) else { bail!("it is no text") };
    if text.is_empty() {
        bail!("it is empty");
    }
    if text.contains(char::is_control) {
        bail!("it has line breaks or other control characters: give the password alone");
    }
    Ok(Sensitive::new(text.to_owned()))
}

/// `1 file`, `2 files`.
pub(crate) fn files(count: usize) -> String {
    format!("{count} {}", if count == 1 { "file" } else { "files" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_break() {
        for (line, text) in [
            ("a b", Ok("a b")),
            ("a\n", Ok("a")),
            ("ä\r\n", Ok("ä")),
            (" a ", Ok(" a ")),
            ("a\nb", Err(())),
            ("\n", Err(())),
            ("", Err(())),
            ("a\0", Err(())),
        ] {
            let read = password(line.as_bytes());
            assert_eq!(read.as_ref().map(|read| read.expose().as_str()).map_err(|_| ()), text, "{line:?}");
        }
        assert!(password(b"\xff").is_err());
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        assert_eq!(harmless("CN=\u{1b}[2Ja\rb\u{9b}c\td\n"), "CN=\u{fffd}[2Ja\u{fffd}b\u{fffd}c\td\n");
    }
}
