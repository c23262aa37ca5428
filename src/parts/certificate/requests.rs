//! Requests of Kubernetes to signers of the cluster. They belong to no namespace, so no registry can own them: a watch with our label tells which there are, and all that
//! a registry does not wait for are removed, however they came to be left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Api, DeleteParams, PostParams};
use operator_engine::work::queue::Key;
use operator_engine::work::watches::Meta;
use tracing::info;

use super::{Answer, Asked, Question, WORDS_AT_MOST, issuers};
use crate::desired::signing;
use crate::model::labels;
use crate::parts::{Context, Error, Pass, locked};

/// The requests that the cluster has.
#[derive(Default)]
pub struct Requests(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By name: whose it is, and its version.
    all: BTreeMap<String, (Key, String)>,
    /// What the list that is under way has shown so far.
    listed: Option<BTreeSet<String>>,
    /// When a registry last had a request made, and how often in a row.
    made: BTreeMap<Key, (Timestamp, u32)>,
}

impl Requests {
    /// A list begins.
    pub fn relist_started(&self) {
        locked(&self.0).listed = Some(BTreeSet::new());
    }

    /// It is there. Whose it is, if that is news.
    pub fn seen(&self, meta: &Meta) -> Option<Key> {
        let key = Key::new(meta.label(labels::REGISTRY_NAMESPACE)?, meta.label(labels::REGISTRY)?);
        // The labels are anybody's to write, the name is made by us.
        if !meta.name().starts_with(&signing::prefix(&key.namespace, &key.name)) {
            return None;
        }
        let mut known = locked(&self.0);
        known.listed.iter_mut().for_each(|listed| _ = listed.insert(meta.name().to_owned()));
        let now = (key.clone(), meta.resource_version().to_owned());
        (known.all.insert(meta.name().to_owned(), now.clone()) != Some(now)).then_some(key)
    }

    /// It is gone. Whose it was.
    pub fn gone(&self, name: &str) -> Option<Key> {
        locked(&self.0).all.remove(name).map(|(key, _)| key)
    }

    /// A list is complete. Whose requests have gone unseen.
    pub fn relisted(&self) -> Vec<Key> {
        let mut known = locked(&self.0);
        let Some(listed) = known.listed.take() else { return Vec::new() };
        let mut gone = Vec::new();
        known.all.retain(|name, (key, _)| {
            let stays = listed.contains(name);
            if !stays {
                gone.push(key.clone());
            }
            stays
        });
        gone
    }

    /// Every registry that has one.
    pub fn owners(&self) -> BTreeSet<Key> {
        locked(&self.0).all.values().map(|(key, _)| key.clone()).collect()
    }

    fn of(&self, key: &Key) -> Vec<String> {
        let prefix = signing::prefix(&key.namespace, &key.name);
        let known = locked(&self.0);
        let from = known.all.range(prefix.clone()..).map(|(name, _)| name);
        from.take_while(|name| name.starts_with(&prefix)).cloned().collect()
    }

    /// From when on one may be made.
    pub(super) fn next_at(&self, key: &Key) -> Option<Timestamp> {
        locked(&self.0).made.get(key).map(|(last, times)| crate::pki::signing::ask_again_at(*last, *times))
    }

    /// It was answered, and what was answered is served: the next one is not in a row with it.
    pub(super) fn was_answered(&self, key: &Key) {
        locked(&self.0).made.remove(key);
    }

    pub(super) fn was_made(&self, key: &Key, now: Timestamp) {
        const IN_A_ROW: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);
        let mut known = locked(&self.0);
        known.made.retain(|_, (last, _)| now.duration_since(*last) < IN_A_ROW);
        let times = known.made.get(key).map_or(0, |(_, times)| *times);
        known.made.insert(key.clone(), (now, times + 1));
    }
}

fn api(ctx: &Context) -> Api<CertificateSigningRequest> {
    Api::all(ctx.client.clone())
}

fn failed(what: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Request { what, name, source: Box::new(source) }
}

/// What the signer says to this request.
pub(super) async fn answer(pass: &Pass<'_>, asked: &CertificateSigningRequest) -> Result<Answer, Error> {
    let name = asked.metadata.name.as_deref().unwrap_or_default();
    let found = api(pass.ctx).get_opt(name).await.map_err(failed("read", name))?;
    Ok(found.map_or(Answer::Nothing, |found| read(found, asked)))
}

fn read(found: CertificateSigningRequest, asked: &CertificateSigningRequest) -> Answer {
    let is_ours = found.spec.request == asked.spec.request && found.spec.signer_name == asked.spec.signer_name;
    if !is_ours {
        return Answer::Foreign;
    }
    let status = found.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let says = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition.type_ == kind && condition.status != "False")?;
        let words = [condition.reason.as_deref(), condition.message.as_deref()];
        let words = words.into_iter().flatten().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(": ");
        Some(words.chars().take(WORDS_AT_MOST).collect::<String>())
    };
    if let Some(why) = says("Denied") {
        return Answer::Denied(why);
    }
    if let Some(why) = says("Failed") {
        return Answer::Failed { why, again_at: None };
    }
    match status.certificate.filter(|certificate| !certificate.0.is_empty()) {
        Some(certificate) => Answer::Signed { chain: certificate.0, authority: None, again_at: None },
        None if says("Approved").is_some() => Answer::Approved(String::new()),
        None => Answer::Pending,
    }
}

/// Has the request made that the registry waits for, and removes all others of it that no registry can own. When it may be made, if that is later.
pub(super) async fn settle(pass: &Pass<'_>, asked: Option<&Asked>) -> Result<Option<Timestamp>, Error> {
    let object = asked.map(|asked| &asked.object);
    let stays = object.filter(|object| matches!(object, Question::Cluster(_))).map(Question::name);
    withdraw(pass, stays).await?;
    let Some(asked) = asked else { return Ok(None) };
    if asked.is_missing
        && let Some(at) = pass.ctx.requests.next_at(pass.key).filter(|at| *at > pass.now)
    {
        return Ok(Some(at));
    }
    match &asked.object {
        // Others may have labelled or changed it.
        Question::Issuer(object) => issuers::ask(pass, object.clone()).await?,
        Question::Cluster(object) if asked.is_missing => ask(pass, object).await?,
        Question::Cluster(_) => {}
    }
    Ok(None)
}

async fn ask(pass: &Pass<'_>, object: &CertificateSigningRequest) -> Result<(), Error> {
    let (name, signer) = (object.metadata.name.as_deref().unwrap_or_default(), &object.spec.signer_name);
    match api(pass.ctx).create(&PostParams::default(), object).await {
        Ok(_) => {
            pass.ctx.requests.was_made(pass.key, pass.now);
            info!(registry = %pass.key, request = name, signer, "asked for a certificate");
            Ok(())
        }
        // From before a restart; the next pass reads it.
        Err(kube::Error::Api(refusal)) if refusal.is_already_exists() => Ok(()),
        Err(source) => Err(failed("make", name)(source)),
    }
}

/// Removes every request of the registry but this one.
pub(super) async fn withdraw(pass: &Pass<'_>, wanted: Option<&str>) -> Result<(), Error> {
    let others = pass.ctx.requests.of(pass.key).into_iter().filter(|name| Some(name.as_str()) != wanted);
    remove(others, pass.ctx).await
}

/// Removes every request of a registry that is gone.
pub(crate) async fn abandon(key: &Key, ctx: &Context) -> Result<(), Error> {
    remove(ctx.requests.of(key), ctx).await
}

async fn remove(names: impl IntoIterator<Item = String>, ctx: &Context) -> Result<(), Error> {
    for name in names {
        match api(ctx).delete(&name, &DeleteParams::default()).await {
            Ok(_) => info!(request = name, "removed a request that nobody waits for"),
            Err(kube::Error::Api(refusal)) if refusal.is_not_found() => {}
            Err(source) => return Err(failed("remove", &name)(source)),
        }
        ctx.requests.gone(&name);
    }
    Ok(())
}
