//! `list`: the registries of a namespace, or of all, in a line each.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{self, Place};
use crate::output::{self, Form};
use crate::shell;

/// Options of `list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Of every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How to print them
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let found = options.place.registries(options.all_namespaces).await?;
        if found.objects.is_empty() && options.output == Form::Table {
            let place = found.namespace.map_or(String::new(), |space| format!(" in namespace {space}"));
            let more = if options.all_namespaces { "" } else { ": -A shows those of all namespaces" };
            shell::complain(&format!("there is no PrivateRegistry{place}{more}"));
            return Ok(());
        }
        shell::print(&match options.output {
            Form::Table => table(&found.objects, options.all_namespaces, Timestamp::now()),
            Form::Name => names(&found.objects),
            Form::Json => output::json(&list(&found.objects))?,
            Form::Yaml => output::yaml(&list(&found.objects))?,
        });
        Ok(())
    })
}

/// As kubectl prints several objects.
fn list(objects: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects})
}

/// As kubectl takes them.
fn names(objects: &[Value]) -> String {
    let name = |object: &Value| format!("privateregistry.privateregistry.dev/{}\n", text(object, "/metadata/name"));
    objects.iter().map(name).collect()
}

/// From the objects as they came: one that this program cannot read is shown all the same.
fn table(objects: &[Value], with_namespace: bool, now: Timestamp) -> String {
    let row = |object: &Value| {
        let ready = condition(object, "Ready");
        let created = text(object, "/metadata/creationTimestamp").parse::<Timestamp>();
        let mut row = vec![
            text(object, "/metadata/name"),
            text(object, "/status/address"),
            text(&ready, "/status"),
            text(&ready, "/reason"),
            version(&text(object, "/status/image")),
            created.map_or(String::new(), |created| output::age(created, now)),
        ];
        if with_namespace {
            row.insert(0, text(object, "/metadata/namespace"));
        }
        row
    };
    let mut head = vec!["NAME", "ADDRESS", "READY", "REASON", "VERSION", "AGE"];
    if with_namespace {
        head.insert(0, "NAMESPACE");
    }
    output::table(&head, &objects.iter().map(row).collect::<Vec<_>>())
}

fn condition(object: &Value, kind: &str) -> Value {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    all.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or_default()
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What an image's name tells: its tag, else the beginning of its digest.
pub(crate) fn version(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(name, digest)| (name, digest));
    match name.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag.to_owned(),
        None => digest.chars().take("sha256:".len() + 12).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_registry_is_a_line_whatever_is_known_of_it() {
        let ready = json!({
            "metadata": {"name": "team-a", "namespace": "shop", "creationTimestamp": "2026-11-30T09:00:00Z"},
            "status": {
                "address": "registry.example.com", "image": "docker.io/library/registry:3.1.2@sha256:00",
                "conditions": [{"type": "Stalled", "status": "False"}, {"type": "Ready", "status": "True", "reason": "Settled"}],
            },
        });
        let new = json!({"metadata": {"name": "b"}});
        let broken =
            json!({"metadata": {"name": "c", "creationTimestamp": 7}, "status": {"conditions": "none", "address": 1}});
        assert_eq!(
            table(&[ready.clone(), new, broken], false, now()),
            "NAME     ADDRESS                READY   REASON    VERSION   AGE\n\
             team-a   registry.example.com   True    Settled   3.1.2     3h\n\
             b        -                      -       -         -         -\n\
             c        -                      -       -         -         -\n"
        );
        assert!(table(&[ready], true, now()).starts_with("NAMESPACE   NAME "));
    }

    #[test]
    fn the_version_is_the_tag_or_the_beginning_of_the_digest() {
        for (image, shown) in [
            ("registry:3.1.2", "3.1.2"),
            ("localhost:5000/registry:3.1.2@sha256:0123456789abcdef", "3.1.2"),
            ("localhost:5000/registry@sha256:0123456789abcdef", "sha256:0123456789ab"),
            ("localhost:5000/registry", ""),
            ("", ""),
        ] {
            assert_eq!(version(image), shown, "{image}");
        }
    }

    #[test]
    fn names_are_those_that_kubectl_takes() {
        assert_eq!(names(&[json!({"metadata": {"name": "a"}})]), "privateregistry.privateregistry.dev/a\n");
    }
}
