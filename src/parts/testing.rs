//! What tests of a pass begin with: a registry as it is resolved, and the Secrets that an earlier pass left.

use operator_engine::apply::Live;
use serde_json::{Value, json};

use crate::desired::Object;
use crate::desired::kinds;
use crate::model::{Child, Observed, Resolved, Settings, resolve};

/// The registry `registries/team-a` of this spec, with these annotations.
pub(super) fn resolved(spec: &Value, annotations: &Value) -> Resolved {
    let registry = serde_json::from_value(json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": spec,
        "metadata": {"name": "team-a", "namespace": "registries", "annotations": annotations},
    }));
    resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap()
}

/// A Secret of the plan as the next pass finds it.
pub(super) fn stored_secret(registry: &Resolved, plan: &[Object], child: Child) -> Option<Live> {
    let name = registry.name.child(child);
    let found = plan.iter().find(|object| object.kind == kinds::SECRET && object.name == name)?;
    Some(Live::new(kinds::SECRET, found.body.clone()))
}
