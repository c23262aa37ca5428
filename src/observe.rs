//! Reads of the objects that a manifest refers to.
