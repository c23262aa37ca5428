//! Pure builders, one file per kind of child.
