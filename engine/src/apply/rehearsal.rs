//! Whether the API server would take a child: asked without changing anything, for those who must know before they change what goes with it. Never
//! remembers what it is answered.

use serde_json::Value;

use super::engine::Engine;
use super::error::Error;
use super::immutable::{Change, concede, remedy};
use super::live::Live;
use super::memory::Recall;
use super::ownership::{Verdict, judge};
use super::request::{Failure, Verb};
use super::wanted::{Child, Wanted};
use super::{ObjectRef, Owner};

/// What an API server says of a webhook that has not declared what it does in a dry run.
const WEBHOOK_CANNOT_REHEARSE: &str = "does not support dry run";

impl Engine {
    /// Tries what [`Engine::apply`] would write, as a dry run. Costs at most a read, which an apply that follows is spared, and two requests; none if
    /// the child is known to be as wanted.
    ///
    /// # Errors
    /// What an apply would fail with. A child that is somebody else's, or that is leaving, is not tried: apply tells.
    pub async fn rehearse(&self, owner: &Owner, child: &Child) -> Result<(), Error> {
        let wanted = Wanted::new(owner, child, &self.marks);
        let target = &wanted.target;
        if matches!(self.memory.recall(target), Recall::Known(known) if known.wanted == Some(wanted.hash)) {
            return Ok(());
        }
        let Some(live) = self.look(target, Some(owner)).await? else {
            return allowed(Verb::Create, target, self.try_new(target, wanted.body.clone()).await);
        };
        if !matches!(judge(&live, owner, child.hold, &self.marks), Verdict::Ours | Verdict::Adoptable) {
            return Ok(());
        }
        let body = concede(child.kind, live.value(), &wanted.body, self.marks.field_manager).into_owned();
        let found = self.differences(&wanted, &live, &body);
        match remedy(child.kind, live.value(), &found) {
            Change::Nothing | Change::Never(_) | Change::Sealed(_) => Ok(()),
            Change::Recreate(_) => self.rehearse_another(&wanted).await,
            Change::Replace(_) => allowed(Verb::Update, target, self.try_spec(target, &live, &body).await),
            Change::InPlace(_) => {
                let tried = self.requests.rehearsing().update(target, body.clone(), live.uid(), None).await;
                match tried {
                    Err(Failure::Api { code: 422, .. }) if target.kind.is_replaceable => {
                        allowed(Verb::Update, target, self.try_spec(target, &live, &body).await)
                    }
                    tried => allowed(Verb::Update, target, tried.map(drop)),
                }
            }
        }
    }

    /// Whether it would be taken in the place of the one that is there. Tried under another name: under its own, there is one already.
    pub(super) async fn rehearse_another(&self, wanted: &Wanted) -> Result<(), Error> {
        let target = &wanted.target;
        let target = ObjectRef::new(target.kind, &target.namespace, &format!("{}-rehearsal", target.name));
        let mut body = wanted.body.clone();
        body["metadata"]["name"] = Value::from(&*target.name);
        allowed(Verb::Update, &wanted.target, self.try_new(&target, body).await)
    }

    async fn try_new(&self, target: &ObjectRef, body: Value) -> Result<(), Failure> {
        self.requests.rehearsing().create(target, body).await.map(drop)
    }

    async fn try_spec(&self, target: &ObjectRef, live: &Live, body: &Value) -> Result<(), Failure> {
        self.requests.rehearsing().replace(target, live, "/spec", body.get("spec")).await.map(drop)
    }
}

/// A webhook that cannot rehearse leaves it open, and nothing is to wait for it.
fn allowed(verb: Verb, target: &ObjectRef, tried: Result<(), Failure>) -> Result<(), Error> {
    match tried {
        Err(Failure::Api { code: 400, message, .. }) if message.contains(WEBHOOK_CANNOT_REHEARSE) => Ok(()),
        tried => tried.map_err(|source| Error::failed(verb, target.clone(), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::DEPLOYMENT;
    use super::*;

    #[test]
    fn a_webhook_that_cannot_rehearse_is_no_refusal() {
        let target = ObjectRef::new(DEPLOYMENT, "n", "team-a");
        let refused = |code: u16, message: &str| {
            let failure = Failure::Api { code, message: message.to_owned(), fields: Vec::new() };
            allowed(Verb::Update, &target, Err(failure))
        };
        assert!(refused(400, "admission webhook \"mesh.example.com\" does not support dry run").is_ok());
        assert!(matches!(refused(400, "unknown field"), Err(Error::Refused { code: 400, .. })));
        assert!(matches!(refused(422, "spec.template is invalid"), Err(Error::Refused { code: 422, .. })));
    }
}
