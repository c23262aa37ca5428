//! `report`: what somebody needs who is to find a fault without access to the cluster, in a ZIP, without what is secret.
//!
//! [`collect`] asks, [`blank`] takes out what is secret, [`archive`] takes only what went through that.

mod archive;
mod blank;
mod collect;

use std::path::PathBuf;

use anyhow::Result;
use jiff::Timestamp;
use private_registry_operator::model::RegistryName;

use self::archive::Archive;
use self::blank::Blank;
use self::collect::Collected;
use crate::cluster::{self, Place};
use crate::shell;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry [default: all of the namespace]
    #[arg(value_parser = cluster::name)]
    name: Option<RegistryName>,
    /// The ZIP; one that is there is written over [default: one in this folder, named after registry and time]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::within_limits(async {
        let cluster = options.place.connect().await?;
        let path = options.output.clone().unwrap_or_else(|| {
            let of = options.name.as_ref().map_or(cluster.namespace.as_str(), RegistryName::as_str);
            PathBuf::from(format!("registry-report-{of}-{}.zip", Timestamp::now().strftime("%Y%m%dT%H%M%S")))
        });
        // Before anybody waits: a place that cannot be written to.
        let archive = Archive::at(&path)?;
        let collected = Collected::of(&cluster, options.name.as_ref()).await?;
        let missing = collected.missing.len();
        write(&collected, archive)?;
        shell::print(&format!("{} is written. Look through it before you give it away.\n", path.display()));
        if missing > 0 {
            shell::print(&format!("{missing} things could not be read: missing.txt in it says which, and why.\n"));
        }
        Ok(())
    })
}

/// Blanks and packs everything.
fn write(collected: &Collected, mut archive: Archive) -> Result<()> {
    let mut blank = Blank::default();
    collected.secrets.iter().for_each(|secret| blank.learn(secret));
    for (name, value) in &collected.values {
        archive.put(&[name], &blank.json(value)?)?;
    }
    for (place, object) in &collected.objects {
        let place: Vec<_> = place.iter().map(String::as_str).collect();
        archive.put(&place, &blank.object(object)?)?;
    }
    for (place, text) in &collected.texts {
        let place: Vec<_> = place.iter().map(String::as_str).collect();
        archive.put(&place, &blank.text(text))?;
    }
    archive.put(&["missing.txt"], &blank.text(&collected.missing.join("\n")))?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::archive::tests::entries;
    use super::*;

    #[test]
    fn nothing_that_is_secret_stands_anywhere_in_the_zip() {
        let held = "held-in-a-Secret";
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "team-a-admin"}, "data": {"password": STANDARD.encode(held)}});
        let pod = json!({"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"env": [{"name": "A", "value": "PLANTED"}], "args": [held]}]}});
        let log: String = blank::tests::TEXTS.iter().map(|text| format!("{text}\n\n")).collect();
        let place = |name: &str| vec!["manifests".to_owned(), name.to_owned()];
        let event =
            json!({"kind": "Event", "message": format!("login with {held} failed: https://ann:PLANTED@a.example.com")});
        let collected = Collected {
            secrets: vec![secret.clone()],
            values: vec![(
                "doctor.json".to_owned(),
                json!({"seen": format!("{held} Authorization: Basic PLANTEDPLANTED")}),
            )],
            objects: vec![(place("Secret.yaml"), secret), (place("Pod.yaml"), pod), (place("Event.yaml"), event)],
            texts: vec![(place("a.log"), format!("{held}\n{log}"))],
            missing: vec![format!("token=PLANTED and {held}")],
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        write(&collected, Archive::at(&path).unwrap()).unwrap();
        let entries = entries(&path);
        assert_eq!(entries.len(), 6);
        for (name, text) in &entries {
            for planted in ["PLANTED", held, &STANDARD.encode(held)] {
                assert!(!text.contains(planted), "{planted} in {name}: {text}");
            }
            assert!(!text.is_empty(), "{name}");
        }
        let of = |name: &str| &entries.iter().find(|(known, _)| known.ends_with(name)).unwrap().1;
        assert!(of("Secret.yaml").contains("16 bytes"), "{}", of("Secret.yaml"));
        assert!(of("Pod.yaml").contains("name: A"), "{}", of("Pod.yaml"));
    }
}
