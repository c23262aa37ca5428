//! Which registry is looked at next.
