//! How large the program is on disk, as an image carries it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::table::Row;
use crate::units::mebibytes;

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
