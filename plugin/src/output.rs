//! How answers look: `-o`, tables, ages and sizes. What is in them is each command's own.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// Columns for people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names alone, one a line
    Name,
}

/// A value as JSON or YAML text.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("write JSON")? + "\n")
}

/// The same as YAML.
pub(crate) fn yaml(value: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(value).context("write YAML")
}

/// Names, in each form.
pub(crate) fn names(head: &str, names: &[String], form: Form) -> Result<String> {
    let lines = || names.iter().map(|name| format!("{name}\n")).collect::<String>();
    match form {
        Form::Table => Ok(format!("{head}\n{}", lines())),
        Form::Name => Ok(lines()),
        Form::Json => json(&names),
        Form::Yaml => yaml(&names),
    }
}

/// Columns as wide as they must be. What is not known is `-`.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { cell.to_owned() };
    let head: Vec<_> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let all = || std::iter::once(&head).chain(&rows);
    let widths: Vec<_> = (0..head.len())
        .map(|column| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

/// How long ago, as kubectl writes it: `45s`, `5m10s`, `3h`, `12d`, `2y30d`.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(since).as_secs().max(0))
}

/// A number of seconds in at most two units.
pub(crate) fn span(seconds: i64) -> String {
    let two = |large: i64, unit: &str, small: i64, other: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{other}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if minutes < 2 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () => two(days / 365, "y", days % 365, "d"),
    }
}

/// Bytes as people say them: `512 B`, `4.2 KiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    #[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
    let mut left = bytes as f64;
    let mut unit = "B";
    for next in units {
        if left < 1024.0 {
            break;
        }
        (left, unit) = (left / 1024.0, next);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{left:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_trails() {
        let rows = [vec!["a".to_owned(), String::new()], vec!["größer".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["NAME", "LAST"], &rows), "NAME     LAST\na        -\ngrößer   b\n");
        assert_eq!(table(&["NAME"], &[]), "NAME\n");
    }

    #[test]
    fn an_age_has_the_units_that_kubectl_shows() {
        for (seconds, words) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (23_400, "6h30m"),
            (100_000, "27h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (8 * 86400 + 7200, "8d"),
            (729 * 86400, "729d"),
            (760 * 86400, "2y30d"),
        ] {
            assert_eq!(span(seconds), words, "{seconds}");
        }
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(age(at("2026-11-30T00:00:00Z"), at("2026-11-30T00:05:10.9Z")), "5m10s");
        assert_eq!(age(at("2026-11-30T00:00:10Z"), at("2026-11-30T00:00:00Z")), "0s", "clocks differ");
    }

    #[test]
    fn sizes_have_one_digit_behind_the_point() {
        for (bytes, words) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), words);
        }
    }
}
