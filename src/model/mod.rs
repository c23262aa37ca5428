//! What we know to be true.
