//! `diff`: how two images differ, without pulling either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::access::Access;
use crate::output::{self, Form};
use crate::registry_client::manifest::{Image, Inspected};
use crate::{cluster, inspect, shell};

/// Options of `diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// An image
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
    first: String,
    /// Another
    #[arg(value_name = "OTHER")]
    second: String,
    /// How to print it
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// Everything in which two images differ.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Differences {
    first: Named,
    second: Named,
    /// Of the manifests or indexes themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    /// Platforms that differ, or that only one of them has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<Platform>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Named {
    reference: String,
    digest: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Platform {
    platform: String,
    changes: Vec<Change>,
}

/// One thing; what only one of them has is `None` in the other.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Change {
    what: String,
    first: Option<String>,
    second: Option<String>,
}

/// Whether they are the same.
pub(crate) fn run(options: &Options) -> Result<bool> {
    cluster::wait(async {
        let mut opened = options.access.open().await?;
        let (first, second) = (opened.reference(&options.first)?, opened.reference(&options.second)?);
        let first = inspect::read(&mut opened, &first).await?;
        let second = inspect::read(&mut opened, &second).await?;
        let found = differences(&first, &second);
        shell::print(&match options.output {
            Form::Table => page(&found),
            Form::Name => names(&found),
            Form::Json => output::json(&found)?,
            Form::Yaml => output::yaml(&found)?,
        });
        Ok(found.first.digest == found.second.digest)
    })
}

fn differences(first: &Inspected, second: &Inspected) -> Differences {
    let named = |image: &Inspected| Named { reference: image.reference.clone(), digest: image.digest.clone() };
    let mut changes = Changes::default();
    changes.word("type", &first.media_type, &second.media_type);
    changes.word("artifact", some(&first.artifact_type), some(&second.artifact_type));
    changes.pairs("annotation", &first.annotations, &second.annotations);
    let platforms = if first.is_index || second.is_index {
        let sides = [by_platform(first), by_platform(second)];
        let all: BTreeSet<_> = sides.iter().flat_map(BTreeMap::keys).collect();
        let image = |side: &BTreeMap<String, _>, platform| side.get(platform).copied();
        all.into_iter().filter_map(|name| one(name, image(&sides[0], name), image(&sides[1], name))).collect()
    } else {
        one("", first.images.first(), second.images.first()).into_iter().collect()
    };
    Differences { first: named(first), second: named(second), changes: changes.0, platforms }
}

/// Several of the same platform are told apart by their place.
fn by_platform(image: &Inspected) -> BTreeMap<String, &Image> {
    let mut found = BTreeMap::new();
    for image in &image.images {
        let mut name = image.platform.clone();
        let mut number = 1;
        while found.contains_key(&name) {
            number += 1;
            name = format!("{} #{number}", image.platform);
        }
        found.insert(name, image);
    }
    found
}

fn one(platform: &str, first: Option<&Image>, second: Option<&Image>) -> Option<Platform> {
    let mut changes = Changes::default();
    match (first, second) {
        (Some(first), Some(second)) if first.digest == second.digest => return None,
        (Some(first), Some(second)) => changes.images(first, second),
        (first, second) => {
            let digest = |image: Option<&Image>| image.map(|image| image.digest.clone());
            changes.0.push(Change { what: "image".to_owned(), first: digest(first), second: digest(second) });
        }
    }
    Some(Platform { platform: platform.to_owned(), changes: changes.0 })
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    fn images(&mut self, first: &Image, second: &Image) {
        let command = |words: &[String]| inspect::words(words);
        self.word("not known", some(&first.missing), some(&second.missing));
        self.word("platform", &first.platform, &second.platform);
        self.word("size", &first.compressed_bytes.to_string(), &second.compressed_bytes.to_string());
        self.word("created", some(&first.created), some(&second.created));
        self.word("entrypoint", &command(&first.entrypoint), &command(&second.entrypoint));
        self.word("command", &command(&first.cmd), &command(&second.cmd));
        self.word("user", &first.more.user, &second.more.user);
        self.word("working directory", &first.more.working_dir, &second.more.working_dir);
        self.word("stop signal", &first.more.stop_signal, &second.more.stop_signal);
        self.pairs("env", &variables(&first.more.env), &variables(&second.more.env));
        self.pairs("label", &first.labels, &second.labels);
        self.names("port", &first.more.exposed_ports, &second.more.exposed_ports);
        self.names("volume", &first.more.volumes, &second.more.volumes);
        let layers = |image: &Image| {
            let told = |layer: &crate::registry_client::manifest::Descriptor| {
                format!("{} {}", layer.digest, output::size(layer.size))
            };
            image.layers.iter().map(told).collect::<Vec<_>>()
        };
        self.names("layer", &layers(first), &layers(second));
        // Last, as it differs with anything before.
        self.word("config", &first.more.config_digest, &second.more.config_digest);
    }

    fn word(&mut self, what: &str, first: &str, second: &str) {
        let side = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        if first != second {
            self.0.push(Change { what: what.to_owned(), first: side(first), second: side(second) });
        }
    }

    fn pairs(&mut self, what: &str, first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) {
        let names: BTreeSet<_> = first.keys().chain(second.keys()).collect();
        for name in names {
            let (first, second) = (first.get(name), second.get(name));
            if first != second {
                let what = format!("{what} {name}");
                self.0.push(Change { what, first: first.cloned(), second: second.cloned() });
            }
        }
    }

    /// What only one of them has, in the order of that one.
    fn names(&mut self, what: &str, first: &[String], second: &[String]) {
        for gone in first.iter().filter(|name| !second.contains(name)) {
            self.0.push(Change { what: what.to_owned(), first: Some(gone.clone()), second: None });
        }
        for new in second.iter().filter(|name| !first.contains(name)) {
            self.0.push(Change { what: what.to_owned(), first: None, second: Some(new.clone()) });
        }
    }
}

fn some(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn variables(env: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    env.iter().map(pair).collect()
}

/// As `diff` writes it: what only the first has begins with `-`, what only the second has with `+`.
fn page(found: &Differences) -> String {
    let mut text = String::new();
    if found.first.digest == found.second.digest {
        let _ = writeln!(text, "Both are {}", found.first.digest);
        return text;
    }
    let _ = writeln!(text, "--- {}@{}", found.first.reference, found.first.digest);
    let _ = writeln!(text, "+++ {}@{}", found.second.reference, found.second.digest);
    lines(&mut text, &found.changes);
    for Platform { platform, changes } in &found.platforms {
        if !platform.is_empty() {
            let _ = writeln!(text, "\n{platform}");
        }
        lines(&mut text, changes);
    }
    text
}

fn lines(text: &mut String, changes: &[Change]) {
    for Change { what, first, second } in changes {
        for (sign, side) in [('-', first), ('+', second)] {
            if let Some(side) = side {
                let _ = writeln!(text, "{sign} {what}: {}", side.replace('\n', " "));
            }
        }
    }
}

fn names(found: &Differences) -> String {
    let all = found.changes.iter().chain(found.platforms.iter().flat_map(|platform| &platform.changes));
    let names: BTreeSet<_> = all.map(|change| change.what.as_str()).collect();
    names.into_iter().map(|name| format!("{name}\n")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry_client::manifest::More;

    fn image(platform: &str, digest: &str, env: &[&str], layers: &[&str]) -> Image {
        let layer = |digest: &&str| serde_json::from_value(json!({"digest": digest, "size": 1024})).unwrap();
        Image {
            platform: platform.to_owned(),
            digest: digest.to_owned(),
            layers: layers.iter().map(layer).collect(),
            labels: BTreeMap::from([("org".to_owned(), "x".to_owned())]),
            more: More { env: env.iter().map(|one| (*one).to_owned()).collect(), ..More::default() },
            ..Image::default()
        }
    }

    fn inspected(reference: &str, digest: &str, images: Vec<Image>) -> Inspected {
        Inspected {
            reference: reference.to_owned(),
            repository: "a".to_owned(),
            tag: None,
            digest: digest.to_owned(),
            media_type: "m".to_owned(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            is_index: images.len() > 1,
            images,
        }
    }

    #[test]
    fn what_differs_is_told_and_nothing_else() {
        let first = inspected("a:1", "d1", vec![image("linux/amd64", "d1", &["A=1", "B=x", "C=="], &["base", "old"])]);
        let second = inspected("a:2", "d2", vec![image("linux/amd64", "d2", &["A=2", "D=", "C=="], &["base", "new"])]);
        let found = differences(&first, &second);
        assert_eq!(
            page(&found),
            "--- a:1@d1\n+++ a:2@d2\n\
             - env A: 1\n+ env A: 2\n- env B: x\n+ env D: \n\
             - layer: old 1.0 KiB\n+ layer: new 1.0 KiB\n"
        );
        assert_eq!(names(&found), "env A\nenv B\nenv D\nlayer\n");
    }

    #[test]
    fn an_image_does_not_differ_from_itself() {
        let one = || inspected("a:1", "d1", vec![image("linux/amd64", "d1", &["A=1"], &["base"])]);
        let found = differences(&one(), &one());
        assert_eq!((found.changes.len(), found.platforms.len()), (0, 0));
        assert_eq!(page(&found), "Both are d1\n");
    }

    #[test]
    fn platforms_are_compared_with_their_like() {
        let first = inspected(
            "a:1",
            "i1",
            vec![image("linux/amd64", "d1", &[], &["x"]), image("linux/arm64", "d2", &[], &["y"])],
        );
        let second =
            inspected("a:2", "i2", vec![image("linux/s390x", "d9", &[], &[]), image("linux/amd64", "d1", &[], &["x"])]);
        assert_eq!(
            page(&differences(&first, &second)),
            "--- a:1@i1\n+++ a:2@i2\n\nlinux/arm64\n- image: d2\n\nlinux/s390x\n+ image: d9\n"
        );
        let two = inspected("a:1", "i1", vec![image("", "d1", &[], &[]), image("", "d2", &[], &[])]);
        assert_eq!(by_platform(&two).len(), 2, "none is lost");
    }
}
