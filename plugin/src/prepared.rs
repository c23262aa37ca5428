//! Images of which every blob lies here: they are sent to a registry. What it has already is not sent, and what is not what its digest says is not taken.

use std::io::Read;

use anyhow::{Context as _, Result, bail};
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::archive::Content;
use crate::output::{self, Form};
use crate::progress::Progress;
use crate::registry_client::blobs::{self, Blob, Sent};
use crate::registry_client::connection::Way;
use crate::registry_client::digest::Hasher;
use crate::registry_client::reference::{Reference, Repository};
use crate::registry_client::retries::patiently;
use crate::registry_client::tree::Tree;
use crate::registry_client::{Client, Pieces, beside};
use crate::transfer::{self, Did, One, Outcome, Shop};

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// An image of which everything is known that has to be sent.
pub(crate) struct Prepared {
    pub(crate) tree: Tree,
    /// For each blob of the tree.
    pub(crate) contents: Vec<Content>,
}

/// What was sent under a name.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Done {
    pub(crate) reference: String,
    pub(crate) repository: String,
    pub(crate) digest: String,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

impl Done {
    /// What was done with one image, in each form.
    pub(crate) fn told(&self, form: Form) -> Result<String> {
        Ok(match form {
            Form::Table => format!("{}, {}: {}\n", self.reference, self.digest, self.outcome.words()),
            Form::Name => format!("{}@{}\n", self.repository, self.digest),
            Form::Json => output::json(self)?,
            Form::Yaml => output::yaml(self)?,
        })
    }

    /// The same of several.
    pub(crate) fn all_told(done: &[Self], form: Form) -> Result<String> {
        match form {
            Form::Table | Form::Name => done.iter().map(|one| one.told(form)).collect(),
            Form::Json => output::json(&done),
            Form::Yaml => output::yaml(&done),
        }
    }
}

/// Whether what lies here is what it is called.
pub(crate) fn agree(hasher: Hasher, digest: &str) -> Result<()> {
    let found = hasher.digest();
    if found != digest {
        bail!("what the archive has as {digest} has the digest {found}: it is damaged, or somebody changed it");
    }
    Ok(())
}

impl Prepared {
    /// Sends it, and names it at last.
    pub(crate) async fn send<W: Way + Clone>(&self, client: &Client<W>, reference: &Reference) -> Result<Outcome> {
        let Reference { repository, version } = reference;
        let progress = Progress::of(format!("load {reference}"), self.tree.bytes());
        let work = async |client: &mut Client<W>, (blob, content): (&Blob, &Content)| {
            let one = One { blob, progress: &progress, mount: None };
            patiently(async || upload(&one, client, repository, content).await)
                .await
                .with_context(|| format!("load {}", blob.digest))
        };
        let done = beside::each(|| client.beside(), self.tree.blobs.iter().zip(&self.contents), work).await?;
        drop(progress);
        transfer::name(&Shop { client, repository }, &self.tree, version).await?;
        Ok(Outcome::of(done))
    }
}

async fn upload<W: Way>(one: &One<'_>, client: &mut Client<W>, to: &Repository, content: &Content) -> Result<Did> {
    let location = match one.begin(client, to).await? {
        Ok(location) => location,
        Err(did) => return Ok(did),
    };
    let (into, pieces) = Pieces::of(one.blob.size);
    let mut sent = 0;
    let give = async {
        let (out, mut pieces) = mpsc::channel(4);
        let (reader, blob) = (content.reader(), one.blob.clone());
        let reading = tokio::task::spawn_blocking(move || read(reader, &blob, &out));
        while let Some(piece) = pieces.recv().await {
            let length = piece.len() as u64;
            if let Sent::Unwanted = blobs::pass_on(&into, piece).await? {
                return Err(transfer::stopped());
            }
            sent += length;
            one.progress.add(length);
        }
        // Only then is the upload left alone: what is wrong is told by who read it.
        let read = reading.await.context("read the archive");
        drop(into);
        read?
    };
    let done = transfer::carried(give, blobs::put(client, &location, one.blob, pieces)).await;
    if done.is_err() {
        one.progress.take_back(sent);
    }
    done.map(|()| Did::Copied(one.blob.size))
}

/// Reads a blob; the last piece is given away only when all together are what the digest says.
fn read(mut reader: impl Read, blob: &Blob, out: &mpsc::Sender<Bytes>) -> Result<()> {
    let mut hasher = Hasher::like(&blob.digest)?;
    let mut held: Option<Bytes> = None;
    let give = |piece: Option<Bytes>| match piece.map(|piece| out.blocking_send(piece)) {
        Some(Err(_)) => Err(transfer::stopped()),
        _ => Ok(()),
    };
    loop {
        let mut piece = vec![0; PIECE];
        let read = reader.read(&mut piece).with_context(|| format!("read {}", blob.digest))?;
        if read == 0 {
            break;
        }
        piece.truncate(read);
        hasher.update(&piece);
        give(held.replace(piece.into()))?;
    }
    agree(hasher, &blob.digest)?;
    give(held)
}
