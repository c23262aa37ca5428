//! Images as a registry describes them. What has a digest is compared with it, and every list has an end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::Way;
use super::reference::{Reference, Repository, Version};
use super::{Answer, Call, Client, Outgoing, digest};

/// A registry that is not told all of them says that there is nothing.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                        application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Registries take no larger manifest.
pub(crate) const MOST_MANIFEST: usize = 4 << 20;
/// A configuration with a long history.
pub(crate) const MOST_CONFIG: usize = 8 << 20;
/// Bytes of an answer that only says how it went.
const MOST_WORDS: usize = 64 << 10;
/// Platforms of an index.
const MOST_PLATFORMS: usize = 200;

/// An image, or several under one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inspected {
    /// How it was asked for.
    pub(crate) reference: String,
    pub(crate) repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    pub(crate) digest: String,
    pub(crate) media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether there are several under this name.
    pub(crate) is_index: bool,
    /// One for each platform; exactly one if it is no index.
    pub(crate) images: Vec<Image>,
}

/// What one platform runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    pub(crate) platform: String,
    pub(crate) digest: String,
    pub(crate) media_type: String,
    /// Why nothing more is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing: Option<String>,
    /// Of all layers, as they are sent.
    pub(crate) compressed_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip)]
    pub(crate) more: More,
    pub(crate) layers: Vec<Descriptor>,
}

/// What nobody asks for who looks at one image, but who compares two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct More {
    pub(crate) config_digest: String,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    pub(crate) stop_signal: String,
}

/// Something that a manifest points to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Descriptor {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    #[serde(skip_serializing)]
    pub(crate) platform: Option<Platform>,
    #[serde(skip_serializing)]
    pub(crate) urls: Option<Vec<String>>,
    #[serde(skip_serializing)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: String,
    #[serde(rename = "os.version")]
    version: String,
}

/// A manifest or an index: what a registry has under a name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    media_type: Option<String>,
    artifact_type: Option<String>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) layers: Option<Vec<Descriptor>>,
    pub(crate) manifests: Option<Vec<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// The configuration of an image, as far as people ask for it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    created: Option<String>,
    config: Option<Execution>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    stop_signal: Option<String>,
}

/// A manifest with what the registry says of it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) manifest: Manifest,
    /// As it was sent: its digest is of these bytes.
    pub(crate) bytes: Vec<u8>,
}

impl Found {
    /// A manifest that has been compared with its digest. `announced` is the type that somebody says it has.
    pub(crate) fn read(digest: String, announced: &str, bytes: Vec<u8>) -> Result<Self> {
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            anyhow!("the manifest is not what it should be (line {}, column {})", error.line(), error.column())
        })?;
        // Clients go by what is announced; the field inside is a copy.
        let announced = announced.split(';').next().unwrap_or_default().trim();
        let media_type =
            if announced.is_empty() { manifest.media_type.clone().unwrap_or_default() } else { announced.to_owned() };
        Ok(Self { digest, media_type, manifest, bytes })
    }
}

/// What there is under a name; `None` if there is nothing.
pub(crate) async fn inspect<W: Way>(client: &mut Client<W>, reference: &Reference) -> Result<Option<Inspected>> {
    let repository = &reference.repository;
    let Some(found) = find(client, repository, &reference.version).await? else { return Ok(None) };
    let Found { digest, media_type, manifest, .. } = &found;
    let parts = manifest.manifests.clone();
    let mut inspected = Inspected {
        reference: reference.to_string(),
        repository: repository.to_string(),
        tag: match &reference.version {
            Version::Tag(tag) => Some(tag.clone()),
            Version::Digest(_) => None,
        },
        digest: digest.clone(),
        media_type: media_type.clone(),
        artifact_type: manifest.artifact_type.clone(),
        annotations: manifest.annotations.clone().unwrap_or_default(),
        is_index: parts.is_some(),
        images: Vec::new(),
    };
    let Some(parts) = parts else {
        inspected.images.push(image(client, repository, found).await?);
        return Ok(Some(inspected));
    };
    if parts.len() > MOST_PLATFORMS {
        bail!("{reference} is an index of {} manifests, which this command does not take", parts.len());
    }
    for part in parts {
        inspected.images.push(part_of_index(client, repository, &part).await?);
    }
    Ok(Some(inspected))
}

/// One platform of an index. What it points to may have been deleted.
async fn part_of_index<W: Way>(client: &mut Client<W>, repository: &Repository, part: &Descriptor) -> Result<Image> {
    // Only what is read as a digest becomes part of a request.
    let named = Reference::parse(&format!("{repository}@{}", part.digest), &[]).map_err(anyhow::Error::msg)?;
    let platform = part.platform.as_ref().map(Platform::words).unwrap_or_default();
    let bare = Image { digest: part.digest.clone(), media_type: part.media_type.clone(), ..Image::default() };
    let mut found = match find(client, repository, &named.version).await? {
        None => Image { missing: Some("the registry does not have it".to_owned()), ..bare },
        Some(found) if found.manifest.manifests.is_some() => {
            Image { missing: Some("it is an index itself".to_owned()), ..bare }
        }
        Some(found) => image(client, repository, found).await?,
    };
    if !platform.is_empty() {
        found.platform = platform;
    }
    Ok(found)
}

/// What a repository has of this name, compared with its digest; `None` if there is nothing.
pub(crate) async fn find<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    version: &Version,
) -> Result<Option<Found>> {
    let answer = ask(client, repository, version).await?;
    let Some(answer) = client.found(answer)? else { return Ok(None) };
    of_answer(repository, version, answer).map(Some)
}

/// What is answered to who asks for a manifest, whatever that is.
pub(crate) async fn ask<W: Way>(client: &mut Client<W>, repository: &Repository, version: &Version) -> Result<Answer> {
    client.ask(&path(repository, version.as_str()), ACCEPTED, MOST_MANIFEST).await
}

/// The manifest in a good answer, compared with its digest.
pub(crate) fn of_answer(repository: &Repository, version: &Version, answer: Answer) -> Result<Found> {
    let digest = match version {
        Version::Digest(digest) => digest.clone(),
        Version::Tag(_) => answer.header("docker-content-digest").unwrap_or_default().to_owned(),
    };
    let digest = if digest.is_empty() { digest::sha256(&answer.body) } else { digest };
    digest::compare(&answer.body, &digest).with_context(|| format!("manifest {repository}, {}", version.as_str()))?;
    let announced = answer.header("content-type").unwrap_or_default().to_owned();
    Found::read(digest, &announced, answer.body)
}

/// The digest under a name, as the registry says it; `None` if there is nothing.
pub(crate) async fn digest_of<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    version: &Version,
) -> Result<Option<String>> {
    let call = Call::new(Method::HEAD, path(repository, version.as_str())).with(header::ACCEPT, ACCEPTED);
    let answer = client.send(call, MOST_WORDS).await?;
    let Some(answer) = client.found(answer)? else { return Ok(None) };
    let digest = answer.header("docker-content-digest").map(str::to_owned);
    let read = digest.and_then(|digest| Version::digest(&digest));
    let read = read
        .with_context(|| format!("{} does not say the digest of {repository}, {}", client.place(), version.as_str()))?;
    Ok(Some(read.as_str().to_owned()))
}

/// Has a repository keep a manifest under a name.
pub(crate) async fn put<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    version: &Version,
    found: &Found,
) -> Result<()> {
    let call = Call::new(Method::PUT, path(repository, version.as_str()))
        .with(header::CONTENT_TYPE, found.media_type.clone())
        .sending(Outgoing::from(found.bytes.clone()));
    let answer = client.send(call, MOST_WORDS).await?;
    let answer = client.accepted(answer)?;
    match answer.header("docker-content-digest") {
        Some(kept) if kept.starts_with("sha256:") && found.digest.starts_with("sha256:") && kept != found.digest => {
            bail!("{} keeps {} as {kept}", client.place(), found.digest)
        }
        _ if answer.status == StatusCode::CREATED => Ok(()),
        _ => bail!("{} answers a manifest with {}", client.place(), answer.status),
    }
}

/// Takes a tag or a manifest out; whether it was there.
pub(crate) async fn delete<W: Way>(client: &mut Client<W>, repository: &Repository, version: &Version) -> Result<bool> {
    let answer = client.send(Call::new(Method::DELETE, path(repository, version.as_str())), MOST_WORDS).await?;
    Ok(client.found(answer)?.is_some())
}

fn path(repository: &Repository, version: &str) -> String {
    format!("/v2/{repository}/manifests/{version}")
}

/// The configuration of an image, compared with its digest; `None` if it is not there.
pub(crate) async fn configuration<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    digest: &str,
) -> Result<Option<Vec<u8>>> {
    // Only what is read as a digest becomes part of a request.
    let named = Version::digest(digest).with_context(|| format!("{digest:?} is no digest"))?;
    let path = format!("/v2/{repository}/blobs/{}", named.as_str());
    let Some(answer) = client.find(&path, "*/*", MOST_CONFIG).await? else { return Ok(None) };
    digest::compare(&answer.body, digest).with_context(|| format!("configuration of {repository}"))?;
    Ok(Some(answer.body))
}

/// What is wrong with a text is said without repeating it.
pub(crate) fn read<T: serde::de::DeserializeOwned>(text: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| anyhow!("{what} is not what it should be (line {}, column {})", error.line(), error.column()))
}

async fn image<W: Way>(client: &mut Client<W>, repository: &Repository, found: Found) -> Result<Image> {
    let Found { digest, media_type, manifest, .. } = found;
    let layers = manifest.layers.unwrap_or_default();
    let compressed_bytes = layers.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.size));
    let image = Image { digest, media_type, compressed_bytes, layers, ..Image::default() };
    let Some(config) = manifest.config.filter(Descriptor::is_configuration) else { return Ok(image) };
    let Some(text) = configuration(client, repository, &config.digest).await? else {
        return Ok(Image { missing: Some("the registry does not have its configuration".to_owned()), ..image });
    };
    let config_digest = config.digest;
    let config: Configuration = read(&text, "the image's configuration")?;
    let run = config.config.unwrap_or_default();
    Ok(Image {
        platform: config.platform.words(),
        created: config.created,
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        labels: run.labels.unwrap_or_default(),
        more: More {
            config_digest,
            env: run.env.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            stop_signal: run.stop_signal.unwrap_or_default(),
        },
        ..image
    })
}

impl Descriptor {
    /// Whether it is what a container runtime reads. Charts and signatures have something else there.
    pub(crate) fn is_configuration(&self) -> bool {
        self.media_type.starts_with("application/vnd.oci.image.config.")
            || self.media_type.starts_with("application/vnd.docker.container.image.")
    }
}

impl Platform {
    /// `linux/arm/v7`, as people give it on command lines.
    pub(crate) fn words(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant].into_iter().filter(|part| !part.is_empty());
        let words = parts.cloned().collect::<Vec<_>>().join("/");
        if self.version.is_empty() { words } else { format!("{words} {}", self.version) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Script, answer, client};
    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

    fn digest(text: &str) -> String {
        digest::sha256(text)
    }

    fn said(kind: &str, body: &str) -> String {
        answer("200 OK", &format!("content-type: {kind}\r\ndocker-content-digest: {}\r\n", digest(body)), body)
    }

    fn of_config(config: &str, kind: &str) -> String {
        json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "annotations": {"a": "b"},
            "config": {"mediaType": kind, "digest": digest(config), "size": config.len()},
            "layers": [{"mediaType": "l", "digest": "sha256:1", "size": 1000}, {"mediaType": "l", "digest": "sha256:2", "size": 24}],
        })
        .to_string()
    }

    async fn inspected(answers: Vec<String>) -> Result<Option<Inspected>, String> {
        let script = Script::of(answers);
        let reference = Reference::parse("team/app:1", &[]).unwrap();
        inspect(&mut client(&script), &reference).await.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn an_image_is_read_with_its_configuration() {
        let config = json!({
            "os": "linux", "architecture": "arm", "variant": "v7", "created": "2026-11-30T12:00:00Z",
            "config": {"Entrypoint": ["/app"], "Cmd": null, "Labels": {"org": "x"}, "Env": ["A=b"]}, "rootfs": {},
        })
        .to_string();
        let manifest = of_config(&config, CONFIG);
        let found = inspected(vec![said(MANIFEST, &manifest), said("application/octet-stream", &config)])
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.digest.as_str(), found.media_type.as_str()), (digest(&manifest).as_str(), MANIFEST));
        assert_eq!((found.tag.as_deref(), found.is_index, found.annotations.len()), (Some("1"), false, 1));
        let [image] = &found.images[..] else { panic!("{found:?}") };
        assert_eq!((image.platform.as_str(), image.compressed_bytes, image.layers.len()), ("linux/arm/v7", 1024, 2));
        assert_eq!((image.entrypoint.as_slice(), image.cmd.len()), (&["/app".to_owned()][..], 0));
        assert_eq!((image.created.as_deref(), image.labels["org"].as_str()), (Some("2026-11-30T12:00:00Z"), "x"));
    }

    #[tokio::test]
    async fn an_index_has_a_line_for_each_platform_and_says_what_is_gone() {
        let config = json!({"os": "linux", "architecture": "amd64"}).to_string();
        let manifest = of_config(&config, CONFIG);
        let part = |text: &str, architecture: &str| json!({"mediaType": MANIFEST, "digest": digest(text), "size": 1, "platform": {"os": "linux", "architecture": architecture}});
        let index =
            json!({"schemaVersion": 2, "manifests": [part(&manifest, "amd64"), part("gone", "arm64")]}).to_string();
        let answers =
            vec![said(INDEX, &index), said(MANIFEST, &manifest), said("x", &config), answer("404 Not Found", "", "")];
        let found = inspected(answers).await.unwrap().unwrap();
        assert!(found.is_index);
        let platforms: Vec<_> =
            found.images.iter().map(|image| (image.platform.as_str(), image.missing.is_some())).collect();
        assert_eq!(platforms, [("linux/amd64", false), ("linux/arm64", true)]);
    }

    #[tokio::test]
    async fn what_is_no_image_for_containers_has_layers_all_the_same() {
        let chart = of_config("{}", "application/vnd.cncf.helm.config.v1+json");
        let found = inspected(vec![said(MANIFEST, &chart)]).await.unwrap().unwrap();
        assert_eq!((found.images[0].compressed_bytes, found.images[0].platform.as_str()), (1024, ""));
        assert_eq!(inspected(vec![answer("404 Not Found", "", "")]).await, Ok(None));
    }

    #[tokio::test]
    async fn what_is_not_what_its_digest_says_is_refused() {
        let config = json!({"os": "linux"}).to_string();
        let manifest = of_config(&config, CONFIG);
        let index = |digest: &str| json!({"manifests": [{"digest": digest}]}).to_string();
        let many: Vec<Value> = (0..201).map(|_| json!({"digest": digest("x")})).collect();
        let announced = format!("docker-content-digest: {}\r\n", digest("another"));
        for (answers, words) in [
            (vec![answer("200 OK", &announced, &manifest)], "instead of sha256:"),
            (
                vec![said(MANIFEST, &manifest), said("x", "{\"os\": \"planted\"}")],
                "configuration of team/app: what the registry sends",
            ),
            (vec![answer("200 OK", "docker-content-digest: md5:0\r\n", &manifest)], "no digest of a known kind"),
            (vec![said(MANIFEST, "planted")], "the manifest is not what it should be"),
            (vec![said(MANIFEST, "{\"layers\": [{\"size\": -1}]}")], "the manifest is not what it should be"),
            (vec![said(INDEX, &index("sha256:../../secrets"))], "is no digest"),
            (vec![said(INDEX, &json!({"manifests": many}).to_string())], "an index of 201 manifests"),
        ] {
            let error = inspected(answers.clone()).await.unwrap_err();
            assert!(error.contains(words) && !error.contains("planted"), "{words}: {error}");
        }
    }
}
