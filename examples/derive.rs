//! Prints what the types of the resource give: its definition as YAML, or with `outline` the names of its fields as JSON. `cargo xtask generate` writes
//! both into files, which the operator's program carries instead of what derives them.

use private_registry_operator::api;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("outline") => print!("{}", api::outline_json()),
        _ => print!("{}", api::crd_yaml()),
    }
}
