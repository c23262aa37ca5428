//! A kubelet looks at mounted Secrets once a minute or so, but at once when an annotation of the pod changes. What must reach running pods without a restart
//! is told to their kubelets in this way: whoever was removed is out a second later, and a renewed certificate is served by the front end.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use operator_engine::apply::Outcome;
use serde_json::json;

use super::{Error, Pass};
use crate::model::labels;
use crate::status::Problem;

/// What reaches running pods without a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// The table of users.
    Users,
    /// The certificate, where a front end serves it.
    Certificate,
}

impl News {
    /// The annotation by which kubelets are told.
    const fn annotation(self) -> &'static str {
        match self {
            Self::Users => labels::USERS_CHECKSUM,
            Self::Certificate => labels::TLS_CHECKSUM,
        }
    }
}

/// Whether what a write came to is news for running pods. Of a new registry nothing runs yet.
pub(super) fn is_news(pass: &Pass<'_>, outcome: Outcome) -> bool {
    match outcome {
        Outcome::Changed | Outcome::Recreated => true,
        Outcome::Created => pass.before.observed_generation.is_some(),
        Outcome::Unchanged | Outcome::Replacing | Outcome::Damped => false,
    }
}

/// Sees to it that running pods hear of a change, if they are still to be told of one. `version` tells what is news from what was told before. Why they could
/// not be told.
pub(super) async fn tell(pass: &Pass<'_>, news: News, version: impl FnOnce() -> String) -> Option<Problem> {
    if !pass.ctx.recall.are_pods_to_be_told(pass.key, news) {
        return None;
    }
    match annotate(pass, news, &version()).await {
        Ok(()) => {
            pass.ctx.recall.pods_were_told(pass.key, news);
            None
        }
        Err(error) => Some(pass.problem(error)),
    }
}

/// Every pod is tried; the first error is given. What a pod has been told already changes nothing of it.
async fn annotate(pass: &Pass<'_>, news: News, version: &str) -> Result<(), Error> {
    let pods = pass.ctx.pods(pass.key).await?;
    let api: Api<Pod> = Api::namespaced(pass.ctx.client.clone(), &pass.registry.namespace);
    let patch = json!({"metadata": {"annotations": {news.annotation(): version}}});
    let mut told = Ok(());
    for pod in pods.iter().filter(|pod| pod.phase == "Running" && !pod.disrupted) {
        match api.patch_metadata(&pod.name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => {}
            Err(kube::Error::Api(refusal)) if refusal.is_not_found() => {}
            Err(source) => {
                told = told.and(Err(Error::Kubelet { pod: pod.name.clone(), source: Box::new(source) }));
            }
        }
    }
    told
}
