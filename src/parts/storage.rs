//! Where images are kept: the registry's own claim, one that it names, or a folder. Never deletes a claim, makes none in the place of one that is going
//! or that held images, and never lets pods run on another volume than the one that holds them.

use operator_engine::apply::{self, Live, Outcome};
use operator_engine::work::backoff::Class;
use serde_json::Value;

use super::{Pass, being_deleted};
use crate::api::annotation;
use crate::desired::{claim, kinds};
use crate::model::{self, Child};
use crate::status::Problem;

/// The claim that pods mount.
pub struct Storage {
    claim: Option<Live>,
    /// What keeps it from being as wanted.
    pub problem: Option<Problem>,
    /// Whether it was there before this pass, so that somebody may still have it mounted.
    pub is_old: bool,
    /// Whether pods may mount it.
    pub is_usable: bool,
    /// Whether another registry has it.
    pub is_held_by_another: bool,
    /// Whether it is being deleted: the last pod that mounts it is all that keeps the images.
    pub is_leaving: bool,
    /// Whether the volume that held the images is gone, or another one stands in its place: an empty registry must not pass for this one.
    pub is_lost: bool,
}

const VOLUME_GONE: &str = "VolumeGone";
const VOLUME_REPLACED: &str = "VolumeReplaced";

/// What the API server says of every quota that is in the way.
const OVER_QUOTA: &str = "exceeded quota";

/// Makes or grows the claim, or looks at one that is not ours.
pub async fn settle(pass: &Pass<'_>) -> Storage {
    let (claim, problem, is_old) = look(pass).await;
    let blocked = pass.registry.faults.storage.as_ref();
    let is_leaving = claim.as_ref().is_some_and(Live::is_leaving);
    let is_block =
        claim.as_ref().is_some_and(|claim| claim.value().pointer("/spec/volumeMode") == Some(&"Block".into()));
    let is_held_by_another = pass.observed.claim_holder.is_some();
    let replaced = claim.as_ref().and_then(|claim| replaced(pass, claim));
    let is_lost = replaced.is_some() || problem.as_ref().is_some_and(|problem| problem.reason == VOLUME_GONE);
    Storage {
        is_old,
        is_usable: blocked.is_none()
            && !is_block
            && !is_lost
            && (claim.is_some() || matches!(pass.registry.storage, model::Storage::EmptyDir { .. })),
        problem: match &claim {
            Some(claim) if is_leaving => Some(going(claim)),
            Some(claim) if is_block => Some(block(claim)),
            Some(_) if replaced.is_some() => replaced,
            // A claim of which the manifest's words would be "create it" may have held the images.
            _ if is_lost => problem,
            _ => blocked.map(Problem::of).or(problem),
        },
        claim,
        is_held_by_another,
        is_leaving,
        is_lost,
    }
}

impl Storage {
    /// Name of the claim, if there is one.
    #[must_use]
    pub fn claim_name(&self) -> Option<&str> {
        self.claim.as_ref().map(Live::name)
    }

    /// The claim, as the server has it.
    #[must_use]
    pub fn claim(&self) -> Option<&Value> {
        self.claim.as_ref().map(Live::value)
    }
}

/// The claim, what is wrong with it, and whether it was there before.
async fn look(pass: &Pass<'_>) -> (Option<Live>, Option<Problem>, bool) {
    let engine = &pass.ctx.engine;
    let read = async |name: &str| {
        engine
            .read(kinds::PERSISTENT_VOLUME_CLAIM, &pass.registry.namespace, name)
            .await
            .map_err(|error| pass.problem(error))
    };
    let live = |found: Result<Option<Live>, Problem>| match found {
        Ok(live) => (live, None, true),
        Err(problem) => (None, Some(problem), true),
    };
    if let model::Storage::Existing { name, .. } = &pass.registry.storage {
        let found = read(name).await;
        let is_absent = matches!(found, Ok(None));
        let (claim, problem, is_old) = live(found);
        return (claim, problem.or_else(|| gone(pass, name).filter(|_| is_absent)), is_old);
    }
    let Some(mut wanted) = claim::build(pass.registry) else { return (None, None, false) };
    let name = pass.registry.name.child(Child::Data);
    if pass.registry.faults.storage.is_some() {
        return live(read(&name).await);
    }
    let known = match engine.read_known_child(&pass.owner, kinds::PERSISTENT_VOLUME_CLAIM, &name).await {
        Ok(known) => known,
        Err(error) => return (None, Some(pass.problem(error)), true),
    };
    if known.is_none()
        && let Some(problem) = gone(pass, &name)
        && matches!(read(&name).await, Ok(None))
    {
        return (None, Some(problem), true);
    }
    // Kubernetes refuses to grow a claim that has no volume yet: it gets its first volume as it is, and grows then.
    let size = "/spec/resources/requests/storage";
    if let Some(pending) = known.as_ref().filter(|claim| !is_bound(claim))
        && let (Some(asked), Some(given)) = (wanted.body.pointer_mut(size), pending.value().pointer(size))
    {
        *asked = given.clone();
    }
    match engine.apply(&pass.owner, &wanted).await {
        Ok(applied) => {
            pass.failures.contested(applied.contested.as_ref());
            (Some(applied.live), None, applied.outcome != Outcome::Created)
        }
        // A quota ends without a change to the manifest, and no event tells when.
        Err(apply::Error::Refused { message, .. }) if known.is_some() && !message.contains(OVER_QUOTA) => {
            pass.failures.note("ClaimRefused", Class::InTheWay);
            let problem = format!(
                "PersistentVolumeClaim {name} was refused ({message}); choose a StorageClass that allows it, or set the size back"
            );
            // Whether a class allows growth is found out by trying: what is there goes on.
            (read(&name).await.ok().flatten().or(known), Some(Problem::stuck("ClaimRefused", problem)), true)
        }
        Err(error) => {
            let never_held = known.as_ref().is_some_and(|claim| !is_bound(claim));
            let mut problem = pass.problem(error);
            if never_held && problem.reason == "Immutable" {
                let words = "it has no volume and never held an image: delete it, and it is made as the manifest says";
                problem.message = format!("{}; {words}: kubectl delete pvc {name}", problem.message);
            }
            (known, Some(problem), true)
        }
    }
}

/// The volume on which this claim held the images when the registry was last looked at, unless the user has given it up.
fn held<'a>(pass: &'a Pass<'_>, claim: &str) -> Option<&'a str> {
    let before = pass.before.storage.as_ref().filter(|before| before.claim_name.as_deref() == Some(claim))?;
    let annotations = pass.manifest.metadata.annotations.as_ref();
    let given_up = annotations.and_then(|all| all.get(annotation::GIVEN_UP_VOLUME)).map(String::as_str);
    before.volume_name.as_deref().filter(|volume| Some(*volume) != given_up)
}

/// What is told of a claim that is not there, if it held images.
fn gone(pass: &Pass<'_>, claim: &str) -> Option<Problem> {
    let volume = held(pass, claim)?;
    let what = format!("PersistentVolumeClaim {claim} is gone, and with it volume {volume}, which held the images");
    Some(Problem::stuck(VOLUME_GONE, format!("{what}; the registry is stopped. {}", ways_on(pass, volume))))
}

/// What is told of a claim with another volume than the one that held the images.
fn replaced(pass: &Pass<'_>, claim: &Live) -> Option<Problem> {
    let volume = held(pass, claim.name())?;
    let now = claim.at("spec.volumeName").and_then(Value::as_str);
    if now == Some(volume) {
        return None;
    }
    let now = now.map_or_else(|| "no volume yet".to_owned(), |now| format!("volume {now}"));
    let what =
        format!("PersistentVolumeClaim {} is another one: it has {now}; volume {volume} held the images", claim.name());
    Some(Problem::stuck(VOLUME_REPLACED, format!("{what}; the registry is stopped. {}", ways_on(pass, volume))))
}

fn ways_on(pass: &Pass<'_>, volume: &str) -> String {
    let (namespace, name, given_up) = (&pass.registry.namespace, &pass.registry.name, annotation::GIVEN_UP_VOLUME);
    format!(
        "Bring the volume back under a claim of that name (spec.volumeName: {volume}), or go on without its images: kubectl annotate --overwrite \
         privateregistry {name} -n {namespace} {given_up}={volume}"
    )
}

fn is_bound(claim: &Live) -> bool {
    claim.value().pointer("/status/phase") != Some(&"Pending".into())
}

/// Pods that mount it as a folder would wait for ever.
fn block(claim: &Live) -> Problem {
    let name = claim.name();
    let message = format!(
        "PersistentVolumeClaim {name} has volumeMode Block, a device without a file system, on which the registry cannot keep files; use a claim with \
         volumeMode Filesystem"
    );
    Problem::stuck("VolumeModeBlock", message)
}

fn going(claim: &Live) -> Problem {
    let name = claim.name();
    let volume = claim.at("spec.volumeName").and_then(Value::as_str).unwrap_or("VOLUME");
    let how = format!(
        "to save the images, copy them to another registry, or keep the volume: kubectl patch pv {volume} -p \
         '{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Retain\"}}}}'"
    );
    being_deleted(&format!("PersistentVolumeClaim {name}"), &how)
}
