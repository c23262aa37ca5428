//! `rm`: an image goes. What goes with it, what stays and what space comes free is said before, and a tag never takes another one with it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow, bail};
use http::StatusCode;
use serde::Serialize;

use crate::access::{Access, Opened};
use crate::cluster::{self, listed};
use crate::output::{self, Form};
use crate::progress::Progress;
use crate::registry_client::connection::Way;
use crate::registry_client::manifest::{self, Found};
use crate::registry_client::reference::{Reference, Repository, Version};
use crate::registry_client::retries::{patiently, refused_with};
use crate::registry_client::{Client, beside, blobs, pages};
use crate::shell;

/// Other images of the repository that are looked at.
const MOST_IMAGES: usize = 2000;
/// Questions whether another repository has a blob.
const MOST_QUESTIONS: usize = 5000;
/// Tags in a line.
const SHOWN: usize = 20;

/// Options of `rm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// The image, with or without an address of the registry before it
    #[arg(value_name = "REPOSITORY:TAG|@DIGEST")]
    image: String,
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// How to print what is deleted
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// What would be done.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    repository: String,
    digest: String,
    /// Tags that go.
    tags: Vec<String>,
    /// Tags of the same digest that stay.
    staying_tags: Vec<String>,
    /// Tags of indexes that point to it: it stays for them.
    used_by: Vec<String>,
    /// What is deleted, the image itself first; empty if only a tag is taken off.
    manifests: Vec<String>,
    /// Platforms that other images use, too.
    staying_manifests: Vec<String>,
    freed: Freed,
    /// Whether everything was looked at that could use the same blobs.
    is_exact: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Freed {
    blobs: usize,
    bytes: u64,
}

/// What hangs on an image, as far as the registry has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Parts {
    manifests: BTreeSet<String>,
    blobs: BTreeMap<String, u64>,
}

/// What there is to know of a repository before something of it goes.
struct Seen {
    /// The digest of each tag.
    tags: BTreeMap<String, String>,
    /// What hangs on the image that goes, and on each other one.
    image: Parts,
    others: BTreeMap<String, Parts>,
    is_exact: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let mut opened = options.access.open().await?;
        if !options.image.contains('@') && !options.image.rsplit('/').next().is_some_and(|name| name.contains(':')) {
            bail!("{}: say which tag or digest is to go", options.image);
        }
        let reference = opened.reference(&options.image)?;
        let Reference { repository, version } = &reference;
        let digest = patiently(async || manifest::digest_of(&mut opened.client, repository, version).await).await?;
        let Some(digest) = digest else { return Err(opened.has_no(&reference)) };
        let seen = look(&mut opened.client, repository, &digest).await?;
        let mut plan = plan(&reference, &digest, &seen)?;
        shared_elsewhere(&mut opened.client, &mut plan, &seen).await?;

        let config = opened.found.spec.config.clone().unwrap_or_default();
        let is_allowed = config.allow_deletes.unwrap_or(false);
        if options.output == Form::Table {
            shell::print(&page(&plan));
        }
        if options.dry_run {
            if !is_allowed {
                shell::complain(&forbidden(&opened));
            }
        } else {
            if !is_allowed {
                return Err(anyhow!(forbidden(&opened)));
            }
            shell::confirm(&question(&reference, &plan), options.yes)?;
            still_so(&mut opened.client, &reference, &plan, &seen).await?;
            carry_out(&mut opened, &reference, &plan).await?;
        }
        shell::print(&match options.output {
            Form::Table if options.dry_run => "Nothing was deleted.\n".to_owned(),
            Form::Table => String::new(),
            Form::Name => names(&plan),
            Form::Json => output::json(&plan)?,
            Form::Yaml => output::yaml(&plan)?,
        });
        Ok(())
    })
}

fn forbidden(opened: &Opened) -> String {
    let registry = &opened.registry;
    format!(
        "{} does not allow deletes: set spec.config.allowDeletes to true, as with kubectl --namespace {} patch privateregistry {} --type merge \
         --patch '{{\"spec\": {{\"config\": {{\"allowDeletes\": true}}}}}}'",
        registry.title(),
        registry.namespace,
        registry.name
    )
}

/// Reads the repository's tags, and what other images have in common with this one.
async fn look<W: Way + Clone>(client: &mut Client<W>, repository: &Repository, digest: &str) -> Result<Seen> {
    let names = patiently(async || pages::tags(client, repository.as_str()).await).await?.unwrap_or_default();
    let progress = Progress::of("look at tags", 0);
    let digest_of = async |client: &mut Client<W>, tag: String| {
        let version = Version::Tag(tag.clone());
        let found = patiently(async || manifest::digest_of(client, repository, &version).await).await?;
        progress.add(0);
        // A tag may have gone since it was listed.
        Ok(found.map(|digest| (tag, digest)))
    };
    let tags: BTreeMap<_, _> =
        beside::each(|| client.beside(), names, digest_of).await?.into_iter().flatten().collect();
    let others: BTreeSet<_> = tags.values().filter(|other| *other != digest).cloned().collect();
    let is_exact = others.len() <= MOST_IMAGES;
    let known: std::cell::RefCell<BTreeMap<String, Parts>> = std::cell::RefCell::default();
    let parts_of = async |client: &mut Client<W>, digest: String| {
        Ok((digest.clone(), parts(client, repository, &digest, &known).await?))
    };
    let others = beside::each(|| client.beside(), others.into_iter().take(MOST_IMAGES), parts_of).await?;
    let image = parts(client, repository, digest, &known).await?;
    Ok(Seen { tags, image, others: others.into_iter().collect(), is_exact })
}

/// What hangs on a manifest. What is missing in the registry cannot be lost.
async fn parts<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    digest: &str,
    known: &std::cell::RefCell<BTreeMap<String, Parts>>,
) -> Result<Parts> {
    let mut all = Parts::default();
    let mut left = vec![digest.to_owned()];
    while let Some(digest) = left.pop() {
        let Some(version) = Version::digest(&digest) else { continue };
        if !all.manifests.insert(digest.clone()) {
            continue;
        }
        let before = known.borrow().get(&digest).cloned();
        let own = match before {
            Some(own) => own,
            None => match patiently(async || manifest::find(client, repository, &version).await).await? {
                Some(found) => own_parts(&found),
                None => {
                    all.manifests.remove(&digest);
                    continue;
                }
            },
        };
        known.borrow_mut().insert(digest, own.clone());
        left.extend(own.manifests);
        all.blobs.extend(own.blobs);
    }
    Ok(all)
}

fn own_parts(found: &Found) -> Parts {
    let manifest = &found.manifest;
    let layers = manifest.layers.iter().flatten();
    Parts {
        manifests: manifest.manifests.iter().flatten().map(|part| part.digest.clone()).collect(),
        blobs: manifest.config.iter().chain(layers).map(|blob| (blob.digest.clone(), blob.size)).collect(),
    }
}

/// What goes and what stays. Pure.
fn plan(reference: &Reference, digest: &str, seen: &Seen) -> Result<Plan> {
    let of = |wanted: &str| -> Vec<String> {
        seen.tags.iter().filter(|(_, digest)| *digest == wanted).map(|(tag, _)| tag.clone()).collect()
    };
    let users: Vec<_> = seen.others.iter().filter(|(_, parts)| parts.manifests.contains(digest)).collect();
    let used_by: Vec<_> = users.iter().flat_map(|(index, _)| of(index)).collect();
    let (tags, staying_tags) = match &reference.version {
        Version::Tag(tag) => (vec![tag.clone()], of(digest).into_iter().filter(|other| other != tag).collect()),
        Version::Digest(_) if !used_by.is_empty() => bail!(
            "{} belongs to {}, which would be broken without it: delete that first",
            reference,
            listed(used_by.iter().map(|tag| format!("{}:{tag}", reference.repository)))
        ),
        Version::Digest(_) => (of(digest), Vec::new()),
    };
    let mut plan = Plan {
        repository: reference.repository.to_string(),
        digest: digest.to_owned(),
        tags,
        staying_tags,
        used_by,
        manifests: Vec::new(),
        staying_manifests: Vec::new(),
        freed: Freed::default(),
        is_exact: seen.is_exact,
    };
    if !plan.staying_tags.is_empty() || !plan.used_by.is_empty() {
        return Ok(plan);
    }
    let is_used = |part: &&String| seen.others.values().any(|other| other.manifests.contains(*part));
    let parts = seen.image.manifests.iter().filter(|part| *part != digest);
    // Not everything was looked at: only the image itself is surely of no use to another tag.
    let (staying, going): (Vec<_>, Vec<_>) = parts.partition(|part| !seen.is_exact || is_used(part));
    plan.manifests = std::iter::once(digest.to_owned()).chain(going.into_iter().cloned()).collect();
    plan.staying_manifests = staying.into_iter().cloned().collect();
    Ok(plan)
}

/// Blobs that no other image of the repository has.
fn own_blobs(plan: &Plan, seen: &Seen) -> BTreeMap<String, u64> {
    if plan.manifests.is_empty() {
        return BTreeMap::new();
    }
    let is_used = |digest: &String| seen.others.values().any(|other| other.blobs.contains_key(digest));
    seen.image
        .blobs
        .iter()
        .filter(|(digest, _)| !is_used(digest))
        .map(|(digest, size)| (digest.clone(), *size))
        .collect()
}

/// Asks the other repositories for the blobs that would come free.
async fn shared_elsewhere<W: Way + Clone>(client: &mut Client<W>, plan: &mut Plan, seen: &Seen) -> Result<()> {
    let own = own_blobs(plan, seen);
    let mut free = own.clone();
    if !own.is_empty() {
        // Not everybody may see the catalog.
        let repositories = pages::repositories(client).await.ok();
        let others = repositories.iter().flatten().filter(|name| **name != plan.repository);
        let others: Vec<_> = others.filter_map(|name| Repository::parse(name, &[]).ok()).collect();
        let asked = Cell::new(0);
        let has = async |client: &mut Client<W>, repository: Repository| {
            let mut found = Vec::new();
            for digest in own.keys() {
                asked.set(asked.get() + 1);
                if asked.get() > MOST_QUESTIONS {
                    break;
                }
                if patiently(async || blobs::size(client, &repository, digest).await).await?.is_some() {
                    found.push(digest.clone());
                }
            }
            Ok(found)
        };
        let shared = beside::each(|| client.beside(), others, has).await?;
        for digest in shared.iter().flatten() {
            free.remove(digest);
        }
        plan.is_exact &= repositories.is_some() && asked.get() <= MOST_QUESTIONS;
    }
    plan.freed = Freed { blobs: free.len(), bytes: free.values().fold(0, |sum, size| sum.saturating_add(*size)) };
    Ok(())
}

fn page(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12} {value}");
        }
    };
    line("Image", &format!("{}@{}", plan.repository, plan.digest));
    line(if plan.manifests.is_empty() { "Untagged" } else { "Tags" }, &shown(&plan.tags));
    line("Staying tags", &shown(&plan.staying_tags));
    line("Part of", &shown(&plan.used_by));
    match plan.manifests.len() {
        0 => line("Deleted", "nothing but the tag: the image stays for the others"),
        1 => line("Deleted", "the image"),
        more => line("Deleted", &format!("the index and {} manifests of it", more - 1)),
    }
    if !plan.staying_manifests.is_empty() {
        line("Staying", &format!("{} manifests of it that other images use", plan.staying_manifests.len()));
    }
    let about = if plan.is_exact { "" } else { "at most " };
    let Freed { blobs, bytes } = plan.freed;
    line("Comes free", &format!("{about}{} in {blobs} blobs, with the next garbage collection", output::size(bytes)));
    text
}

fn shown(tags: &[String]) -> String {
    match tags.get(SHOWN..).unwrap_or_default() {
        [] => tags.join(", "),
        more => format!("{} and {} more", tags[..SHOWN].join(", "), more.len()),
    }
}

fn question(reference: &Reference, plan: &Plan) -> String {
    match (&reference.version, plan.manifests.is_empty()) {
        (_, true) => format!("Take the tag off {reference}?"),
        (Version::Tag(_), false) => format!("Delete {reference}?"),
        (Version::Digest(_), false) => format!(
            "Delete {reference} and {}?",
            match plan.tags.len() {
                0 => "no tag".to_owned(),
                1 => "its tag".to_owned(),
                more => format!("its {more} tags"),
            }
        ),
    }
}

fn names(plan: &Plan) -> String {
    let tags = plan.tags.iter().map(|tag| format!("{}:{tag}\n", plan.repository));
    tags.chain(plan.manifests.iter().map(|digest| format!("{}@{digest}\n", plan.repository))).collect()
}

/// Whether what was shown is still true: somebody may have pushed while a person read.
async fn still_so<W: Way>(client: &mut Client<W>, reference: &Reference, plan: &Plan, seen: &Seen) -> Result<()> {
    let repository = &reference.repository;
    let digest = manifest::digest_of(client, repository, &reference.version).await?;
    if digest.as_ref() != Some(&plan.digest) {
        bail!("{reference} was changed meanwhile. Nothing was deleted: look again");
    }
    if plan.manifests.is_empty() {
        return Ok(());
    }
    for tag in pages::tags(client, repository.as_str()).await?.unwrap_or_default() {
        if seen.tags.contains_key(&tag) {
            continue;
        }
        if manifest::digest_of(client, repository, &Version::Tag(tag.clone())).await?.as_ref() == Some(&plan.digest) {
            bail!("{repository}:{tag} was given to the same image meanwhile. Nothing was deleted: look again");
        }
    }
    Ok(())
}

async fn carry_out(opened: &mut Opened, reference: &Reference, plan: &Plan) -> Result<()> {
    let deleted = delete(&mut opened.client, reference, plan).await;
    deleted.map_err(|error| match refused_with(&error) {
        // Its running pods, or what stands before it, know of no permission.
        Some(StatusCode::METHOD_NOT_ALLOWED) => error.context(format!(
            "{} refuses to delete, although its manifest allows it: it may be read-only, or its pods are not told yet",
            opened.registry.title()
        )),
        Some(StatusCode::BAD_REQUEST) => error.context("this version of the registry deletes by digest only"),
        _ => error,
    })
}

async fn delete<W: Way>(client: &mut Client<W>, reference: &Reference, plan: &Plan) -> Result<()> {
    let repository = &reference.repository;
    if plan.manifests.is_empty() {
        patiently(async || manifest::delete(client, repository, &reference.version).await).await?;
        return Ok(());
    }
    // The index goes first: it is never seen without its parts.
    for digest in &plan.manifests {
        let version = Version::digest(digest).with_context(|| format!("{digest:?} is no digest"))?;
        patiently(async || manifest::delete(client, repository, &version).await)
            .await
            .with_context(|| format!("delete {repository}@{digest}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry_client::store::{Kind, Store};

    fn digest(of: &serde_json::Value) -> String {
        of["digest"].as_str().unwrap().to_owned()
    }

    async fn planned(store: &Store, image: &str) -> Result<(Reference, Plan, Seen)> {
        let reference = Reference::parse(image, &[]).unwrap();
        let mut client = store.client();
        let digest = manifest::digest_of(&mut client, &reference.repository, &reference.version).await?.unwrap();
        let seen = look(&mut client, &reference.repository, &digest).await?;
        let mut plan = plan(&reference, &digest, &seen)?;
        shared_elsewhere(&mut client, &mut plan, &seen).await?;
        Ok((reference, plan, seen))
    }

    async fn removed(store: &Store, image: &str) -> Plan {
        let (reference, plan, seen) = planned(store, image).await.unwrap();
        let mut client = store.client();
        still_so(&mut client, &reference, &plan, &seen).await.unwrap();
        delete(&mut client, &reference, &plan).await.unwrap();
        plan
    }

    #[tokio::test]
    async fn a_tag_takes_no_other_tag_with_it() {
        let store = Store::default();
        let image = store.image("a", Some("1"), "amd64", &[b"layer"]);
        store.held().tags.insert(("a".to_owned(), "stable".to_owned()), digest(&image));
        let plan = removed(&store, "a:1").await;
        assert_eq!((plan.manifests.len(), plan.staying_tags.as_slice()), (0, &["stable".to_owned()][..]));
        assert_eq!(plan.freed, Freed::default());
        let tags: Vec<_> = store.held().tags.keys().map(|(_, tag)| tag.clone()).collect();
        assert_eq!((tags, store.held().manifests.len()), (vec!["stable".to_owned()], 1));
        assert!(page(&plan).contains("nothing but the tag"), "{}", page(&plan));
    }

    #[tokio::test]
    async fn the_last_tag_takes_the_image_and_frees_what_nobody_else_has() {
        let store = Store::default();
        store.image("a", Some("1"), "amd64", &[b"base", b"shared with b", b"own"]);
        store.image("a", Some("2"), "amd64", &[b"base", b"other"]);
        store.image("b", Some("1"), "amd64", &[b"shared with b"]);
        let config = {
            let held = store.held();
            let (_, manifest) =
                &held.manifests[&("a".to_owned(), held.tags[&("a".to_owned(), "1".to_owned())].clone())];
            serde_json::from_slice::<serde_json::Value>(manifest).unwrap()["config"]["size"].as_u64().unwrap()
        };
        let plan = removed(&store, "a:1").await;
        assert_eq!((plan.freed, plan.is_exact), (Freed { blobs: 2, bytes: 3 + config }, true));
        assert_eq!(store.held().manifests.len(), 2);
        assert!(!store.held().tags.contains_key(&("a".to_owned(), "1".to_owned())));
    }

    #[tokio::test]
    async fn an_index_goes_with_those_of_its_parts_that_no_other_image_uses() {
        let store = Store::default();
        let amd = store.image("a", None, "amd64", &[b"amd"]);
        let arm = store.image("a", Some("arm"), "arm64", &[b"arm"]);
        let index = store.index("a", "all", &[amd.clone(), arm.clone()]);
        let plan = removed(&store, "a:all").await;
        assert_eq!(plan.manifests, [digest(&index), digest(&amd)]);
        assert_eq!(plan.staying_manifests, [digest(&arm)]);
        assert_eq!(store.held().manifests.keys().map(|(_, digest)| digest.clone()).collect::<Vec<_>>(), [digest(&arm)]);
    }

    #[tokio::test]
    async fn what_an_index_needs_is_not_deleted() {
        let store = Store::default();
        let amd = store.image("a", Some("1"), "amd64", &[b"amd"]);
        store.index("a", "all", std::slice::from_ref(&amd));
        let error = planned(&store, &format!("a@{}", digest(&amd))).await.err().unwrap().to_string();
        assert!(error.contains("belongs to a:all, which would be broken"), "{error}");
        let plan = removed(&store, "a:1").await;
        assert_eq!((plan.manifests.len(), plan.used_by.as_slice()), (0, &["all".to_owned()][..]));
        assert_eq!(store.held().manifests.len(), 2);
    }

    #[tokio::test]
    async fn a_digest_takes_all_its_tags_and_says_which() {
        let store = Store::default();
        let image = store.image("a", Some("1"), "amd64", &[b"x"]);
        store.held().tags.insert(("a".to_owned(), "2".to_owned()), digest(&image));
        let plan = removed(&store, &format!("a@{}", digest(&image))).await;
        assert_eq!(plan.tags, ["1", "2"]);
        assert!(store.held().tags.is_empty());
        assert!(page(&plan).contains("\nTags         1, 2\n"), "{}", page(&plan));
    }

    #[tokio::test]
    async fn what_changed_while_somebody_read_is_not_deleted() {
        let store = Store::default();
        let image = store.image("a", Some("1"), "amd64", &[b"x"]);
        let (reference, plan, seen) = planned(&store, "a:1").await.unwrap();
        let error =
            async || still_so(&mut store.client(), &reference, &plan, &seen).await.map_err(|error| error.to_string());
        assert_eq!(error().await, Ok(()));
        store.held().tags.insert(("a".to_owned(), "new".to_owned()), digest(&image));
        assert!(error().await.unwrap_err().starts_with("a:new was given to the same image meanwhile"));
        store.image("a", Some("1"), "amd64", &[b"y"]);
        assert!(error().await.unwrap_err().starts_with("a:1 was changed meanwhile"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_keeps_all_says_so_and_one_that_is_busy_is_asked_again() {
        let store = Store::default();
        store.image("a", Some("1"), "amd64", &[b"x"]);
        store.held().keeps_all = true;
        let (reference, plan, _) = planned(&store, "a:1").await.unwrap();
        let error = delete(&mut store.client(), &reference, &plan).await.unwrap_err();
        assert_eq!(refused_with(&error), Some(StatusCode::METHOD_NOT_ALLOWED), "{error:#}");
        store.held().keeps_all = false;
        store.fails("DELETE", 2, Kind::Status(503));
        delete(&mut store.client(), &reference, &plan).await.unwrap();
        assert_eq!((store.count("DELETE"), store.held().manifests.len()), (4, 0));
    }

    #[tokio::test]
    async fn a_broken_index_can_be_deleted() {
        let store = Store::default();
        let amd = store.image("a", None, "amd64", &[b"amd"]);
        store.index("a", "all", std::slice::from_ref(&amd));
        store.held().manifests.remove(&("a".to_owned(), digest(&amd)));
        removed(&store, "a:all").await;
        assert!(store.held().manifests.is_empty());
    }

    #[test]
    fn long_lists_are_cut() {
        let tags: Vec<_> = (0..25).map(|number| number.to_string()).collect();
        assert!(shown(&tags).ends_with("18, 19 and 5 more"), "{}", shown(&tags));
        assert_eq!(shown(&tags[..20]).matches(',').count(), 19);
    }
}
