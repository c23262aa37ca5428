//! Images from one registry into another, or into another repository of the same one. Several blobs at a time, each passing through in pieces; what is there
//! already is not sent; a manifest comes after all that it points to, so that nobody ever sees half an image.

use std::cell::Cell;
use std::fmt;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;

use crate::output;
use crate::progress::Progress;
use crate::registry_client::blobs::{self, Begun, Blob, Sent};
use crate::registry_client::connection::Way;
use crate::registry_client::manifest::{self, Found};
use crate::registry_client::reference::{Repository, Version};
use crate::registry_client::retries::patiently;
use crate::registry_client::tree::Tree;
use crate::registry_client::{Client, Pieces, beside};

/// A repository, and how it is reached.
pub(crate) struct Shop<'a, W> {
    pub(crate) client: &'a Client<W>,
    pub(crate) repository: &'a Repository,
}

/// What a transfer did, in blobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) copied: usize,
    pub(crate) copied_bytes: u64,
    /// Taken from another repository of the same registry.
    pub(crate) mounted: usize,
    pub(crate) present: usize,
    /// Kept somewhere else, as their manifest says.
    pub(crate) foreign: usize,
}

/// What was done with a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Copied(u64),
    Mounted,
    Present,
    Foreign,
}

/// The receiver has ended; it knows why.
#[derive(Debug)]
struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the registry takes no more")
    }
}

impl std::error::Error for Stopped {}

impl Outcome {
    pub(crate) fn of(all: impl IntoIterator<Item = Did>) -> Self {
        let mut sum = Self::default();
        for did in all {
            match did {
                Did::Copied(bytes) => {
                    sum.copied += 1;
                    sum.copied_bytes += bytes;
                }
                Did::Mounted => sum.mounted += 1,
                Did::Present => sum.present += 1,
                Did::Foreign => sum.foreign += 1,
            }
        }
        sum
    }

    /// What two transfers did together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            copied: self.copied + other.copied,
            copied_bytes: self.copied_bytes + other.copied_bytes,
            mounted: self.mounted + other.mounted,
            present: self.present + other.present,
            foreign: self.foreign + other.foreign,
        }
    }

    /// In a line: `2 blobs sent (3.0 MiB), 1 linked, 4 were there`.
    pub(crate) fn words(&self) -> String {
        let word = if self.copied == 1 { "blob" } else { "blobs" };
        let mut words = vec![format!("{} {word} sent ({})", self.copied, output::size(self.copied_bytes))];
        let others = [(self.mounted, "linked"), (self.present, "there already"), (self.foreign, "kept elsewhere")];
        words.extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")));
        words.join(", ")
    }
}

/// Copies everything that hangs on a manifest, and names it at last.
pub(crate) async fn copy<S: Way + Clone, T: Way + Clone>(
    source: &Shop<'_, S>,
    target: &Shop<'_, T>,
    tree: &Tree,
    version: &Version,
    is_same_registry: bool,
) -> Result<Outcome> {
    let done = bring(source, target, &tree.blobs, is_same_registry).await?;
    name(target, tree, version).await?;
    Ok(Outcome::of(done))
}

/// Has the target have these blobs of the source.
pub(crate) async fn bring<S: Way + Clone, T: Way + Clone>(
    source: &Shop<'_, S>,
    target: &Shop<'_, T>,
    blobs: &[Blob],
    is_same_registry: bool,
) -> Result<Vec<Did>> {
    let all = blobs.iter().fold(0, |sum: u64, blob| sum.saturating_add(blob.size));
    let progress = Progress::of(format!("copy to {}", target.repository), all);
    let mount = (is_same_registry && source.repository != target.repository).then_some(source.repository);
    let open = || (source.client.beside(), target.client.beside());
    let work = async |(from, to): &mut (Client<S>, Client<T>), blob: &Blob| {
        let one = One { blob, progress: &progress, mount };
        patiently(async || one.copy((from, source.repository), (to, target.repository)).await)
            .await
            .with_context(|| format!("copy {}", blob.digest))
    };
    beside::each(open, blobs, work).await
}

/// Puts the manifests there, those that others point to first, and the last one under its name.
pub(crate) async fn name<T: Way + Clone>(target: &Shop<'_, T>, tree: &Tree, version: &Version) -> Result<()> {
    let mut client = target.client.beside();
    let Some((root, parts)) = tree.manifests.split_last() else { bail!("there is no manifest") };
    for part in parts {
        let digest = Version::digest(&part.digest).with_context(|| format!("{:?} is no digest", part.digest))?;
        put(&mut client, target.repository, &digest, part).await?;
    }
    if let Version::Digest(wanted) = version
        && *wanted != root.digest
    {
        bail!("the image has the digest {} and cannot be called {wanted}", root.digest);
    }
    put(&mut client, target.repository, version, root).await
}

async fn put<W: Way>(client: &mut Client<W>, repository: &Repository, version: &Version, found: &Found) -> Result<()> {
    patiently(async || {
        let there = manifest::digest_of(client, repository, version).await?;
        if there.as_ref() == Some(&found.digest) {
            return Ok(());
        }
        manifest::put(client, repository, version, found).await
    })
    .await
}

/// One blob on its way.
pub(crate) struct One<'a> {
    pub(crate) blob: &'a Blob,
    pub(crate) progress: &'a Progress,
    /// A repository of the same registry that has it.
    pub(crate) mount: Option<&'a Repository>,
}

impl One<'_> {
    async fn copy<S: Way, T: Way>(
        &self,
        (source, from): (&mut Client<S>, &Repository),
        (target, to): (&mut Client<T>, &Repository),
    ) -> Result<Did> {
        let location = match self.begin(target, to).await? {
            Ok(location) => location,
            Err(did) => return Ok(did),
        };
        if self.blob.is_foreign && blobs::size(source, from, &self.blob.digest).await?.is_none() {
            return Ok(Did::Foreign);
        }
        let (into, pieces) = Pieces::of(self.blob.size);
        let sent = Cell::new(0);
        let give = async {
            let done = blobs::get(source, from, self.blob, async |piece| {
                let length = piece.len() as u64;
                match blobs::pass_on(&into, piece).await? {
                    Sent::Whole => {}
                    Sent::Unwanted => return Err(stopped()),
                }
                sent.set(sent.get() + length);
                self.progress.add(length);
                Ok(())
            });
            let done = done.await;
            // What is not whole must not look as if it were.
            drop(into);
            match done {
                Ok(true) => Ok(()),
                Ok(false) => Err(anyhow!("{} is not there, which a manifest of {from} points to", self.blob.digest)),
                Err(error) => Err(error),
            }
        };
        let done = carried(give, blobs::put(target, &location, self.blob, pieces)).await;
        if done.is_err() {
            self.progress.take_back(sent.get());
        }
        done.map(|()| Did::Copied(self.blob.size))
    }

    /// Where the content goes; or that nothing has to be sent.
    pub(crate) async fn begin<T: Way>(&self, target: &mut Client<T>, to: &Repository) -> Result<Result<String, Did>> {
        if let Some(size) = blobs::size(target, to, &self.blob.digest).await? {
            if size != self.blob.size {
                bail!(
                    "{} has {} with {size} bytes instead of {}: its storage is damaged, or the manifest is wrong",
                    target.place(),
                    self.blob.digest,
                    self.blob.size
                );
            }
            self.progress.add(self.blob.size);
            return Ok(Err(Did::Present));
        }
        match blobs::begin(target, to, self.mount.map(|from| (self.blob.digest.as_str(), from))).await? {
            Begun::Mounted => {
                self.progress.add(self.blob.size);
                Ok(Err(Did::Mounted))
            }
            Begun::At(location) => Ok(Ok(location)),
        }
    }
}

/// Waits for who gives and who takes; of two failures, that of the one who began it.
pub(crate) async fn carried(
    give: impl Future<Output = Result<()>>,
    take: impl Future<Output = Result<()>>,
) -> Result<()> {
    let (mut give, mut take) = (std::pin::pin!(give), std::pin::pin!(take));
    tokio::select! {
        biased;
        given = &mut give => match given {
            Err(error) if !error.is::<Stopped>() => Err(error),
            _ => take.await,
        },
        // A registry may say no before it has been sent everything.
        taken = &mut take => taken,
    }
}

/// That the receiver has ended.
pub(crate) fn stopped() -> anyhow::Error {
    Stopped.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry_client::digest;
    use crate::registry_client::reference::Reference;
    use crate::registry_client::store::{Kind, Store};
    use crate::registry_client::tree;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    /// Bytes that are not all the same.
    fn noise(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8 ^ (at as u8).wrapping_mul(31) ^ seed).collect()
    }

    /// Copies `a:1` of one registry to `b:2` of another, or of the same.
    async fn copied(from: &Store, to: &Store, is_same: bool) -> Result<(Outcome, String)> {
        let (source, target) = (Reference::parse("a:1", &[]).unwrap(), Reference::parse("b:2", &[]).unwrap());
        let (mut near, far) = (from.client(), to.client());
        let tree = tree::pull(&mut near, &source.repository, &source.version, None).await?.context("nothing there")?;
        let from = Shop { client: &near, repository: &source.repository };
        let to = Shop { client: &far, repository: &target.repository };
        let outcome = copy(&from, &to, &tree, &target.version, is_same).await?;
        Ok((outcome, tree.root()?.digest.clone()))
    }

    async fn refused(from: &Store, to: &Store) -> String {
        let error = format!("{:#}", copied(from, to, false).await.err().unwrap());
        assert!(to.held().tags.is_empty(), "{error}: nothing has a name that is not whole");
        error
    }

    fn tagged(store: &Store, repository: &str, tag: &str) -> Option<String> {
        store.held().tags.get(&(repository.to_owned(), tag.to_owned())).cloned()
    }

    /// What a repository has is what another has.
    fn same_content(first: &Store, second: &Store) {
        let (first, second) = (first.held(), second.held());
        for ((_, digest), manifest) in &first.manifests {
            assert_eq!(second.manifests.get(&("b".to_owned(), digest.clone())), Some(manifest), "{digest}");
        }
        for ((_, digest), blob) in &first.blobs {
            assert_eq!(second.blobs.get(&("b".to_owned(), digest.clone())), Some(blob), "{digest}");
        }
    }

    fn index(store: &Store) {
        let (base, own) = (noise(50_000, 0), noise(20_000, 1));
        let amd = store.image("a", None, "amd64", &[&base, &own]);
        let arm = store.image("a", None, "arm64", &[&base, b""]);
        let cached = store.blob("a", "application/vnd.oci.image.layer.v1.tar+gzip", b"a layer in an index");
        store.index("a", "1", &[amd, arm, cached]);
    }

    #[tokio::test]
    async fn an_index_comes_with_everything_and_a_second_time_nothing_is_sent() {
        let (from, to) = (Store::default(), Store::default());
        index(&from);
        let (outcome, digest) = copied(&from, &to, false).await.unwrap();
        // Two configurations, four layers of which one is empty.
        assert_eq!((outcome.copied, outcome.present), (6, 0));
        assert_eq!(tagged(&to, "b", "2"), Some(digest.clone()));
        assert_eq!(tagged(&from, "a", "1"), Some(digest));
        same_content(&from, &to);

        let (puts, posts) = (to.count("PUT"), to.count("POST"));
        let (outcome, _) = copied(&from, &to, false).await.unwrap();
        assert_eq!((outcome.copied, outcome.present), (0, 6));
        assert_eq!((to.count("PUT"), to.count("POST")), (puts, posts));
    }

    #[tokio::test]
    async fn within_a_registry_no_blob_is_sent() {
        let store = Store::default();
        index(&store);
        let (outcome, _) = copied(&store, &store, true).await.unwrap();
        assert_eq!((outcome.copied, outcome.mounted), (0, 6));
        assert_eq!(store.count("GET /v2/a/blobs/") + store.count("PUT /v2/b/blobs/"), 0);
        assert!(tagged(&store, "b", "2").is_some());
    }

    #[tokio::test]
    async fn artifacts_are_copied_whatever_they_are() {
        let (from, to) = (Store::default(), Store::default());
        let chart = from.blob("a", "application/vnd.cncf.helm.config.v1+json", b"{\"name\": \"chart\"}");
        let content = from.blob("a", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", &noise(3000, 2));
        from.manifest(
            "a",
            Some("1"),
            &json!({"mediaType": MANIFEST, "config": chart, "layers": [content], "subject": {"digest": "sha256:1"}}),
        );
        assert_eq!(copied(&from, &to, false).await.unwrap().0.copied, 2);
        same_content(&from, &to);
    }

    #[tokio::test(start_paused = true)]
    async fn what_breaks_off_is_taken_up_again_and_what_is_busy_is_asked_again() {
        for (side, of, times, kind) in [
            (0, "GET /v2/a/blobs/", 3, Kind::CutAfter(700)),
            (0, "GET /v2/a/blobs/", 1, Kind::CutAfter(0)),
            (0, "GET /v2/a/blobs/", 2, Kind::Status(429)),
            (0, "GET /v2/a/manifests/", 1, Kind::Status(502)),
            (1, "HEAD /v2/b/blobs/", 3, Kind::Status(503)),
            (1, "POST", 2, Kind::Status(500)),
            (1, "PUT /v2/b/blobs/", 3, Kind::Status(429)),
            (1, "PUT /v2/b/manifests/", 2, Kind::Status(503)),
        ] {
            let (from, to) = (Store::default(), Store::default());
            index(&from);
            [&from, &to][side].fails(of, times, kind);
            let done = copied(&from, &to, false).await;
            assert!(done.is_ok(), "{of}: {:#}", done.unwrap_err());
            same_content(&from, &to);
            assert_eq!([&from, &to][side].held().faults[0].times, 0, "{of} did not happen");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_goes_on_where_it_broke_off() {
        let (from, to) = (Store::default(), Store::default());
        from.image("a", Some("1"), "amd64", &[&noise(50_000, 0)]);
        from.fails("GET /v2/a/blobs/", 3, Kind::CutAfter(10_000));
        copied(&from, &to, false).await.unwrap();
        assert_eq!(to.count("PUT /v2/b/blobs/"), 2, "what was sent is not sent again");
        let held = from.held();
        for rest in ["bytes=10000-", "bytes=20000-"] {
            assert!(held.asked.iter().any(|line| line.ends_with(rest)), "{rest}: {:?}", held.asked);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_stays_busy_is_not_asked_for_ever() {
        let (from, to) = (Store::default(), Store::default());
        index(&from);
        to.fails("PUT /v2/b/blobs/", 1000, Kind::Status(429));
        let error = refused(&from, &to).await;
        assert!(error.contains("with 429") && error.contains("copy sha256:"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_what_its_digest_says_is_nowhere_afterwards() {
        for (of, kind, words) in [
            ("GET /v2/a/blobs/", Kind::Damaged, "its storage is damaged"),
            ("GET /v2/a/blobs/", Kind::Endless, "has more than the 50000 bytes"),
            ("GET /v2/a/manifests/", Kind::Damaged, "its storage is damaged"),
            ("GET /v2/a/manifests/", Kind::Endless, "has the digest"),
            ("GET /v2/a/blobs/", Kind::Status(404), "is not there, which a manifest of a points to"),
            ("PUT /v2/b/blobs/", Kind::Status(413), "with 413"),
            ("PUT /v2/b/manifests/", Kind::Status(400), "with 400"),
        ] {
            let (from, to) = (Store::default(), Store::default());
            from.image("a", Some("1"), "amd64", &[&noise(50_000, 0)]);
            from.held().blobs.retain(|_, content| {
                content.len() == 50_000 || matches!(kind, Kind::Status(_) | Kind::Damaged | Kind::Endless)
            });
            let layer = format!("GET /v2/a/blobs/{}", digest::sha256(noise(50_000, 0)));
            // Of the layer, not of the small configuration.
            let of: &'static str = if of == "GET /v2/a/blobs/" { layer.leak() } else { of };
            let side = if of.starts_with("GET") { &from } else { &to };
            side.fails(of, 100, kind);
            let error = refused(&from, &to).await;
            assert!(error.contains(words), "{words}: {error}");
            if of.starts_with("GET") {
                let held = to.held();
                assert!(held.blobs.values().all(|blob| blob.len() < 50_000), "{words}: half a blob is kept");
            }
        }
    }

    #[tokio::test]
    async fn a_manifest_of_a_hundred_megabytes_is_not_read() {
        let (from, to) = (Store::default(), Store::default());
        let many: Vec<_> = (0..60)
            .map(|number| json!({"mediaType": "x", "digest": format!("sha256:{number:064}"), "size": 1}))
            .collect();
        from.index("a", "1", &many);
        from.fails("GET /v2/a/manifests/", 1, Kind::Endless);
        let error = refused(&from, &to).await;
        assert!(error.contains("more than 4194304 bytes"), "{error}");
    }

    #[tokio::test]
    async fn an_index_with_a_hole_is_not_copied_in_part() {
        let (from, to) = (Store::default(), Store::default());
        index(&from);
        let root = tagged(&from, "a", "1");
        let child = from.held().manifests.keys().find(|(_, digest)| Some(digest) != root.as_ref()).unwrap().clone();
        from.held().manifests.remove(&child);
        let error = refused(&from, &to).await;
        assert!(error.contains("is not there, which an index points to"), "{error}");
        assert_eq!(to.held().blobs.len(), 0, "nothing was begun");
    }

    #[tokio::test]
    async fn a_tag_that_moves_meanwhile_does_not_mix_two_images() {
        let (from, to) = (Store::default(), Store::default());
        index(&from);
        let before = tagged(&from, "a", "1").unwrap();
        from.image("a", Some("other"), "amd64", &[b"new"]);
        from.fails("GET /v2/a/manifests/1", 1, Kind::Moved("other"));
        let (_, digest) = copied(&from, &to, false).await.unwrap();
        assert_eq!((&digest, tagged(&to, "b", "2")), (&before, Some(before.clone())));
        assert_ne!(tagged(&from, "a", "1"), Some(before));
    }

    #[tokio::test]
    async fn layers_that_are_kept_elsewhere_are_left_there() {
        let (from, to) = (Store::default(), Store::default());
        let config = from.blob("a", "application/vnd.oci.image.config.v1+json", b"{}");
        let mut foreign = json!({"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 9});
        foreign["digest"] = Value::String(digest::sha256("elsewhere"));
        foreign["urls"] = json!(["https://elsewhere.test/layer"]);
        from.manifest("a", Some("1"), &json!({"mediaType": MANIFEST, "config": config, "layers": [foreign]}));
        let (outcome, _) = copied(&from, &to, false).await.unwrap();
        assert_eq!((outcome.copied, outcome.foreign), (1, 1));
        assert_eq!(outcome.words(), "1 blob sent (2 B), 1 kept elsewhere");
    }

    #[tokio::test]
    async fn longer_digests_are_compared_as_well() {
        use sha2::Digest as _;
        let (from, to) = (Store::default(), Store::default());
        let content = noise(5000, 3);
        let long: String = sha2::Sha512::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let long = format!("sha512:{long}");
        from.held().blobs.insert(("a".to_owned(), long.clone()), content);
        let config = from.blob("a", "application/vnd.oci.image.config.v1+json", b"{}");
        let layer = json!({"mediaType": "x", "digest": long, "size": 5000});
        from.manifest("a", Some("1"), &json!({"mediaType": MANIFEST, "config": config, "layers": [layer]}));
        copied(&from, &to, false).await.unwrap();
        same_content(&from, &to);
        let other = Store::default();
        from.fails("GET /v2/a/blobs/sha512", 1, Kind::Damaged);
        assert!(refused(&from, &other).await.contains("its storage is damaged"));
    }

    #[tokio::test]
    async fn what_is_no_digest_becomes_no_request() {
        let (from, to) = (Store::default(), Store::default());
        let config = json!({"mediaType": "x", "digest": "sha256:../../secrets", "size": 1});
        from.manifest("a", Some("1"), &json!({"mediaType": MANIFEST, "config": config}));
        assert!(refused(&from, &to).await.contains("is no digest"));
        assert_eq!(from.count("GET /v2/a/blobs/"), 0);
    }
}
