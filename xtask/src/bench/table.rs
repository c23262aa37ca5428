//! What a person reads at the end, and what a program reads: a row for each number, with its goal.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use serde::{Serialize, Serializer};
use serde_json::Value;

/// One number.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// The measurement that gave it.
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) result: String,
    pub(super) goal: String,
    /// `None`: there is no goal.
    pub(super) is_met: Option<bool>,
    /// Everything that was measured on the way, for comparing runs. Times are in milliseconds unless the name says otherwise.
    pub(super) values: Value,
}

/// All of them.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub(super) took: Duration,
}

fn seconds<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(took.as_secs())
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 5] = ["name", "what", "result", "goal", "met"];
        let cells: Vec<[&str; 5]> = self.rows.iter().map(cells).collect();
        let mut widths = HEAD.map(|head| head.chars().count());
        for row in &cells {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in [HEAD].iter().chain(&cells) {
            let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", line.join("  ").trim_end())?;
        }
        for row in self.rows.iter().filter(|row| !row.values.is_null()) {
            write!(f, "\n{}, {}: {}", row.name, row.what, row.values)?;
        }
        write!(f, "\n\n{} s", self.took.as_secs())
    }
}

fn cells(row: &Row) -> [&str; 5] {
    let met = match row.is_met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    [row.name, &row.what, &row.result, &row.goal, met]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_a_missed_goal_is_seen() {
        let row = |what: &str, is_met| Row {
            name: "size",
            what: what.to_owned(),
            result: "9 MiB".to_owned(),
            goal: "≤ 12 MiB".to_owned(),
            is_met,
            values: Value::Null,
        };
        let rows = vec![row("program", Some(true)), row("a longer name", Some(false)), row("x", None)];
        let text = Table { rows, took: Duration::from_secs(61) }.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "name  what           result  goal      met");
        assert_eq!(lines[1], "size  program        9 MiB   ≤ 12 MiB  met");
        assert_eq!(lines[2], "size  a longer name  9 MiB   ≤ 12 MiB  NOT MET");
        assert_eq!(lines[3], "size  x              9 MiB   ≤ 12 MiB");
        assert!(text.ends_with("61 s"));
    }
}
