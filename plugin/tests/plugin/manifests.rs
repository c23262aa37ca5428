//! `check` and `render`.

use std::fs;

use crate::told;

fn registry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: privateregistry.dev/v1alpha1\nkind: PrivateRegistry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn check_names_file_object_field_and_reason_of_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), registry("one", "{replicas: 0, suspend: later}")).unwrap();
    fs::write(folder.path().join("b.yaml"), "metadata:\n\tname: two\n").unwrap();
    fs::write(folder.path().join("c.json"), registry("three", "{}")).unwrap();
    fs::write(folder.path().join("d.txt"), "no: manifest: at all").unwrap();
    let place = folder.path().to_str().unwrap();

    let answer = told(&["check", "-f", place, "-f", "-"], &registry("four", "{image: 'registry:2.8.3'}"));

    assert_eq!((answer.code, answer.out.as_str()), (Some(1), "3 PrivateRegistries, 2 invalid\n"));
    let lines: Vec<_> = answer.err.lines().collect();
    assert!(lines[0].starts_with(&format!("{place}/b.yaml: no YAML: ")) && lines[0].contains("line 2"), "{lines:?}");
    assert_eq!(lines[1], format!("{place}/a.yaml: PrivateRegistry shop/one: spec.replicas: must be at least 1"));
    assert_eq!(lines[2], format!("{place}/a.yaml: PrivateRegistry shop/one: spec.suspend: must be of type boolean"));
    assert!(
        lines[3].starts_with("standard input: PrivateRegistry shop/four: spec: spec.image is older than "),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[test]
fn check_is_content_with_what_is_valid_and_with_nothing_else() {
    let answer = told(&["check", "-f", "-"], &registry("one", "{}"));
    assert_eq!(
        (answer.code, answer.out.as_str(), answer.err.as_str()),
        (Some(0), "1 PrivateRegistry, 0 invalid\n", "")
    );
    for nothing in ["", "# nothing\n", "just words\n", "[1, 2]\n", "kind: Secret\n"] {
        let answer = told(&["check", "-f", "-"], nothing);
        assert_eq!(
            (answer.code, answer.err.as_str()),
            (Some(1), "no PrivateRegistry in standard input\n"),
            "{nothing}"
        );
    }
    let misspelt = registry("one", "{}").replace("privateregistry.dev", "privateregistries.dev");
    assert_eq!(told(&["check", "-f", "-"], &(registry("one", "{}") + &misspelt)).code, Some(1));
}

#[test]
fn render_prints_what_is_valid_and_says_by_its_code_that_something_is_not() {
    let both = registry("bad", "{replicas: 0}") + &registry("good", "{}");
    let answer = told(&["render", "-f", "-"], &both);
    assert_eq!(answer.code, Some(1));
    assert_eq!(answer.err, "standard input: PrivateRegistry shop/bad: spec.replicas: must be at least 1\n");
    assert_eq!(answer.out, told(&["render", "-f", "-"], &registry("good", "{}")).out);
}
