//! How large the program is on disk, as an image carries it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::table::Row;

const GOAL: f64 = 12.0;

pub(super) fn measure(program: &Path) -> Result<[Row; 1]> {
    let bytes = std::fs::metadata(program).with_context(|| format!("look at {}", program.display()))?.len();
    let mebibytes = mebibytes(bytes);
    Ok([Row {
        name: "size",
        what: "stripped program".to_owned(),
        result: format!("{mebibytes:.1} MiB"),
        goal: format!("≤ {GOAL} MiB"),
        is_met: Some(mebibytes <= GOAL),
        values: json!({"bytes": bytes}),
    }])
}

#[expect(clippy::cast_precision_loss, reason = "a display")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
