//! The configuration of an image that is made here: what its containers run, what is known of its layers, and when it was made. The same input gives the same
//! bytes: no clock is asked.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::archive::Content;
use crate::platform::Named;
use crate::registry_client::blobs::Blob;
use crate::registry_client::{digest, manifest};

/// What a person says of an image.
#[derive(Debug, clap::Args)]
pub(crate) struct Changes {
    /// What containers run: a program, or a list such as ["/app", "--port", "80"]; what the image had as --cmd is not kept
    #[arg(long, value_name = "PROGRAM|LIST", value_parser = words)]
    entrypoint: Option<Words>,
    /// What they run, or the entrypoint's arguments, if nobody says otherwise: a word, or a list
    #[arg(long, value_name = "PROGRAM|LIST", value_parser = words)]
    cmd: Option<Words>,
    /// A variable of their environment. Can be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// The folder that they start in
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    workdir: Option<String>,
    /// When it was made, in seconds since 1970 or as 2026-11-30T12:00:00Z [default: $SOURCE_DATE_EPOCH, else 1970]
    #[arg(long, value_name = "TIME", env = "SOURCE_DATE_EPOCH", hide_env = true, value_parser = time)]
    created: Option<Timestamp>,
}

/// Words of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Words(Vec<String>);

fn words(text: &str) -> Result<Words, String> {
    if text.starts_with('[') {
        let read = serde_json::from_str(text).map(Words);
        return read.map_err(|_| "it is no list of texts, such as [\"/app\", \"--port\", \"80\"]".to_owned());
    }
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err("of several words give a list, such as [\"/app\", \"--port\", \"80\"]".to_owned());
    }
    Ok(Words(vec![text.to_owned()]))
}

fn variable(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("a variable is NAME=VALUE".to_owned()),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("it must begin with a slash".to_owned()) }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let seconds = text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let read = seconds.or_else(|| text.parse().ok()).filter(|time| *time >= Timestamp::UNIX_EPOCH);
    read.ok_or_else(|| "a time is 1764504000 or 2025-11-30T12:00:00Z, and not before 1970".to_owned())
}

/// A line of an image's history.
pub(crate) struct Step<'a> {
    pub(crate) made_by: &'a str,
    pub(crate) author: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
}

impl Changes {
    /// When the image was made, as somebody says it.
    pub(crate) fn created(&self) -> Timestamp {
        self.created.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The configuration, with another layer and what this says.
    pub(crate) fn apply(&self, mut config: Value, diff_id: &str, step: &Step<'_>) -> Result<Value> {
        let created = self.created().to_string();
        let mut line = json!({"created": created, "created_by": step.made_by});
        if let Some(author) = step.author {
            line["author"] = author.into();
            config["author"] = author.into();
        }
        if let Some(message) = step.message {
            line["comment"] = message.into();
        }
        config["created"] = created.into();
        for (part, added) in [("/rootfs/diff_ids", diff_id.into()), ("/history", line)] {
            let list = config.pointer_mut(part).and_then(Value::as_array_mut);
            list.with_context(|| format!("the image's configuration has no list {part}"))?.push(added);
        }
        let run = &mut config["config"];
        if let Some(Words(words)) = &self.entrypoint {
            run["Entrypoint"] = words.clone().into();
            run["Cmd"] = Value::Null;
        }
        if let Some(Words(words)) = &self.cmd {
            run["Cmd"] = words.clone().into();
        }
        if let Some(folder) = &self.workdir {
            run["WorkingDir"] = folder.clone().into();
        }
        if !self.env.is_empty() {
            run["Env"] = environment(&run["Env"], &self.env).into();
        }
        Ok(config)
    }
}

/// Variables of before, of which some have other values, and new ones behind them.
fn environment(before: &Value, changes: &[String]) -> Vec<String> {
    fn name(variable: &str) -> &str {
        variable.split('=').next().unwrap_or_default()
    }
    let before = before.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut all: Vec<String> = before.map(str::to_owned).collect();
    for change in changes {
        match all.iter_mut().find(|known| name(known) == name(change)) {
            Some(known) => known.clone_from(change),
            None => all.push(change.clone()),
        }
    }
    all
}

/// A configuration without layers.
pub(crate) fn empty(platform: &Named) -> Value {
    let mut config = json!({
        "os": platform.os,
        "architecture": platform.architecture,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = variant.clone().into();
    }
    config
}

/// The configuration of an image that another one is made of.
pub(crate) fn read(text: &[u8]) -> Result<Value> {
    let mut config: Value = manifest::read(text, "the image's configuration")?;
    if !config.is_object() || !config["rootfs"]["diff_ids"].is_array() {
        bail!("the image's configuration knows no layers");
    }
    // Either may be left out.
    for (part, none) in [("config", json!({})), ("history", json!([]))] {
        if config[part].is_null() {
            config[part] = none;
        }
    }
    if !config["config"].is_object() || !config["history"].is_array() {
        bail!("the image's configuration is not what it should be");
    }
    Ok(config)
}

/// A configuration as a registry keeps it.
pub(crate) fn blob(config: &Value) -> Result<(Blob, Content)> {
    let text = serde_json::to_vec(config).context("write JSON")?;
    let content = Content::of(&text).context("keep the image's configuration in a temporary file ($TMPDIR)")?;
    Ok((Blob { digest: digest::sha256(&text), size: text.len() as u64, is_foreign: false }, content))
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    /// As they stand on the command line, whatever the environment of the tests says.
    pub(crate) fn changes(arguments: &[&str]) -> Result<Changes, clap::Error> {
        let command = Changes::augment_args(Command::new("p")).no_binary_name(true);
        let changes = Changes::from_arg_matches(&command.try_get_matches_from(arguments)?)?;
        let created = changes.created.filter(|_| arguments.contains(&"--created"));
        Ok(Changes { created, ..changes })
    }

    #[test]
    fn an_image_keeps_what_nobody_changes() {
        let base = json!({
            "os": "linux", "architecture": "amd64", "os.features": ["x"],
            "config": {"Env": ["PATH=/bin", "A=1"], "Cmd": ["sh"], "User": "65532", "Entrypoint": ["/tini"]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}, "history": [{"created_by": "somebody"}],
        });
        let step = Step { made_by: "p", author: Some("Ann"), message: Some("why") };
        let made = changes(&["--env", "A=2", "--env", "B=3=4", "--workdir", "/srv", "--created", "86400"]).unwrap();
        let config = made.apply(read(base.to_string().as_bytes()).unwrap(), "sha256:2", &step).unwrap();
        let run = &config["config"];
        assert_eq!(run["Env"], json!(["PATH=/bin", "A=2", "B=3=4"]));
        assert_eq!((&run["Cmd"], &run["User"], &run["WorkingDir"]), (&json!(["sh"]), &json!("65532"), &json!("/srv")));
        assert_eq!((&config["created"], &config["author"]), (&json!("1970-01-02T00:00:00Z"), &json!("Ann")));
        assert_eq!(
            (&config["rootfs"]["diff_ids"], &config["os.features"]),
            (&json!(["sha256:1", "sha256:2"]), &json!(["x"]))
        );
        assert_eq!(
            config["history"][1],
            json!({"created": "1970-01-02T00:00:00Z", "created_by": "p", "author": "Ann", "comment": "why"})
        );
        // Arguments of another entrypoint are none of this one.
        let made = changes(&["--entrypoint", "/app"]).unwrap().apply(config, "sha256:3", &step).unwrap();
        assert_eq!((&made["config"]["Entrypoint"], &made["config"]["Cmd"]), (&json!(["/app"]), &Value::Null));
        assert_eq!(made["created"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (arguments, words) in [
            (["--cmd", "a b"], "give a list"),
            (["--cmd", "[1]"], "no list of texts"),
            (["--cmd", ""], "give a list"),
            (["--env", "A"], "NAME=VALUE"),
            (["--env", "=a"], "NAME=VALUE"),
            (["--workdir", "srv"], "begin with a slash"),
            (["--created", "yesterday"], "a time is"),
            (["--created", "-5"], ""),
            (["--created", "1969-12-31T00:00:00Z"], "not before 1970"),
        ] {
            let error = changes(&arguments).unwrap_err().to_string();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
        assert_eq!(words("[\"a b\", \"c\"]"), Ok(Words(vec!["a b".to_owned(), "c".to_owned()])));
        assert_eq!(time("2026-11-30T12:00:00Z").unwrap().as_second(), 1_796_040_000);
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in
            ["[]", "{}", r#"{"rootfs": {"diff_ids": 1}}"#, r#"{"rootfs": {"diff_ids": []}, "config": 1}"#, "planted"]
        {
            let error = format!("{:#}", read(text.as_bytes()).unwrap_err());
            assert!(error.contains("the image's configuration") && !error.contains("planted"), "{error}");
        }
    }
}
