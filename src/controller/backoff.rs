//! How long a failing registry waits for its next pass.
