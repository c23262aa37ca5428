//! By which name the program was called. Krew installs it as `kubectl private-registry`, because names in its index must not be general ones; help and messages
//! then say that, so that what they show can be typed. Nothing else depends on the name.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;

/// As it stands in help and messages.
const OWN: &str = "kubectl registry";
/// The program of that name.
const OWN_PROGRAM: &str = "kubectl-registry";

static PROGRAM: LazyLock<String> = LazyLock::new(|| program(std::env::args_os().next().as_deref()));

/// The program's file, if kubectl finds it as a plugin; else as it is built.
fn program(called: Option<&OsStr>) -> String {
    let name = called.and_then(|path| Path::new(path).file_name()?.to_str());
    let is_known = |name: &&str| {
        let rest = name.strip_prefix("kubectl-").unwrap_or_default();
        !rest.is_empty() && rest.chars().all(|letter| letter.is_ascii_alphanumeric() || ['-', '_'].contains(&letter))
    };
    name.filter(is_known).unwrap_or(OWN_PROGRAM).to_owned()
}

/// What a person types: kubectl takes a dash of the file's name for a blank, and an underscore for a dash.
fn typed(program: &str) -> String {
    program.replace('-', " ").replace('_', "-")
}

/// A text in which the program is called as it was called.
pub(crate) fn renamed(text: &str) -> String {
    rename(text, &PROGRAM)
}

fn rename(text: &str, program: &str) -> String {
    if program == OWN_PROGRAM {
        return text.to_owned();
    }
    text.replace(OWN, &typed(program)).replace(OWN_PROGRAM, program)
}

/// A command line whose help calls the program as it was called.
pub(crate) fn command(command: clap::Command) -> clap::Command {
    if *PROGRAM == OWN_PROGRAM { command } else { all(command.bin_name(typed(&PROGRAM)), &PROGRAM) }
}

fn all(mut command: clap::Command, program: &str) -> clap::Command {
    let said = |text: Option<&clap::builder::StyledStr>| text.map(|text| rename(&text.to_string(), program));
    let texts = [command.get_about(), command.get_long_about(), command.get_after_help()].map(said);
    let [about, long_about, after_help] = texts;
    if let Some(text) = about {
        command = command.about(text);
    }
    if let Some(text) = long_about {
        command = command.long_about(text);
    }
    if let Some(text) = after_help {
        command = command.after_help(text);
    }
    command = command.mut_args(|argument| match said(argument.get_help()) {
        Some(text) => argument.help(text),
        None => argument,
    });
    command.mut_subcommands(|command| all(command, program))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_name_is_that_of_the_file_if_kubectl_would_find_it() {
        for (called, found) in [
            (Some("/usr/bin/kubectl-registry"), "kubectl-registry"),
            (Some("/home/ann/.krew/bin/kubectl-private_registry"), "kubectl-private_registry"),
            (Some("kubectl-private_registry"), "kubectl-private_registry"),
            (Some("/tmp/plugin"), "kubectl-registry"),
            (Some("kubectl-\u{1b}[2J"), "kubectl-registry"),
            (Some("kubectl-"), "kubectl-registry"),
            (None, "kubectl-registry"),
        ] {
            assert_eq!(program(called.map(OsStr::new)), found, "{called:?}");
        }
        assert_eq!(typed("kubectl-private_registry"), "kubectl private-registry");
    }

    #[test]
    fn every_text_of_the_help_says_what_can_be_typed() {
        fn pages(command: &mut clap::Command, found: &mut Vec<String>) {
            found.push(command.render_long_help().to_string());
            command.get_subcommands_mut().for_each(|command| pages(command, found));
        }
        let program = "kubectl-private_registry";
        let mut command = all(crate::Cli::command().bin_name(typed(program)), program);
        command.build();
        let mut found = Vec::new();
        pages(&mut command, &mut found);
        for page in found {
            assert!(!page.contains(OWN) && !page.contains(OWN_PROGRAM), "{page}");
        }
    }
}
