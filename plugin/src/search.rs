//! `search`: repositories and tags by a part of their name, or by a pattern. Ends when enough was found: a registry may have millions of tags.

use std::cell::Cell;

use anyhow::Result;
use regex::Regex;
use serde::Serialize;

use crate::access::{Access, Opened};
use crate::output::{self, Form};
use crate::registry_client::connection::Door;
use crate::registry_client::{Client, beside, pages};
use crate::{cluster, shell};

/// Options of `search`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// Part of a repository's name or of a tag; with * ? or ** the whole name; with : between them, both
    #[arg(value_parser = Wanted::parse)]
    text: Wanted,
    /// Names of repositories only: no list of tags is asked for
    #[arg(long)]
    repositories: bool,
    /// How many to show
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
    /// How to print them
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// What is looked for.
#[derive(Debug, Clone)]
struct Wanted {
    repository: Pattern,
    /// `None`: the same in repositories and in tags.
    tag: Option<Pattern>,
}

/// A part of a name, or a pattern of all of it.
#[derive(Debug, Clone)]
struct Pattern(Regex);

/// A repository or, with a tag, an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Hit {
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let Opened { registry, mut client, .. } = options.access.open().await?;
        let repositories = pages::repositories(&mut client).await?;
        let found = Cell::new(0);
        let look = async |client: &mut Client<Door>, repository: String| {
            let mut hits = options.wanted_repository(&repository);
            if found.get() <= options.limit && options.wants_tags_of(&repository) {
                let tags = pages::tags(client, &repository).await?.unwrap_or_default();
                hits.extend(options.text.tags(&repository, tags));
            }
            found.set(found.get() + hits.len());
            Ok(hits)
        };
        let mut hits: Vec<_> =
            beside::each(|| client.beside(), repositories, look).await?.into_iter().flatten().collect();
        if hits.is_empty() && options.output == Form::Table {
            shell::complain(&format!("{} has nothing of this name", registry.title()));
            return Ok(());
        }
        let are_more = hits.len() > options.limit;
        hits.truncate(options.limit);
        shell::print(&printed(&hits, options.output)?);
        if are_more {
            shell::complain(&format!("There are more than {}: ask for a longer name, or for --limit", options.limit));
        }
        Ok(())
    })
}

impl Options {
    fn wanted_repository(&self, repository: &str) -> Vec<Hit> {
        let is_wanted = self.text.tag.is_none() && self.text.repository.fits(repository);
        is_wanted.then(|| Hit { repository: repository.to_owned(), tag: None }).into_iter().collect()
    }

    fn wants_tags_of(&self, repository: &str) -> bool {
        match &self.text.tag {
            Some(_) => self.text.repository.fits(repository),
            None => !self.repositories,
        }
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        let (repository, tag) = match text.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (text, None),
        };
        if repository.is_empty() && tag.is_none_or(str::is_empty) {
            return Err("give a part of a name, or a pattern such as shop/*:1.*".to_owned());
        }
        Ok(Self { repository: Pattern::parse(repository)?, tag: tag.map(Pattern::parse).transpose()? })
    }

    fn tags(&self, repository: &str, tags: Vec<String>) -> Vec<Hit> {
        let pattern = self.tag.as_ref().unwrap_or(&self.repository);
        let fitting = tags.into_iter().filter(|tag| pattern.fits(tag));
        fitting.map(|tag| Hit { repository: repository.to_owned(), tag: Some(tag) }).collect()
    }
}

impl Pattern {
    /// `*` stands for any characters but `/`, `**` for any, `?` for one.
    fn parse(text: &str) -> Result<Self, String> {
        let is_pattern = text.contains(['*', '?']);
        let mut written = String::from(if is_pattern { "^" } else { "" });
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let (piece, length) = match character {
                '*' if rest.starts_with("**") => (".*".to_owned(), 2),
                '*' => ("[^/]*".to_owned(), 1),
                '?' => ("[^/]".to_owned(), 1),
                other => (regex::escape(&other.to_string()), other.len_utf8()),
            };
            written.push_str(&piece);
            rest = &rest[length..];
        }
        written.push_str(if is_pattern { "$" } else { "" });
        Regex::new(&written).map(Self).map_err(|_| "the pattern is too long".to_owned())
    }

    fn fits(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

fn printed(hits: &[Hit], form: Form) -> Result<String> {
    let name = |hit: &Hit| match &hit.tag {
        Some(tag) => format!("{}:{tag}", hit.repository),
        None => hit.repository.clone(),
    };
    match form {
        Form::Json => output::json(&hits),
        Form::Yaml => output::yaml(&hits),
        Form::Name => Ok(hits.iter().map(|hit| name(hit) + "\n").collect()),
        Form::Table => {
            let row = |hit: &Hit| vec![hit.repository.clone(), hit.tag.clone().unwrap_or_default()];
            Ok(output::table(&["REPOSITORY", "TAG"], &hits.iter().map(row).collect::<Vec<_>>()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_part_and_a_pattern_is_all_of_a_name() {
        for (text, name, fits) in [
            ("web", "shop/web", true),
            ("op/w", "shop/web", true),
            ("WEB", "shop/web", false),
            ("", "shop/web", true),
            ("a.b", "axb", false),
            ("*web", "shop/web", false),
            ("**web", "shop/web", true),
            ("**/web", "a/b/web", true),
            ("shop/*", "shop/web", true),
            ("shop/*", "shop/web/more", false),
            ("shop/**", "shop/web/more", true),
            ("shop/we?", "shop/web", true),
            ("shop?web", "shop/web", false),
            ("1.*", "1.4", true),
            ("1.*", "11.4", false),
            ("*(", "(", true),
        ] {
            assert_eq!(Pattern::parse(text).unwrap().fits(name), fits, "{text} {name}");
        }
    }

    #[test]
    fn a_colon_separates_repository_and_tag() {
        let wanted = Wanted::parse("shop/*:1.*").unwrap();
        let hits = wanted.tags("shop/web", vec!["1.4".to_owned(), "2".to_owned()]);
        assert_eq!(hits, [Hit { repository: "shop/web".to_owned(), tag: Some("1.4".to_owned()) }]);
        assert!(wanted.repository.fits("shop/web") && !wanted.repository.fits("team/web"));
        assert!(Wanted::parse("").is_err() && Wanted::parse(":").is_err());
        assert!(Wanted::parse(":1").unwrap().repository.fits("anything"));
        assert!(Wanted::parse(&"*".repeat(1 << 20)).is_err_and(|words| words.contains("too long")));
    }

    #[test]
    fn repositories_and_images_are_told_apart() {
        let hits = [
            Hit { repository: "web".to_owned(), tag: None },
            Hit { repository: "web".to_owned(), tag: Some("1".to_owned()) },
        ];
        assert_eq!(printed(&hits, Form::Table).unwrap(), "REPOSITORY   TAG\nweb          -\nweb          1\n");
        assert_eq!(printed(&hits, Form::Name).unwrap(), "web\nweb:1\n");
    }
}
