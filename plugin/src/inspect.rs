//! `inspect`: what is in an image, without pulling it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use crate::access::{OneImage, Opened};
use crate::output::{self, Form};
use crate::registry_client::manifest::{self, Image, Inspected};
use crate::registry_client::reference::Reference;
use crate::{cluster, shell};

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    image: OneImage,
    /// How to print it
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let (mut opened, reference) = options.image.open().await?;
        let inspected = read(&mut opened, &reference).await?;
        shell::print(&match options.output {
            Form::Table => page(&inspected),
            Form::Name => format!("{}@{}\n", inspected.repository, inspected.digest),
            Form::Json => output::json(&inspected)?,
            Form::Yaml => output::yaml(&inspected)?,
        });
        Ok(())
    })
}

/// What a registry has under a name, or where to look if it has nothing.
pub(crate) async fn read(opened: &mut Opened, reference: &Reference) -> Result<Inspected> {
    match manifest::inspect(&mut opened.client, reference).await? {
        Some(inspected) => Ok(inspected),
        None => Err(opened.has_no(reference)),
    }
}

fn page(inspected: &Inspected) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| add(&mut text, name, value);
    line("Image", &inspected.reference);
    line("Digest", &inspected.digest);
    line("Type", &inspected.media_type);
    line("Artifact", inspected.artifact_type.as_deref().unwrap_or_default());
    if inspected.is_index {
        return text + "\n" + &platforms(inspected);
    }
    let annotations = pairs(&inspected.annotations);
    for (number, pair) in annotations.iter().enumerate() {
        line(if number == 0 { "Annotations" } else { "" }, pair);
    }
    inspected.images.iter().fold(text, |text, image| text + &one(image))
}

/// A line of a page, if there is anything to say.
fn add(text: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        let _ = writeln!(text, "{name:<12} {value}");
    }
}

/// A line for each platform.
fn platforms(inspected: &Inspected) -> String {
    let row = |image: &Image| match &image.missing {
        Some(why) => vec![
            image.platform.clone(),
            String::new(),
            String::new(),
            String::new(),
            format!("{}: {why}", image.digest),
        ],
        None => vec![
            image.platform.clone(),
            output::size(image.compressed_bytes),
            image.layers.len().to_string(),
            image.created.clone().unwrap_or_default(),
            image.digest.clone(),
        ],
    };
    let rows: Vec<_> = inspected.images.iter().map(row).collect();
    let table = output::table(&["PLATFORM", "SIZE", "LAYERS", "CREATED", "DIGEST"], &rows);
    format!("{table}\nOne of them: {}@DIGEST\n", inspected.repository)
}

/// What there is to know of one image.
fn one(image: &Image) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| add(&mut text, name, value);
    let layers = image.layers.len();
    line("Platform", &image.platform);
    line(
        "Size",
        &format!(
            "{} compressed, in {layers} {}",
            output::size(image.compressed_bytes),
            if layers == 1 { "layer" } else { "layers" }
        ),
    );
    line("Created", image.created.as_deref().unwrap_or_default());
    line("Entrypoint", &words(&image.entrypoint));
    line("Command", &words(&image.cmd));
    for (number, pair) in pairs(&image.labels).iter().enumerate() {
        line(if number == 0 { "Labels" } else { "" }, pair);
    }
    line("Not known", image.missing.as_deref().unwrap_or_default());
    let rows: Vec<_> = image.layers.iter().map(|layer| vec![output::size(layer.size), layer.digest.clone()]).collect();
    if rows.is_empty() { text } else { text + "\n" + &output::table(&["SIZE", "LAYER"], &rows) }
}

fn pairs(all: &BTreeMap<String, String>) -> Vec<String> {
    all.iter().map(|(name, value)| format!("{name}={}", value.replace('\n', " "))).collect()
}

/// As it is written in a Dockerfile.
pub(crate) fn words(command: &[String]) -> String {
    if command.is_empty() { String::new() } else { serde_json::to_string(command).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry_client::manifest::Descriptor;

    fn image() -> Image {
        let layer: Descriptor = serde_json::from_str(r#"{"digest": "sha256:11", "size": 3145728}"#).unwrap();
        Image {
            platform: "linux/amd64".to_owned(),
            digest: "sha256:aa".to_owned(),
            compressed_bytes: 3 << 20,
            created: Some("2026-11-30T12:00:00Z".to_owned()),
            entrypoint: vec!["/app".to_owned(), "a b".to_owned()],
            labels: BTreeMap::from([("a".to_owned(), "b\nc".to_owned()), ("d".to_owned(), String::new())]),
            layers: vec![layer],
            ..Image::default()
        }
    }

    fn inspected(is_index: bool, images: Vec<Image>) -> Inspected {
        Inspected {
            reference: "team/app:1".to_owned(),
            repository: "team/app".to_owned(),
            tag: Some("1".to_owned()),
            digest: "sha256:aa".to_owned(),
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            is_index,
            images,
        }
    }

    #[test]
    fn an_image_is_told_on_a_page() {
        assert_eq!(
            page(&inspected(false, vec![image()])),
            "Image        team/app:1\n\
             Digest       sha256:aa\n\
             Type         application/vnd.oci.image.manifest.v1+json\n\
             Platform     linux/amd64\n\
             Size         3.0 MiB compressed, in 1 layer\n\
             Created      2026-11-30T12:00:00Z\n\
             Entrypoint   [\"/app\",\"a b\"]\n\
             Labels       a=b c\n\
             \x20            d=\n\
             \n\
             SIZE      LAYER\n\
             3.0 MiB   sha256:11\n"
        );
    }

    #[test]
    fn an_index_is_a_table_of_platforms() {
        let gone = Image {
            platform: "linux/arm64".to_owned(),
            digest: "sha256:bb".to_owned(),
            missing: Some("the registry does not have it".to_owned()),
            ..Image::default()
        };
        let text = page(&inspected(true, vec![image(), gone]));
        assert!(text.contains("\nlinux/amd64   3.0 MiB   1        2026-11-30T12:00:00Z   sha256:aa\n"), "{text}");
        assert!(
            text.contains(
                "\nlinux/arm64   -         -        -                      sha256:bb: the registry does not have it\n"
            ),
            "{text}"
        );
    }
}
