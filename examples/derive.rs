//! Prints what the types of the resource give: its definition as YAML, or with `outline` the names of its fields as JSON. `cargo xtask generate` writes
//! both into files, which the operator's program carries instead of what derives them.

use std::io::{self, Write as _};

use private_registry_operator::api;

fn main() -> io::Result<()> {
    let text = match std::env::args().nth(1).as_deref() {
        Some("outline") => api::outline_json(),
        _ => api::crd_yaml(),
    };
    io::stdout().write_all(text.as_bytes())
}
