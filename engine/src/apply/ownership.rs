//! Whose an object is. Pure. The last word before anything is written or deleted: what isn't proved ours is never touched.

use std::fmt;

use super::fields::Owned;
use super::live::{Controller, Live};
use super::{Hold, Marks, Owner};

/// What may be done with an object that has the name of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ours: compare and write.
    Ours,
    /// Somebody else's, who allows us to take it.
    Adoptable,
    /// Ours, or an earlier owner's of the same name, and on its way out: wait.
    Leaving,
    /// Somebody else's: hands off.
    Foreign(Claim),
}

/// Why an object is somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Another object controls it; it can't be adopted.
    ControlledBy {
        /// The other object's kind.
        kind: String,
        /// The other object's name.
        name: String,
    },
    /// Nothing on it says that it is ours; it can be adopted by this annotation.
    Unmarked {
        /// The annotation that allows it, with value `true`.
        adopt: &'static str,
    },
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlledBy { kind, name } => {
                write!(f, "is controlled by {kind} {name}; delete it or choose another name")
            }
            Self::Unmarked { adopt } => {
                write!(
                    f,
                    "belongs to somebody else; delete it, choose another name, or hand it over with the annotation {adopt}=true"
                )
            }
        }
    }
}

/// Judges `live`, which has the name of a child that `owner` holds in the way of `hold`.
///
/// The proof is, in this order: the controller reference with our uid; for a kept child, which has none, our labels; our own entry in
/// managedFields, which survives when somebody takes the reference or the labels away.
pub(super) fn judge(live: &Live, owner: &Owner, hold: Hold, marks: &Marks) -> Verdict {
    match live.controller() {
        Some(controller) if controller.uid == owner.uid => present(live),
        Some(controller) if live.namespace() == owner.namespace && is_earlier(&controller, owner) => Verdict::Leaving,
        Some(Controller { kind, name, .. }) => Verdict::Foreign(Claim::ControlledBy { kind, name }),
        None if hold != Hold::Disposable && is_marked(live, owner, marks) => present(live),
        None if is_written_by_us(live, marks) => present(live),
        None if live.annotation(marks.adopt) == Some("true") => Verdict::Adoptable,
        None => Verdict::Foreign(Claim::Unmarked { adopt: marks.adopt }),
    }
}

/// Whether there is proof that it is ours, however it is held: then what it contains may be used.
pub(super) fn is_proved(live: &Live, owner: &Owner, marks: &Marks) -> bool {
    match live.controller() {
        Some(controller) => controller.uid == owner.uid,
        None => is_marked(live, owner, marks) || is_written_by_us(live, marks),
    }
}

/// Whether it is controlled by `owner` itself: such an object may be pruned.
pub(super) fn is_controlled(live: &Live, owner: &Owner) -> bool {
    live.controller().is_some_and(|controller| controller.uid == owner.uid)
}

fn present(live: &Live) -> Verdict {
    if live.is_leaving() { Verdict::Leaving } else { Verdict::Ours }
}

/// The owner was deleted and made again; the garbage collector will take what belonged to the first one.
fn is_earlier(controller: &Controller, owner: &Owner) -> bool {
    let group = |api_version: &str| api_version.split_once('/').map(|(group, _)| group.to_owned());
    controller.kind == owner.kind
        && controller.name == owner.name
        && group(&controller.api_version) == group(&owner.api_version)
}

/// Whether its labels say that it is the owner's.
pub(super) fn is_marked(live: &Live, owner: &Owner, marks: &Marks) -> bool {
    live.label(marks.owner_label) == Some(owner.name.as_str())
        && live.label(marks.owner_namespace_label).unwrap_or(live.namespace()) == owner.namespace
        && live.label(marks.managed_by_label) == Some(marks.managed_by)
}

fn is_written_by_us(live: &Live, marks: &Marks) -> bool {
    Owned::of(live.kind(), live.value(), marks.field_manager).is_some_and(|owned| !owned.is_empty())
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::kinds;
    use super::super::testing::{MARKS, owner};
    use super::*;

    const HOLDS: [Hold; 3] = [Hold::Disposable, Hold::Kept, Hold::KeptUntilOwnerGoes];

    fn judged(hold: Hold, mut metadata: Value) -> Verdict {
        metadata["namespace"] = json!("registries");
        judge(&Live::new(kinds::SECRET, json!({"metadata": metadata})), &owner(), hold, &MARKS)
    }

    fn controller(kind: &str, name: &str, uid: &str) -> Value {
        json!([{"apiVersion": "test.dev/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
    }

    fn labels() -> Value {
        json!({"test.dev/owner": "team-a", "app.kubernetes.io/managed-by": "test-operator"})
    }

    fn ours_in_managed_fields() -> Value {
        json!([{"manager": "test-operator", "operation": "Apply", "fieldsV1": {"f:data": {"f:a": {}}}}])
    }

    fn unmarked() -> Verdict {
        Verdict::Foreign(Claim::Unmarked { adopt: "test.dev/adopt" })
    }

    #[test]
    fn a_child_with_our_uid_is_ours_however_it_is_held() {
        for hold in HOLDS {
            assert_eq!(judged(hold, json!({"ownerReferences": controller("Thing", "team-a", "uid-a")})), Verdict::Ours);
        }
    }

    #[test]
    fn a_kept_child_is_recognised_by_its_labels_and_a_disposable_one_is_not() {
        assert_eq!(judged(Hold::Kept, json!({"labels": labels()})), Verdict::Ours);
        assert_eq!(judged(Hold::KeptUntilOwnerGoes, json!({"labels": labels()})), Verdict::Ours);
        assert_eq!(judged(Hold::Disposable, json!({"labels": labels()})), unmarked());
    }

    #[test]
    fn both_labels_must_fit() {
        for labels in [
            json!({"test.dev/owner": "team-b", "app.kubernetes.io/managed-by": "test-operator"}),
            json!({"test.dev/owner": "team-a", "app.kubernetes.io/managed-by": "Helm"}),
            json!({"test.dev/owner": "team-a"}),
            json!({"app.kubernetes.io/managed-by": "test-operator"}),
        ] {
            assert_eq!(judged(Hold::Kept, json!({"labels": labels})), unmarked(), "{labels}");
        }
    }

    #[test]
    fn a_child_whose_marks_were_taken_away_is_still_ours() {
        for hold in HOLDS {
            assert_eq!(judged(hold, json!({"managedFields": ours_in_managed_fields()})), Verdict::Ours);
        }
    }

    #[test]
    fn a_status_or_the_fields_of_another_prove_nothing() {
        for entry in [
            json!({"manager": "test-operator", "operation": "Apply", "subresource": "status", "fieldsV1": {"f:status": {}}}),
            json!({"manager": "other", "operation": "Apply", "fieldsV1": {"f:data": {}}}),
            json!({"manager": "other", "operation": "Update", "fieldsV1": {"f:data": {}}}),
        ] {
            assert_eq!(judged(Hold::Kept, json!({"managedFields": [entry]})), unmarked());
        }
    }

    #[test]
    fn what_was_posted_is_ours_only_where_we_create_by_post() {
        let entry =
            json!({"manager": "test-operator", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {}}}});
        let judged = |kind| {
            let live = Live::new(kind, json!({"metadata": {"managedFields": [entry]}}));
            judge(&live, &owner(), Hold::Kept, &MARKS)
        };
        assert_eq!(judged(kinds::SECRET), Verdict::Ours);
        assert_eq!(judged(kinds::PERSISTENT_VOLUME_CLAIM), unmarked());
    }

    #[test]
    fn the_controller_of_somebody_else_outweighs_labels_annotation_and_managers() {
        let metadata = json!({
            "ownerReferences": controller("Deployment", "other", "uid-x"),
            "labels": labels(),
            "annotations": {"test.dev/adopt": "true"},
            "managedFields": ours_in_managed_fields(),
        });
        for hold in HOLDS {
            assert_eq!(
                judged(hold, metadata.clone()),
                Verdict::Foreign(Claim::ControlledBy { kind: "Deployment".into(), name: "other".into() })
            );
        }
    }

    #[test]
    fn what_belonged_to_an_earlier_owner_of_the_same_name_is_waited_for() {
        for hold in HOLDS {
            let earlier = json!({"ownerReferences": controller("Thing", "team-a", "uid-before")});
            assert_eq!(judged(hold, earlier), Verdict::Leaving);
        }
        assert!(matches!(
            judged(Hold::Disposable, json!({"ownerReferences": controller("Thing", "team-b", "uid-b")})),
            Verdict::Foreign(_)
        ));
    }

    #[test]
    fn what_is_being_deleted_is_waited_for_if_it_is_ours() {
        let leaving = |mut metadata: Value| {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            metadata
        };
        assert_eq!(judged(Hold::Kept, leaving(json!({"labels": labels()}))), Verdict::Leaving);
        assert_eq!(judged(Hold::Kept, leaving(json!({}))), unmarked());
    }

    #[test]
    fn only_the_word_true_hands_an_object_over() {
        assert_eq!(judged(Hold::Disposable, json!({"annotations": {"test.dev/adopt": "true"}})), Verdict::Adoptable);
        assert_eq!(judged(Hold::Disposable, json!({"annotations": {"test.dev/adopt": "yes"}})), unmarked());
    }

    proptest! {
        /// Whatever else stands on it, an object without any of our marks is not ours.
        #[test]
        fn nothing_foreign_is_ever_ours(
            labels in prop::collection::btree_map("[a-z./]{1,12}", "[a-z]{0,6}", 0..4),
            annotations in prop::collection::btree_map("[a-z./]{1,12}", "[a-z]{0,6}", 0..4),
            manager in "[a-z]{1,8}",
            hold in prop::sample::select(HOLDS.to_vec()),
        ) {
            let metadata = json!({
                "labels": labels,
                "annotations": annotations,
                "managedFields": [{"manager": manager, "operation": "Apply", "fieldsV1": {"f:data": {}}}],
            });
            prop_assert!(matches!(judged(hold, metadata), Verdict::Foreign(_)));
        }
    }
}
