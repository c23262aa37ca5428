//! One status write, only when it differs.
