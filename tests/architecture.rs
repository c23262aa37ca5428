//! The wall inside the product: modules import in one direction only, and what decides has no client, no clock, no randomness and no async.
//! Reads the source as text: no compiler needs to be taught, and a violation is named by file and line.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
};

/// What each module may import, besides itself. A module within a module stands for itself; its row is about it alone, and who may
/// import the outer one may not import it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "PROGRAM",
            "VERSION",
            "api",
            "controller",
            "desired",
            "metrics",
            "model",
            "node",
            "node::agent",
            "node::disk",
            "sidecar",
        ],
    ),
    (
        "controller",
        &["PROGRAM", "api", "desired", "metrics", "model", "node", "observe", "parts", "status", "status::write"],
    ),
    (
        "parts",
        &[
            "access",
            "access::keys",
            "api",
            "credentials",
            "credentials::generated",
            "credentials::hashing",
            "desired",
            "metrics",
            "model",
            "node",
            "observe",
            "pki",
            "pki::issue",
            "secret",
            "status",
        ],
    ),
    ("node::agent", &["node", "node::disk", "node::watch"]),
    ("node::watch", &["node"]),
    ("node::disk", &["node"]),
    ("node", &["api", "model", "pki"]),
    (
        "sidecar",
        &[
            "access",
            "access::expressions",
            "access::keys",
            "credentials",
            "pki",
            "secret",
            "sidecar::gate::question",
            "sidecar::logins",
            "sidecar::reloader",
            "sidecar::softlock",
            "sidecar::tokens::mount",
            "sidecar::tokens::request",
        ],
    ),
    ("sidecar::logins", &["credentials", "secret"]),
    ("sidecar::softlock", &["sidecar::logins"]),
    ("sidecar::tokens::mount", &[]),
    ("sidecar::tokens::request", &["access", "secret", "sidecar::logins"]),
    ("sidecar::gate::question", &["access"]),
    ("sidecar::reloader", &["pki"]),
    ("observe", &["api", "desired", "model", "secret"]),
    ("status::write", &["api", "status"]),
    ("status", &["access", "api", "desired", "model", "pki"]),
    ("desired", &["api", "credentials", "model", "node", "pki", "secret"]),
    ("model", &["access", "access::expressions", "api", "credentials", "pki", "secret"]),
    ("pki::issue", &["pki", "secret"]),
    ("pki", &["secret"]),
    ("credentials::generated", &["credentials", "secret"]),
    ("credentials::hashing", &["credentials", "secret"]),
    ("credentials", &["secret"]),
    ("access::expressions", &["access"]),
    ("access::keys", &["access", "credentials::generated", "secret"]),
    ("access", &["api", "secret"]),
    ("api", &[]),
    ("metrics", &[]),
    ("secret", &[]),
];

/// Modules that only decide.
const PURE: &[&str] = &[
    "access",
    "api",
    "credentials",
    "desired",
    "model",
    "node",
    "pki",
    "sidecar::gate::question",
    "sidecar::logins",
    "sidecar::reloader",
    "sidecar::softlock",
    "sidecar::tokens::mount",
    "sidecar::tokens::request",
    "status",
];

/// Words that mean a client, a clock, randomness, waiting, or an order that changes from run to run.
const IMPURE_WORDS: &[&str] = &[
    "Api",
    "Client",
    "HashMap",
    "HashSet",
    "SystemRandom",
    "async",
    "await",
    "getrandom",
    "hyper",
    "rand",
    "tokio",
    "tower",
];
const IMPURE_PATHS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
];

#[test]
fn modules_import_in_one_direction_only() {
    let source = Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(report(&source.wrong_imports()), "");
}

#[test]
fn what_decides_has_no_client_no_clock_no_randomness_and_no_async() {
    let source = Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert_eq!(report(&source.impurities()), "");
}

#[test]
fn every_module_has_its_row_and_every_row_its_module() {
    let source = Source::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let present: BTreeSet<_> =
        source.files.iter().map(|file| file.module[0].as_str()).filter(|name| *name != "lib").collect();
    let rows: BTreeSet<_> = MAY_IMPORT.iter().filter_map(|(module, _)| module.split("::").next()).collect();
    assert_eq!(present, rows);
    for (module, _) in MAY_IMPORT {
        let path: Vec<_> = module.split("::").collect();
        assert!(source.files.iter().any(|file| file.module == path), "{module} is no module");
    }
}

#[test]
fn planted_violations_are_found_with_file_and_line() {
    let planted = [
        ("model/a.rs", "//! use crate::observe;\n\nuse crate::observe::diff;\n", "model/a.rs:3: model imports observe"),
        ("model/a.rs", "use crate::{\n    api,\n    observe::read,\n};\n", "model/a.rs:3: model imports observe"),
        (
            "api/a.rs",
            "use crate::pki::{issue::leaf, policy};\n",
            "api/a.rs:1: api imports pki::issue\napi/a.rs:1: api imports pki",
        ),
        ("pki/policy.rs", "fn x() { super::issue::issue_leaf() }\n", "pki/policy.rs:1: pki imports pki::issue"),
        ("secret/b.rs", "const X: &str = crate::api::NAME;\n", "secret/b.rs:1: secret imports api"),
        ("new/mod.rs", "use crate::secret;\n", "new/mod.rs:1: new imports secret"),
        ("desired/c.rs", "use kube::{Api, ResourceExt};\n", "desired/c.rs:1: Api"),
        ("status/d.rs", "fn x() {\n    let y = jiff::Timestamp::now();\n}\n", "status/d.rs:2: Timestamp::now"),
        ("credentials/e.rs", "pub async fn x() {}\n", "credentials/e.rs:1: async"),
        ("api/f.rs", "use std::{\n    collections::HashMap,\n};\n", "api/f.rs:2: HashMap"),
    ];
    for (path, text, expected) in planted {
        let source = Source::of([(path, text)]);
        let found: Vec<_> = source.wrong_imports().into_iter().chain(source.impurities()).collect();
        assert_eq!(report(&found), expected, "{text}");
    }
}

#[test]
fn comments_texts_and_tests_are_not_code() {
    let harmless = r##"
        //! Client, tokio
        /* async /* nested */ crate::observe */
        const A: &str = "Client \" crate::observe";
        const B: &str = r#"tokio " crate::observe"#;
        const C: [char; 2] = ['"', '\''];
        fn generic<'a>(of: &'a str) {}
        #[cfg(test)]
        use crate::observe::Live;
        #[cfg(test)]
        #[path = "elsewhere.rs"]
        mod tests;
        #[cfg(test)]
        mod more {
            fn x() { let y = "}"; tokio::spawn() }
        }
    "##;
    let source =
        Source::of([("model/a.rs", harmless), ("model/elsewhere.rs", "use crate::observe;\nuse tokio::test;\n")]);
    assert_eq!(report(&source.wrong_imports()), "");
    assert_eq!(report(&source.impurities()), "");
    let not_a_test = Source::of([("model/a.rs", ""), ("model/elsewhere.rs", "use crate::observe;\n")]);
    assert_eq!(report(&not_a_test.wrong_imports()), "model/elsewhere.rs:1: model imports observe");
}

/// Something that stands where it must not.
struct Violation {
    path: PathBuf,
    line: usize,
    what: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

fn report(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The product's code, without its tests.
struct Source {
    files: Vec<File>,
}

struct File {
    /// Below `src`.
    path: PathBuf,
    /// `["pki", "issue"]` for `pki/issue.rs`.
    module: Vec<String>,
    /// Comments, texts and tests are blanks; everything else is where it was.
    code: String,
}

impl Source {
    fn read(src: &Path) -> Self {
        let mut texts = BTreeMap::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    texts.insert(path.strip_prefix(src).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
                }
            }
        }
        assert!(texts.len() > 50, "{} has too few files to be the product", src.display());
        Self::of(texts.iter().map(|(path, text)| (path.to_str().unwrap(), text.as_str())))
    }

    fn of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut files = Vec::new();
        let mut tests = Vec::new();
        for (path, text) in texts {
            let path = PathBuf::from(path);
            let mut code = without_comments_and_texts(text);
            tests.extend(blank_tests(&mut code, text, &path));
            files.push(File { module: module(&path), path, code });
        }
        let is_test = |path: &Path| {
            tests.iter().any(|test| path == test || path.with_extension("").starts_with(test.with_extension("")))
        };
        files.retain(|file| !is_test(&file.path));
        Self { files }
    }

    fn wrong_imports(&self) -> Vec<Violation> {
        self.files.iter().flat_map(File::wrong_imports).collect()
    }

    fn impurities(&self) -> Vec<Violation> {
        let pure = self.files.iter().filter(|file| PURE.contains(&row(&file.module).as_str()));
        pure.flat_map(File::impurities).collect()
    }
}

impl File {
    fn wrong_imports(&self) -> Vec<Violation> {
        let own = row(&self.module);
        let allowed = MAY_IMPORT.iter().find(|(module, _)| *module == own).map_or(&[][..], |(_, allowed)| *allowed);
        let wrong = self.imports().into_iter().map(|(position, path)| (position, row(&path)));
        let wrong = wrong.filter(|(_, to)| *to != own && !allowed.contains(&to.as_str()));
        wrong.map(|(position, to)| self.violation(position, format!("{own} imports {to}"))).collect()
    }

    fn impurities(&self) -> Vec<Violation> {
        let words = IMPURE_WORDS.iter().chain(IMPURE_PATHS);
        words
            .flat_map(|word| places(&self.code, word).map(|position| self.violation(position, (*word).to_owned())))
            .collect()
    }

    fn violation(&self, position: usize, what: String) -> Violation {
        Violation { path: self.path.clone(), line: self.code[..position].matches('\n').count() + 1, what }
    }

    /// Every path into this crate and where it stands.
    fn imports(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        for position in places(&self.code, "crate") {
            tree(&self.code, position + "crate".len(), &[], &mut found);
        }
        for position in places(&self.code, "super") {
            let already = self.code[..position].trim_end().ends_with("super::");
            let supers = self.code[position..].split("::").take_while(|segment| segment.trim() == "super").count();
            if !already && supers > 0 {
                let from = self.module.len().saturating_sub(supers);
                tree(
                    &self.code,
                    position + "super".len() + (supers - 1) * "::super".len(),
                    &self.module[..from],
                    &mut found,
                );
            }
        }
        found.retain(|(_, path)| !path.is_empty());
        found
    }
}

/// Follows `::a::{b, c::d}` from `position`, and adds each path with the place of its last name.
fn tree(code: &str, position: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) {
    let Some(rest) = code[position..].strip_prefix("::") else { return };
    let begin = position + 2;
    if rest.starts_with('{') {
        let mut depth = 0;
        for (offset, character) in rest.char_indices() {
            depth += i32::from(character == '{') - i32::from(character == '}');
            let is_first = (character == '{' || character == ',') && depth == 1;
            if is_first {
                let inner = &rest[offset + 1..];
                let name = begin + offset + 1 + (inner.len() - inner.trim_start().len());
                names(code, name, prefix, found);
            }
            if depth == 0 {
                return;
            }
        }
        return;
    }
    names(code, begin, prefix, found);
}

fn names(code: &str, begin: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) {
    let length = code[begin..].find(|character: char| !is_word(character)).unwrap_or(code.len() - begin);
    if length == 0 {
        return;
    }
    let path = [prefix, &[code[begin..begin + length].to_owned()]].concat();
    let (before, end) = (found.len(), begin + length);
    tree(code, end, &path, found);
    if found.len() == before {
        found.push((begin, path));
    }
}

/// The row of [`MAY_IMPORT`] that a path falls under: the longest that fits, or its first name.
fn row(path: &[String]) -> String {
    let inner = path.iter().take(2).cloned().collect::<Vec<_>>().join("::");
    match MAY_IMPORT.iter().find(|(module, _)| *module == inner) {
        Some((module, _)) => (*module).to_owned(),
        None => path.first().cloned().unwrap_or_default(),
    }
}

fn module(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let names = names.iter().map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name != "mod").collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Where `word` stands as a whole word or path.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> {
    code.match_indices(word).map(|(position, _)| position).filter(move |position| {
        let before = code[..*position].chars().next_back();
        let after = code[position + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Blanks every item under `#[cfg(test)]`. Gives the files of modules that are such items.
fn blank_tests(code: &mut String, text: &str, path: &Path) -> Vec<PathBuf> {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut files = Vec::new();
    while let Some(begin) = code.find(ATTRIBUTE) {
        let mut depth = 0;
        let end = code[begin + ATTRIBUTE.len()..].char_indices().find_map(|(offset, character)| {
            depth += i32::from(matches!(character, '{' | '(' | '[')) - i32::from(matches!(character, '}' | ')' | ']'));
            let ends = depth == 0 && (character == ';' || character == '}');
            ends.then_some(begin + ATTRIBUTE.len() + offset + 1)
        });
        let end = end.unwrap_or(code.len());
        if let Some(name) = code[begin..end]
            .split_whitespace()
            .skip_while(|word| *word != "mod")
            .nth(1)
            .and_then(|word| word.strip_suffix(';'))
        {
            files.push(file_of(name, &text[begin..end], path));
        }
        let blank: String =
            code[begin..end].chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(begin..end, &blank);
    }
    files
}

/// The file of `mod NAME;`, declared in `path`.
fn file_of(name: &str, declaration: &str, path: &Path) -> PathBuf {
    if let Some((_, named)) = declaration.split_once("#[path = \"") {
        return path.with_file_name(named.split('"').next().unwrap_or_default());
    }
    let folder = if path.file_name().is_some_and(|file| file == "mod.rs") {
        path.parent().unwrap().to_owned()
    } else {
        path.with_extension("")
    };
    folder.join(name).with_extension("rs")
}

/// The same text with blanks for comments and for what stands between quotes. Bytes keep their places.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut position = 0;
    while position < text.len() {
        let length = blank_length(&text.as_bytes()[position..]);
        for byte in &mut code[position..position + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        position += length.max(1);
    }
    String::from_utf8(code).expect("whole characters were blanked")
}

/// How many bytes of a comment, a text or a character begin here.
fn blank_length(rest: &[u8]) -> usize {
    let until = |end: &[u8], from: usize| {
        let found = rest[from..].windows(end.len()).position(|window| window == end);
        found.map_or(rest.len(), |offset| from + offset + end.len())
    };
    match rest {
        [b'/', b'/', ..] => until(b"\n", 0).saturating_sub(1).max(2),
        [b'/', b'*', ..] => {
            let (mut depth, mut at) = (1, 2);
            while depth > 0 && at < rest.len() {
                match &rest[at..] {
                    [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                    [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
            at
        }
        [b'r', after @ ..] if after.iter().find(|byte| **byte != b'#') == Some(&b'"') => {
            let hashes = after.iter().take_while(|byte| **byte == b'#').count();
            until(&[b"\"".as_slice(), &vec![b'#'; hashes]].concat(), hashes + 2)
        }
        [b'"', ..] => quoted(rest, b'"'),
        // A lifetime has no closing quote after its one letter, or is longer.
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        [b'\'', letter, b'\'', ..] if *letter != b'\'' => 3,
        [b'\'', first, ..] if !first.is_ascii() => quoted(rest, b'\''),
        _ => 0,
    }
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
