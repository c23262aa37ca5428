//! Conditions and the summary that a user reads.
