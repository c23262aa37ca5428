//! Who outlives the registry. The first thing of every pass, from metadata and `deletionPolicy` alone: it must hold while the registry is paused, cannot
//! be followed or cannot be read, because images hang on it. Letting go of a child (so that it stays) is always right; holding on to it is not.
//!
//! With `deletionPolicy: Delete` kept children have the registry as their owner, and Kubernetes would remove them with it, whatever the manifest says by
//! then. And what is copied to other namespaces Kubernetes would never remove. So such a registry carries a finalizer: it goes when the operator has looked
//! at the policy a last time, and has taken the copies away.

use kube::api::{Api, Patch, PatchParams};
use operator_engine::apply::{self, Kind, Owner};
use operator_engine::work::backoff::Class;
use operator_engine::work::queue::Key;
use serde_json::json;

use super::trust::proofs;
use super::{Context, Error, words};
use crate::api::{DeletionPolicy, PrivateRegistry};
use crate::desired::kinds;
use crate::model::{self, Child};

/// The finalizer of a registry whose kept children would go with it, or whose copies would not.
pub const FINALIZER: &str = "privateregistry.dev/holds";

/// What cannot be made again.
const KEPT: [(&Kind, Child); 3] =
    [(kinds::PERSISTENT_VOLUME_CLAIM, Child::Data), (kinds::SECRET, Child::Ca), (kinds::SECRET, Child::Admin)];

/// Lets go of what is to be kept, and sees to the finalizer; whether the registry has it now. `is_followed`: the manifest is followed now, so that children
/// may be given to the registry.
///
/// # Errors
/// A child could not be released, or a copy not be removed: the others are all the same.
pub async fn settle(
    registry: &PrivateRegistry,
    owner: &Owner,
    is_followed: bool,
    ctx: &Context,
) -> Result<bool, Error> {
    let policy = registry.spec.deletion_policy.unwrap_or_default();
    let is_going = registry.metadata.deletion_timestamp.is_some();
    let has_finalizer = registry.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if policy == DeletionPolicy::Retain {
        release(owner, ctx).await?;
    }
    if is_going {
        recall(owner, ctx).await?;
        say_what_is_left(registry, owner, ctx);
    }
    // Labels alone make nobody wait: whoever rules another namespace may write them.
    let asks = registry.spec.trust.is_some() || model::has_login_copies(registry);
    let has_copies = asks || has_finalizer && !ctx.engine.elsewhere(owner).is_empty();
    let is_wanted = !is_going && (policy == DeletionPolicy::Delete || has_copies);
    if is_wanted == has_finalizer || (is_wanted && !is_followed) {
        return Ok(has_finalizer);
    }
    finalize(registry, is_wanted, ctx).await?;
    Ok(is_wanted)
}

/// Takes the copies in other namespaces away. What is refused for good holds nobody: it may be somebody else's, and is public,
/// or a login to what is gone.
async fn recall(owner: &Owner, ctx: &Context) -> Result<(), Error> {
    let key = Key::new(owner.namespace.as_str(), owner.name.as_str());
    let mut errors: Vec<Error> = proofs::clear(&key, ctx).await.err().into_iter().collect();
    for copy in ctx.engine.elsewhere(owner) {
        errors.extend(ctx.engine.remove_elsewhere(owner, &copy).await.err().map(Error::from));
    }
    for error in &errors {
        tracing::warn!(registry = %key, "left behind: {}", words(error));
    }
    errors.into_iter().find(|error| error.class() == Class::Transient && !is_refusal(error)).map_or(Ok(()), Err)
}

/// An administrator may have taken the kind away since it was written. Then the operator can neither see nor remove it.
fn say_what_is_left(registry: &PrivateRegistry, owner: &Owner, ctx: &Context) {
    let kind = kinds::CLUSTER_TRUST_BUNDLE.kind;
    let told = registry.status.as_ref().and_then(|status| status.trust.as_ref()?.cluster_trust_bundle.as_ref());
    let is_out_of_reach = !ctx.settings.sees_namespaces || !ctx.settings.optional_kinds.contains(kind);
    if let Some(name) = told.filter(|_| is_out_of_reach) {
        let registry = format!("{}/{}", owner.namespace, owner.name);
        tracing::warn!(registry, "left behind: {kind} {name}, which the operator may not write any more; delete it");
    }
}

/// Whether the API server understood and said no.
fn is_refusal(error: &Error) -> bool {
    let Error::Proof { source, .. } = error else { return false };
    matches!(&**source, kube::Error::Api(refusal) if (400..500).contains(&refusal.code) && refusal.code != 429)
}

async fn release(owner: &Owner, ctx: &Context) -> Result<(), Error> {
    let mut first = None;
    for (kind, child) in KEPT {
        let name = format!("{}{}", owner.name, child.suffix());
        match ctx.engine.release(owner, kind, &name).await {
            Ok(true) => {
                let registry = format!("{}/{}", owner.namespace, owner.name);
                tracing::info!(registry, kind = kind.kind, name, "released: it outlives the registry");
            }
            Ok(false) => {}
            Err(error) => _ = first.get_or_insert(error),
        }
    }
    first.map_or(Ok(()), |error| Err(error.into()))
}

/// Writes the finalizers of exactly this version of the registry.
async fn finalize(registry: &PrivateRegistry, is_wanted: bool, ctx: &Context) -> Result<(), Error> {
    let metadata = &registry.metadata;
    let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).cloned();
    let finalizers: Vec<_> = others.chain(is_wanted.then(|| FINALIZER.to_owned())).collect();
    let patch = json!({"metadata": {"finalizers": finalizers, "uid": metadata.uid, "resourceVersion": metadata.resource_version}});
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let api: Api<PrivateRegistry> = Api::namespaced(ctx.client.clone(), namespace);
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(answer) => {
            ctx.learn(answer);
            Ok(())
        }
        Err(kube::Error::Api(refusal)) if refusal.is_not_found() => Ok(()),
        Err(source) => Err(Error::Finalizer { registry: format!("{namespace}/{name}"), source: Box::new(source) }),
    }
}

/// Whether an error only says that somebody was faster.
#[must_use]
pub fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Apply(error) => matches!(**error, apply::Error::Conflict { .. }),
        Error::Finalizer { source, .. } => matches!(&**source, kube::Error::Api(refusal) if refusal.is_conflict()),
        _ => false,
    }
}
