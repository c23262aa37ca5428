//! Expressions of the manifest in CEL: what the claims of an issuer's token mean here.

use cel::{Context, Value};

use super::issuer::{Guest, Issuer};
use super::jwt::Claims;

/// Deepest expression, in brackets.
const DEEPEST: u16 = 16;
/// Bytes of stack for the longest expression. What is not used costs nothing.
const STACK: usize = 64 << 20;
/// What goes through a list, and how often an expression may: lists within lists would take for ever.
const LOOPS: [&str; 5] = [".all(", ".exists(", ".exists_one(", ".filter(", ".map("];
const MOST_LOOPS: usize = 2;
/// Bytes of all groups of a token: they stand in each token of the registry, and a head has little room.
const LARGEST_GROUPS: usize = 4 << 10;
/// Longest expression, in bytes.
pub const LONGEST: usize = 512;
/// Longest name that an expression may give, in bytes.
const LONGEST_NAME: usize = 255;
/// Groups that an expression may give.
const MOST_GROUPS: usize = 64;

/// Whether an expression can be understood.
///
/// # Errors
/// Why not.
pub fn check(expression: &str) -> Result<(), String> {
    aside(|| parse(expression).map(drop))
}

fn parse(expression: &str) -> Result<cel::common::ast::IdedExpr, String> {
    if expression.len() > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let loops: usize = LOOPS.iter().map(|name| expression.matches(name).count()).sum();
    if loops > MOST_LOOPS {
        return Err(format!("it goes through lists {loops} times, of {MOST_LOOPS} that there is time for"));
    }
    cel::parser::Parser::new().max_recursion_depth(DEEPEST).parse(expression).map_err(|error| brief(&error.to_string()))
}

/// The first fault, without the picture of where it is.
fn brief(error: &str) -> String {
    error.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Works with expressions. Reading and evaluating them recurses as deep as they are long, and is code of somebody else's: a thread with a stack of its own keeps
/// its faults with the expression.
fn aside<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let failed = || "cannot be evaluated".to_owned();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

/// Who it is that these claims of an issuer's token are about.
///
/// # Errors
/// The expressions give nothing that could be a name; which, and why.
pub fn guest(issuer: &Issuer, claims: &Claims) -> Result<Guest, String> {
    aside(|| evaluated(issuer, claims))
}

fn evaluated(issuer: &Issuer, claims: &Claims) -> Result<Guest, String> {
    let user = evaluate(&issuer.user, claims).and_then(|value| text(&value));
    let user = user.map_err(|why| format!("claimMapping.user {why}"))?;
    let groups = match &issuer.groups {
        Some(expression) => {
            let groups = evaluate(expression, claims).and_then(|value| texts(&value));
            groups.map_err(|why| format!("claimMapping.groups {why}"))?
        }
        None => Vec::new(),
    };
    let size: usize = groups.iter().map(String::len).sum();
    if size > LARGEST_GROUPS {
        return Err(format!(
            "claimMapping.groups gives groups of {size} bytes, of {LARGEST_GROUPS} that there is room for"
        ));
    }
    let of_issuer = |name: &String| format!("{}:{name}", issuer.name);
    Ok(Guest { name: of_issuer(&user), groups: groups.iter().map(of_issuer).collect() })
}

fn evaluate(expression: &str, claims: &Claims) -> Result<Value, String> {
    let parsed = parse(expression)?;
    let mut context = Context::default();
    context.add_variable("claims", claims).map_err(|_| "cannot be told what the token says".to_owned())?;
    // The error's own words may repeat what the token says.
    context.resolve(&parsed).map_err(|_| "cannot be evaluated for this token: it names a claim that the token does not have, or compares what cannot be compared".to_owned())
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) if is_name(text) => Ok(text.to_string()),
        Value::String(_) => {
            Err(format!("gives what cannot be a name: one has 1 to {LONGEST_NAME} bytes and no blanks"))
        }
        other => Err(format!("gives {} and no text", other.type_of())),
    }
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(all) if all.len() <= MOST_GROUPS => all.iter().map(text).collect(),
        Value::List(all) => Err(format!("gives {} groups, of {MOST_GROUPS} that there is room for", all.len())),
        other => Err(format!("gives {} and no list", other.type_of())),
    }
}

fn is_name(text: &str) -> bool {
    let is_visible = |letter: char| !letter.is_whitespace() && !letter.is_control();
    !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(is_visible)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::super::issuer::SUBJECT;
    use super::*;

    fn issuer(user: &str, groups: Option<&str>) -> Issuer {
        Issuer {
            name: "github".to_owned(),
            url: "https://ci.example.com".to_owned(),
            audience: "here".to_owned(),
            user: user.to_owned(),
            groups: groups.map(str::to_owned),
            has_file: false,
            authority: None,
        }
    }

    fn claims() -> Claims {
        let claims = json!({
            "sub": "repo:acme/web:ref:refs/heads/main", "repository": "acme/web", "repository_owner": "acme", "ref": "refs/heads/main",
            "teams": ["a", "b"], "number": 7, "blank": "a b", "long": "x".repeat(256), "many": vec!["g"; 65], "wide": vec!["w".repeat(200); 30], "empty": "", "exp": 1_800_000_000,
        });
        let Json::Object(claims) = claims else { panic!() };
        claims
    }

    #[test]
    fn expressions_say_who_somebody_is() {
        for (user, groups, name, in_groups) in [
            (SUBJECT, None, "github:repo:acme/web:ref:refs/heads/main", &[][..]),
            ("claims.repository", Some("[claims.repository_owner]"), "github:acme/web", &["github:acme"]),
            ("claims['repository_owner'] + '/x'", Some("claims.teams"), "github:acme/x", &["github:a", "github:b"]),
            (
                "claims.repository",
                Some("claims.ref == 'refs/heads/main' ? ['release'] : []"),
                "github:acme/web",
                &["github:release"],
            ),
            ("claims.repository", Some("claims.teams.filter(team, team != 'a')"), "github:acme/web", &["github:b"]),
            ("has(claims.email) ? claims.email : claims.repository", Some("[]"), "github:acme/web", &[]),
        ] {
            let found = guest(&issuer(user, groups), &claims()).unwrap();
            assert_eq!(
                (found.name.as_str(), found.groups.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
                (name, in_groups),
                "{user}"
            );
            assert_eq!(found.issuer(), "github");
        }
    }

    #[test]
    fn what_gives_no_name_lets_nobody_in_and_repeats_nothing() {
        for (user, groups, why) in [
            ("claims.number", None, "claimMapping.user gives"),
            ("claims.empty", None, "cannot be a name"),
            ("claims.blank", None, "cannot be a name"),
            ("claims.long", None, "cannot be a name"),
            ("claims.missing", None, "does not have"),
            ("claims.repository - 1", None, "cannot be evaluated"),
            ("'x'", Some("claims.repository"), "claimMapping.groups gives"),
            ("'x'", Some("[1]"), "claimMapping.groups gives"),
            ("'x'", Some("claims.many"), "65 groups"),
            ("'x'", Some("claims.wide"), "of 4096"),
        ] {
            let error = guest(&issuer(user, groups), &claims()).unwrap_err();
            assert!(error.contains(why) && !error.contains("acme"), "{user}: {error}");
        }
    }

    #[test]
    fn expressions_that_cannot_be_understood_are_told() {
        let deep = |open: &str, close: &str, times| format!("{}1{}", open.repeat(times), close.repeat(times));
        for expression in [
            "",
            "claims.",
            "claims.sub ==",
            "'a",
            &"a".repeat(LONGEST + 1),
            &deep("(", ")", 200),
            &deep("[", "]", 200),
            "}{",
            "\u{0}",
            "é",
        ] {
            assert!(check(expression).is_err(), "{expression}");
        }
        let loops = "[1].all(a, [1].all(b, [1].all(c, true)))";
        assert!(check(loops).unwrap_err().contains("3 times"));
        let said = check(&"#".repeat(LONGEST)).unwrap_err();
        assert!(said.len() <= 200 && !said.contains('\n'), "{said}");
        // Deep without brackets, on as much stack as a thread of the operator has.
        let long = [
            "!".repeat(LONGEST - 4) + "true",
            "-".repeat(LONGEST - 1) + "1",
            "a".to_owned() + &".a".repeat(250),
            "1".to_owned() + &"+1".repeat(250),
            "a".to_owned() + &"?a:a".repeat(120),
        ];
        for expression in long {
            let look = move || {
                let _ = check(&expression);
                let _ = guest(&issuer(&expression, None), &claims());
            };
            std::thread::Builder::new().stack_size(2 << 20).spawn(look).unwrap().join().unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_expression_is_too_strange(text in "[a-z0-9.()\\[\\]{}'\"+!?: -]{0,60}") {
            let _ = check(&text);
            let _ = guest(&issuer(&text, Some(&text)), &claims());
        }
    }
}
