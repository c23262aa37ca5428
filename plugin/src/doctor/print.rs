//! How checks look: a line each, with what to do below it where something is wrong. Pure.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::json;

use super::check::{Looked, Outcome, Section, count, is_well};
use crate::output;

/// The form of the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Form {
    /// Every check
    #[default]
    Table,
    /// Only what is not as it should be
    Short,
    /// JSON
    Json,
}

/// The text in this form.
pub(super) fn text(sections: &[Section], form: Form) -> Result<String> {
    match form {
        Form::Json => output::json(&value(sections)),
        Form::Table => Ok(table(sections, |_| true)),
        Form::Short => Ok(table(sections, |looked| matches!(looked.outcome, Outcome::Warning | Outcome::Failed))),
    }
}

/// What programs read.
pub(crate) fn value(sections: &[Section]) -> serde_json::Value {
    json!({
        "isWell": is_well(sections), "failed": count(sections, Outcome::Failed), "warnings": count(sections, Outcome::Warning),
        "skipped": count(sections, Outcome::Skipped), "sections": sections,
    })
}

fn table(sections: &[Section], is_shown: impl Fn(&Looked) -> bool) -> String {
    let mut text = String::new();
    for section in sections {
        let shown: Vec<_> = section.checks.iter().filter(|looked| is_shown(looked)).collect();
        if shown.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{}\n{}", section.name, "-".repeat(section.name.chars().count()));
        shown.into_iter().for_each(|looked| text.push_str(&line(looked)));
        text.push('\n');
    }
    text + &sum(sections)
}

fn line(looked: &Looked) -> String {
    let sign = match looked.outcome {
        Outcome::Good => '√',
        Outcome::Skipped => '-',
        Outcome::Warning => '‼',
        Outcome::Failed => '×',
    };
    let mut text = format!("{sign} {}", looked.title);
    if matches!(looked.outcome, Outcome::Good | Outcome::Skipped) {
        let seen = looked.seen.replace('\n', " ");
        return text + &(if seen.is_empty() { "\n".to_owned() } else { format!(": {seen}\n") });
    }
    text.push('\n');
    let below = looked.page.iter().map(|page| format!("see {page}"));
    for told in [&looked.seen, &looked.cure].into_iter().filter(|told| !told.is_empty()).cloned().chain(below) {
        let _ = writeln!(text, "    {}", told.trim_end().replace('\n', "\n    "));
    }
    text
}

fn sum(sections: &[Section]) -> String {
    let [failed, warnings, skipped] =
        [Outcome::Failed, Outcome::Warning, Outcome::Skipped].map(|of| count(sections, of));
    let parts = [
        (failed, format!("{failed} failed")),
        (warnings, format!("{warnings} {}", if warnings == 1 { "warning" } else { "warnings" })),
        (skipped, format!("{skipped} not looked at")),
    ];
    let told: Vec<_> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    match told.is_empty() {
        true => "All is well.\n".to_owned(),
        false => format!("{}.\n", told.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(outcome: Outcome, seen: &str, cure: &str) -> Looked {
        let is_wrong = matches!(outcome, Outcome::Warning | Outcome::Failed);
        let page = is_wrong.then(|| "docs/clients.md#logins".to_owned());
        Looked { id: "id", title: "it is so", outcome, seen: seen.to_owned(), cure: cure.to_owned(), page }
    }

    fn sections() -> Vec<Section> {
        let first = vec![looked(Outcome::Good, "as\nseen", ""), looked(Outcome::Good, "", "")];
        let second = vec![
            looked(Outcome::Failed, "one\ntwo", "mend it"),
            looked(Outcome::Warning, "old", ""),
            looked(Outcome::Skipped, "not known", ""),
        ];
        vec![
            Section { name: "operator".to_owned(), checks: first },
            Section { name: "a/b".to_owned(), checks: second },
            Section { name: "empty".to_owned(), checks: Vec::new() },
        ]
    }

    #[test]
    fn each_check_has_a_line_and_what_is_wrong_has_a_cure_and_a_page() {
        assert_eq!(
            text(&sections(), Form::Table).unwrap(),
            "operator\n--------\n√ it is so: as seen\n√ it is so\n\n\
             a/b\n---\n× it is so\n    one\n    two\n    mend it\n    see docs/clients.md#logins\n\
             ‼ it is so\n    old\n    see docs/clients.md#logins\n- it is so: not known\n\n\
             1 failed, 1 warning, 1 not looked at.\n"
        );
        assert_eq!(text(&sections()[..1], Form::Short).unwrap(), "All is well.\n");
        assert!(!text(&sections(), Form::Short).unwrap().contains('√'));
    }

    #[test]
    fn programs_read_the_same() {
        let value = value(&sections());
        assert_eq!((&value["isWell"], &value["failed"], &value["skipped"]), (&json!(false), &json!(1), &json!(1)));
        let wrong = &value["sections"][1]["checks"][0];
        assert_eq!((&wrong["outcome"], &wrong["cure"]), (&json!("failed"), &json!("mend it")), "{wrong}");
        assert_eq!(value["sections"][0]["checks"][1], json!({"id": "id", "title": "it is so", "outcome": "good"}));
    }
}
