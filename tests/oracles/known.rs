//! What the oracles have found and nobody has mended yet. A case that stands here must fail: the test that would pass says so, and the row goes.

/// Oracle, case, and what is wrong.
const KNOWN: &[(&str, &str, &str)] = &[];

/// Judges the complaints of one oracle, by case: those that are known are expected, all others fail, and so does a known one that no longer comes.
pub fn judge(oracle: &str, complaints: &[(String, String)]) {
    let known = |case: &str| KNOWN.iter().any(|row| row.0 == oracle && row.1 == case);
    let new: Vec<_> =
        complaints.iter().filter(|(case, _)| !known(case)).map(|(case, what)| format!("{case}: {what}")).collect();
    let mended: Vec<_> = KNOWN
        .iter()
        .filter(|row| row.0 == oracle && !complaints.iter().any(|(case, _)| case == row.1))
        .map(|row| format!("{} is mended, take it out of the table: {}", row.1, row.2))
        .collect();
    assert!(
        new.is_empty() && mended.is_empty(),
        "{oracle}: {} complaints\n{}\n{}",
        new.len(),
        new.join("\n"),
        mended.join("\n")
    );
}
