//! A command's help as a page of Markdown, which looks alike on every machine: neither the terminal's width nor the environment reaches it.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Arg, Command};

use super::shown;

/// What examples begin with in a command's help.
const EXAMPLES: &str = "Examples:\n";

/// The page of a command that was built; `path` is how it is called below the program.
pub(super) fn page(command: &Command, path: &[String]) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut page = format!("# {name}\n\nGenerated from `{name} --help` by `cargo xtask generate`.\n\n");
    page.push_str(&paragraphs(command.get_long_about().or(command.get_about())));
    let usage = command.clone().render_usage().to_string();
    let _ = write!(page, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim_end());
    page.push_str(&below(command, path));
    // Each command has --help.
    let is_shown = |argument: &&Arg| !argument.is_hide_set() && argument.get_id() != "help";
    let arguments = || command.get_arguments().filter(is_shown);
    page.push_str(&table("Arguments", arguments().filter(|argument| argument.is_positional())));
    page.push_str(&table("Options", arguments().filter(|argument| !argument.is_positional())));
    page.push_str(&examples(command.get_after_help()));
    page
}

fn text(said: Option<&StyledStr>) -> String {
    said.map(ToString::to_string).unwrap_or_default()
}

/// What would be a mark of Markdown is none.
fn plain(text: &str) -> String {
    text.replace('*', "\\*").replace('<', "&lt;").replace('|', "\\|").replace('\n', " ")
}

fn paragraphs(said: Option<&StyledStr>) -> String {
    let said = text(said);
    let paragraphs: Vec<_> = said.split("\n\n").map(plain).collect();
    paragraphs.join("\n\n") + "\n"
}

/// The commands below, each with its page.
fn below(command: &Command, path: &[String]) -> String {
    let rows: String = shown(command)
        .map(|below| {
            let name = below.get_name();
            let file = path.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("-");
            format!("| [`{name}`]({file}.md) | {} |\n", plain(&text(below.get_about())))
        })
        .collect();
    if rows.is_empty() { rows } else { format!("\n## Commands\n\n| command | what it does |\n|---|---|\n{rows}") }
}

fn table<'a>(title: &str, arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows: String =
        arguments.map(|argument| format!("| {} | {} |\n", called(argument), meaning(argument))).collect();
    let head = format!("{} | what it means", title.trim_end_matches('s').to_lowercase());
    if rows.is_empty() { rows } else { format!("\n## {title}\n\n| {head} |\n|---|---|\n{rows}") }
}

/// `-o`, `--output FORM`.
fn called(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string);
    let values = names.collect::<Vec<_>>().join(" ");
    let takes_values = argument.get_num_args().is_some_and(|number| number.takes_values());
    let values = if takes_values { values } else { String::new() };
    if argument.is_positional() {
        return format!("`{}`", values.replace('|', "\\|"));
    }
    let short = argument.get_short().map(|short| format!("`-{short}`"));
    let behind = if values.is_empty() { values } else { format!(" {values}") };
    let long = argument.get_long().map(|long| format!("`--{long}{}`", behind.replace('|', "\\|")));
    short.into_iter().chain(long).collect::<Vec<_>>().join(", ")
}

fn meaning(argument: &Arg) -> String {
    let mut words = plain(&text(argument.get_help().or(argument.get_long_help())));
    let takes_values = argument.get_num_args().is_some_and(|number| number.takes_values());
    if !takes_values {
        return words;
    }
    let values = argument.get_possible_values();
    let known: Vec<_> =
        values.iter().filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name())).collect();
    if !known.is_empty() {
        let _ = write!(words, ": {}", known.join(", "));
    }
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !defaults.is_empty() && !argument.is_hide_default_value_set() {
        let _ = write!(words, " [default: {}]", defaults.join(", "));
    }
    words
}

/// The examples as they are typed, and what is said behind them.
fn examples(said: Option<&StyledStr>) -> String {
    let said = text(said);
    let Some(rest) = said.strip_prefix(EXAMPLES) else {
        return if said.is_empty() { said } else { format!("\n{}\n", plain(&said)) };
    };
    let (typed, behind) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let lines: Vec<_> = typed.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
    let mut page = format!("\n## Examples\n\n```sh\n{}\n```\n", lines.join("\n"));
    if !behind.is_empty() {
        let _ = write!(page, "\n{}\n", plain(behind));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Command {
        let forms = ["table", "json"];
        let mut command = Command::new("p").bin_name("p").subcommand(
            Command::new("show")
                .about("Show a|b.")
                .long_about("Show a|b.\n\nWith * all.")
                .arg(Arg::new("name").value_name("NAME").required(true).help("Which"))
                .arg(
                    Arg::new("output")
                        .short('o')
                        .long("output")
                        .value_name("FORM")
                        .value_parser(forms)
                        .default_value("table"),
                )
                .arg(Arg::new("all").long("all").action(clap::ArgAction::SetTrue).help("Every | <one>"))
                .arg(Arg::new("secret").long("secret").hide(true))
                .after_help("Examples:\n  p show a\n  p show b | jq '.*'\n\nA note."),
        );
        command.build();
        command
    }

    #[test]
    fn a_page_says_what_the_help_says() {
        let command = sample();
        let page = page(command.find_subcommand("show").unwrap(), &["show".to_owned()]);
        assert_eq!(
            page,
            "# p show\n\nGenerated from `p show --help` by `cargo xtask generate`.\n\nShow a\\|b.\n\nWith \\* all.\n\n\
             ```text\np show [OPTIONS] <NAME>\n```\n\n\
             ## Arguments\n\n| argument | what it means |\n|---|---|\n| `NAME` | Which |\n\n\
             ## Options\n\n| option | what it means |\n|---|---|\n| `-o`, `--output FORM` | : `table`, `json` [default: table] |\n\
             | `--all` | Every \\| &lt;one> |\n\n\
             ## Examples\n\n```sh\np show a\np show b | jq '.*'\n```\n\nA note.\n"
        );
    }

    #[test]
    fn the_first_page_leads_to_the_others() {
        let page = page(&sample(), &[]);
        assert!(page.contains("| [`show`](show.md) | Show a\\|b. |\n"), "{page}");
    }
}
