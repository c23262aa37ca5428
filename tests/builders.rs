//! What the operator makes of a manifest: a folder for each case, `registry.yaml` in, `children.snap` out. To accept a change:
//! `INSTA_UPDATE=always cargo test --test builders`, then read the difference.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::fs;
use std::path::Path;

use kubectl_registry::render::{self, Rendered};

fn render(manifest: &Path) -> String {
    let Rendered { yaml, faults } = render::render(&[manifest.to_owned()]);
    assert_eq!(faults, Vec::<String>::new(), "{}", manifest.display());
    // The operator's own version is part of its image's name, and that of what the template's hash is made from.
    let text = yaml.replace(concat!("operator:", env!("CARGO_PKG_VERSION")), "operator:VERSION");
    let hash = "privateregistry.dev/template: ";
    let lines = text.lines().map(|line| match line.split_once(hash) {
        Some((indent, _)) => format!("{indent}{hash}HASH\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

fn cases() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/builders");
    let mut cases: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

#[test]
fn every_case_is_rendered_as_before() {
    assert!(cases().len() > 10);
    for case in cases() {
        let children = render(&case.join("registry.yaml"));
        insta::with_settings!({
            snapshot_path => &case, prepend_module_to_snapshot => false, omit_expression => true,
        }, {
            insta::assert_snapshot!("children", children);
        });
    }
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    for case in cases() {
        let manifest = case.join("registry.yaml");
        assert_eq!(render(&manifest), render(&manifest), "{}", manifest.display());
    }
}

#[test]
fn no_null_and_nothing_empty_is_ever_sent() {
    // Either would differ for ever from what the API server stores.
    for case in cases() {
        for line in render(&case.join("registry.yaml")).lines() {
            let value = line.rsplit(": ").next().unwrap_or_default().trim();
            let is_user_text = line.contains("securityContext");
            assert!(is_user_text || !["null", "~", "[]", "{}"].contains(&value), "{}: {line}", case.display());
        }
    }
}

#[test]
fn an_invalid_manifest_gives_no_output_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("registry.yaml");
    let text = "apiVersion: privateregistry.dev/v1alpha1\nkind: PrivateRegistry\nmetadata: {name: team-a}\nspec: {extraConfig: {storge: {}}}\n";
    fs::write(&manifest, text).unwrap();

    let Rendered { yaml, faults } = render::render(&[manifest]);

    let [words] = &faults[..] else { panic!("{faults:?}") };
    assert_eq!(yaml, "");
    assert!(
        words.contains("spec.extraConfig") && words.contains("storge") && words.contains("registry.yaml"),
        "{words}"
    );
}
