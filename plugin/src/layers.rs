//! `layers`: of what an image consists, what its platforms share, what two images share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::access::OneImage;
use crate::output::{self, Form};
use crate::registry_client::manifest::{Descriptor, Inspected};
use crate::{cluster, inspect, shell};

/// Options of `layers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    image: OneImage,
    /// Another image, to see what both share
    #[arg(value_name = "OTHER")]
    other: Option<String>,
    /// How to print it
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// The layers of one image or two, each once.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    images: Vec<Named>,
    layers: Vec<Layer>,
    /// Of all layers together.
    total: Sum,
    /// Of those that both images have; of one image, those that several of its platforms have.
    shared: Sum,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    reference: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    platform: String,
    digest: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    digest: String,
    media_type: String,
    size: u64,
    /// Numbers of the images that have it, from 0.
    images: BTreeSet<usize>,
    is_shared: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Sum {
    layers: usize,
    bytes: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let (mut opened, reference) = options.image.open().await?;
        let mut inspected = vec![inspect::read(&mut opened, &reference).await?];
        if let Some(other) = &options.other {
            let other = opened.reference(other)?;
            inspected.push(inspect::read(&mut opened, &other).await?);
        }
        let layers = layers(&inspected);
        shell::print(&match options.output {
            Form::Table => page(&layers, inspected.len() > 1),
            Form::Name => layers.layers.iter().map(|layer| format!("{}\n", layer.digest)).collect(),
            Form::Json => output::json(&layers)?,
            Form::Yaml => output::yaml(&layers)?,
        });
        Ok(())
    })
}

fn layers(inspected: &[Inspected]) -> Layers {
    let mut images = Vec::new();
    let mut found: BTreeMap<String, (Descriptor, BTreeSet<usize>, BTreeSet<usize>)> = BTreeMap::new();
    let mut order = Vec::new();
    for (side, of) in inspected.iter().enumerate() {
        for image in &of.images {
            for layer in &image.layers {
                let (_, used, sides) = found.entry(layer.digest.clone()).or_insert_with(|| {
                    order.push(layer.digest.clone());
                    (layer.clone(), BTreeSet::new(), BTreeSet::new())
                });
                used.insert(images.len());
                sides.insert(side);
            }
            images.push(Named {
                reference: of.reference.clone(),
                platform: image.platform.clone(),
                digest: image.digest.clone(),
                bytes: image.compressed_bytes,
                missing: image.missing.clone(),
            });
        }
    }
    let layers: Vec<_> = order
        .into_iter()
        .filter_map(|digest| found.remove(&digest))
        .map(|(layer, images, sides)| Layer {
            is_shared: if inspected.len() > 1 { sides.len() > 1 } else { images.len() > 1 },
            digest: layer.digest,
            media_type: layer.media_type,
            size: layer.size,
            images,
        })
        .collect();
    let (total, shared) = (sum(layers.iter()), sum(layers.iter().filter(|layer| layer.is_shared)));
    Layers { images, layers, total, shared }
}

fn sum<'a>(layers: impl Iterator<Item = &'a Layer>) -> Sum {
    layers
        .fold(Sum::default(), |sum, layer| Sum { layers: sum.layers + 1, bytes: sum.bytes.saturating_add(layer.size) })
}

fn page(all: &Layers, are_two: bool) -> String {
    let Layers { images, layers, .. } = all;
    let is_one = images.len() == 1;
    let name = |image: &Named| match (are_two, image.platform.as_str()) {
        (false, platform) => platform.to_owned(),
        (true, "") => image.reference.clone(),
        (true, platform) => format!("{} {platform}", image.reference),
    };
    let users = |layer: &Layer| {
        let names = layer.images.iter().filter_map(|number| images.get(*number)).map(name).collect::<Vec<_>>();
        if names.len() == images.len() { "all".to_owned() } else { names.join(", ") }
    };
    let row = |layer: &Layer| {
        let size = output::size(layer.size);
        if is_one { vec![size, layer.digest.clone()] } else { vec![size, layer.digest.clone(), users(layer)] }
    };
    let rows: Vec<_> = layers.iter().map(row).collect();
    let head: &[&str] = if is_one { &["SIZE", "LAYER"] } else { &["SIZE", "LAYER", "IN"] };
    let mut text = output::table(head, &rows);
    let told = |sum: &Sum| {
        let word = if sum.layers == 1 { "layer" } else { "layers" };
        format!("{} {word}, {}", sum.layers, output::size(sum.bytes))
    };
    let _ = write!(text, "\nTogether     {}\n", told(&all.total));
    if !is_one {
        let _ = writeln!(text, "Shared       {}", told(&all.shared));
    }
    for image in images {
        if let Some(why) = &image.missing {
            let _ = writeln!(text, "Not known    {} {}: {why}", image.platform, image.digest);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry_client::manifest::Image;

    fn image(platform: &str, layers: &[(&str, u64)]) -> Image {
        let layers: Vec<Descriptor> = layers
            .iter()
            .map(|(digest, size)| serde_json::from_value(json!({"digest": digest, "size": size})).unwrap())
            .collect();
        Image {
            platform: platform.to_owned(),
            compressed_bytes: layers.iter().map(|layer| layer.size).sum(),
            layers,
            ..Image::default()
        }
    }

    fn inspected(reference: &str, images: Vec<Image>) -> Inspected {
        Inspected {
            reference: reference.to_owned(),
            repository: "team/app".to_owned(),
            tag: None,
            digest: "sha256:aa".to_owned(),
            media_type: String::new(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            is_index: images.len() > 1,
            images,
        }
    }

    #[test]
    fn what_two_images_share_is_counted_once() {
        let first = inspected("a:1", vec![image("linux/amd64", &[("base", 1000), ("old", 24), ("base", 1000)])]);
        let second = inspected("a:2", vec![image("linux/amd64", &[("base", 1000), ("new", 48)])]);
        let found = layers(&[first, second]);
        assert_eq!((found.total.layers, found.total.bytes), (3, 1072));
        assert_eq!((found.shared.layers, found.shared.bytes), (1, 1000));
        assert_eq!(
            page(&found, true),
            "SIZE     LAYER   IN\n\
             1000 B   base    all\n\
             24 B     old     a:1 linux/amd64\n\
             48 B     new     a:2 linux/amd64\n\
             \n\
             Together     3 layers, 1.0 KiB\n\
             Shared       1 layer, 1000 B\n"
        );
    }

    #[test]
    fn two_platforms_of_one_image_do_not_count_as_shared_with_another() {
        let index = inspected("a:1", vec![image("linux/amd64", &[("x", 8)]), image("linux/arm64", &[("x", 8)])]);
        let other = inspected("b:1", vec![image("linux/amd64", &[("y", 4)])]);
        assert_eq!(layers(&[index, other]).shared, Sum::default());
    }

    #[test]
    fn of_an_index_one_sees_what_its_platforms_share() {
        let gone = Image { missing: Some("the registry does not have it".to_owned()), ..image("linux/s390x", &[]) };
        let found = layers(&[inspected(
            "a:1",
            vec![image("linux/amd64", &[("x", 8), ("y", 4)]), image("linux/arm64", &[("x", 8)]), gone],
        )]);
        assert_eq!((found.shared.layers, found.shared.bytes), (1, 8));
        let text = page(&found, false);
        assert!(text.contains("\n8 B    x       linux/amd64, linux/arm64\n"), "{text}");
        assert!(text.ends_with("Not known    linux/s390x : the registry does not have it\n"), "{text}");
        let one = page(&layers(&[inspected("a:1", vec![image("linux/amd64", &[("x", 8)])])]), false);
        assert_eq!(one, "SIZE   LAYER\n8 B    x\n\nTogether     1 layer, 8 B\n");
    }
}
