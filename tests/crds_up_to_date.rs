//! The committed definition is the one that the code gives, wherever a copy of it is needed.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::{fs, path::Path};

use private_registry_operator::api::{crd_yaml, outline_json};

#[test]
fn the_committed_definition_and_its_copy_in_the_chart_are_what_the_code_gives() {
    for path in [
        "crds/privateregistries.privateregistry.dev.yaml",
        "charts/private-registry-crds/files/privateregistries.privateregistry.dev.yaml",
    ] {
        let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        assert!(committed == crd_yaml(), "{path} is older than the code: run `cargo xtask generate`");
    }
}

#[test]
fn the_outline_of_the_schema_that_the_operator_carries_is_what_the_code_gives() {
    let committed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/outline.json")).unwrap();
    assert!(committed == outline_json(), "src/api/outline.json is older than the code: run `cargo xtask generate`");
}
