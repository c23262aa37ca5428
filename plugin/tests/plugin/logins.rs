//! `logout`, which asks no cluster if it is told an address; what `login` writes is tried with real registries (tests/e2e).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::ask;

#[test]
fn a_login_is_taken_out_also_when_the_registry_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("auth.json");
    let before = "{\n\t\"auths\": {\n\t\t\"registry.example.com\": {\n\t\t\t\"auth\": \"cGxhbnRlZA==\"\n\t\t},\n\t\t\"other.example.com\": {\"auth\":\"x\"}\n\t},\n\t\"z\": 1.0\n}";
    fs::write(&file, before).unwrap();
    let logout = |address: &str| ask(&["logout", "team-a", "--address", address, "--authfile", file.to_str().unwrap()]);

    let answer = logout("registry.example.com:5000");
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.starts_with("There is no login at registry.example.com:5000 in "), "{}", answer.out);
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let answer = logout("registry.example.com");
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.starts_with("The login at registry.example.com was taken out of "), "{}", answer.out);
    let after = "{\n\t\"auths\": {\n\t\t\"other.example.com\": {\"auth\":\"x\"}\n\t},\n\t\"z\": 1.0\n}";
    assert_eq!(fs::read_to_string(&file).unwrap(), after);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_is_not_understood_and_a_helper_that_is_not_there_are_told_and_nothing_is_changed() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    for (text, words) in [
        (
            "{\"auths\": planted}",
            "config.json: nothing was changed: it is not the JSON that docker writes (line 1, column ",
        ),
        (
            "{\"auths\": {\"a.example\": {}}, \"credsStore\": \"none-of-that-name\"}",
            "run docker-credential-none-of-that-name erase",
        ),
        ("{\"auths\": {\"a.example\": {}}, \"credsStore\": \"../x\"}", "a name with a slash"),
    ] {
        fs::write(&file, text).unwrap();
        let answer = ask(&["logout", "team-a", "--address", "a.example", "--authfile", file.to_str().unwrap()]);
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""), "{text}");
        assert!(answer.err.contains(words) && !answer.err.contains("planted"), "{text}: {}", answer.err);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}

#[test]
fn a_password_is_never_an_argument() {
    for arguments in [
        &["login", "team-a", "--password", "x"][..],
        &["login", "team-a", "--user", "a:b"],
        &["login", "team-a", "--password-stdin"],
    ] {
        assert_eq!(ask(arguments).code, Some(2), "{arguments:?}");
    }
}
