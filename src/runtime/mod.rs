//! The process around the loop.
