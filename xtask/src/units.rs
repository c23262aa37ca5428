//! Numbers for people.

/// Bytes as MiB, for a display.
#[expect(clippy::cast_precision_loss, reason = "a display")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
