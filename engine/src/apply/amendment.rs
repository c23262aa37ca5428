//! What the API server made of what it was sent: a webhook or policy may change a field on its way in. That is the server's word for the field and no
//! reason for another write, as long as the same is wanted and the same stands there.
//!
//! It is known from the answer to our own write. After a restart, of kinds that carry a stamp ([`super::Kind::is_stamped`]), from the object itself: if
//! its stamp says that what was sent is what is wanted now, and managedFields that nobody has written the field since, then what stands there is what
//! came back. (The server notes who wrote what before webhooks change it.) The stamp is in two parts, so that a Job whose labels change isn't made
//! again for what was changed in its pod.

use serde_json::Value;

use super::contest::Disputes;
use super::diff::{self, Difference, Divergence};
use super::fields::Owned;
use super::hash::Hash;
use super::kinds::Kind;
use super::path;

/// What is remembered of the writes to one object, whatever happens to it.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Where the answer differed from what was sent, and still does.
    pub(super) amended: Vec<Divergence>,
    /// What was repaired lately.
    pub(super) disputes: Disputes,
}

impl Past {
    pub(super) fn is_empty(&self) -> bool {
        self.amended.is_empty() && self.disputes.is_empty()
    }

    /// Takes out of `found` what is the server's word. `is_vouched`: whether the object itself says so. What no longer stands is forgotten.
    pub(super) fn accept(&mut self, found: &mut Difference, is_vouched: impl Fn(&str) -> bool) {
        self.amended.retain(|known| found.places.contains(known));
        for place in &found.places {
            if !self.amended.contains(place) && is_vouched(&place.path) {
                self.amended.push(place.clone());
            }
        }
        found.places.retain(|place| !self.amended.contains(place));
        found.renamed = found.renamed.take().filter(|renamed| found.places.iter().any(|place| place.path == *renamed));
    }
}

/// The stamp of what is sent: the hash of what cannot change in place, and of everything.
pub(super) fn stamp(kind: &Kind, body: &Value, whole: Hash) -> String {
    let fixed: Value =
        kind.immutable.iter().map(|field| path::find(body, field.path).cloned().unwrap_or_default()).collect();
    format!("{}-{}", Hash::of(&fixed).short(), whole.short())
}

/// Whether an object that carries the stamp `live` has at `path` what came back when `wanted` was sent.
pub(super) fn is_vouched(kind: &Kind, live: Option<&str>, wanted: &str, owned: &Owned<'_>, path: &str) -> bool {
    let parts = |stamp: &str| stamp.split_once('-').map(|(fixed, whole)| (fixed.to_owned(), whole.to_owned()));
    let (Some((fixed, whole)), Some((wanted_fixed, wanted_whole))) = (live.and_then(parts), parts(wanted)) else {
        return false;
    };
    let is_same = if is_fixed(kind, path) { fixed == wanted_fixed } else { whole == wanted_whole };
    is_same && owned.contains(path)
}

/// What is sent instead of `body` to an object that was amended where nothing can change in place: there, what it has. A webhook that acts on new
/// objects only would not amend it again, and the API server would refuse the change.
pub(super) fn keep_fixed(kind: &Kind, live: &Value, mut body: Value, amended: &[Divergence]) -> Value {
    for place in amended.iter().filter(|place| is_fixed(kind, &place.path)) {
        if let Some(live) = diff::at(live, &place.path)
            && let Some(ours) = diff::at_mut(&mut body, &place.path)
        {
            *ours = live.clone();
        }
    }
    body
}

fn is_fixed(kind: &Kind, path: &str) -> bool {
    kind.immutable.iter().any(|field| path::is_within(path, field.path))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use serde_json::json;

    use super::super::kinds::JOB;
    use super::*;

    fn pod(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": "r", "image": image}]}})
    }

    fn body(label: &str, image: &str) -> Value {
        json!({"metadata": {"labels": {"a": label}}, "spec": {"template": pod(image)}})
    }

    fn stamped(body: &Value) -> String {
        stamp(JOB, body, Hash::of(body))
    }

    const IMAGE: &str = "spec.template.spec.containers[name=r].image";
    const LABEL: &str = "metadata.labels.a";

    /// What we own of an object: everything, or all but the image.
    fn fields(with_image: bool) -> Value {
        let mut container = json!({".": {}, "f:name": {}, "f:image": {}});
        if !with_image {
            container.as_object_mut().unwrap().remove("f:image");
        }
        let containers = json!({"f:containers": {"k:{\"name\":\"r\"}": container}});
        let fields = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:template": {"f:spec": containers}}});
        json!({"metadata": {"managedFields": [{"manager": "us", "operation": "Apply", "fieldsV1": fields}]}})
    }

    #[test]
    fn an_object_vouches_for_what_was_sent_and_not_written_since() {
        let sent = body("x", "a");
        for (wanted, is_ours, image, label) in [
            (body("x", "a"), true, true, true),
            (body("x", "a"), false, false, true),
            (body("y", "a"), true, true, false),
            (body("x", "b"), true, false, false),
        ] {
            let fields = fields(is_ours);
            let owned = Owned::of(JOB, &fields, "us").unwrap();
            let vouched = |path| is_vouched(JOB, Some(&stamped(&sent)), &stamped(&wanted), &owned, path);
            assert_eq!((vouched(IMAGE), vouched(LABEL)), (image, label), "{wanted} {is_ours}");
        }
    }

    #[test]
    fn without_a_stamp_nothing_is_vouched_for() {
        let fields = fields(true);
        let owned = Owned::of(JOB, &fields, "us").unwrap();
        let wanted = stamped(&body("x", "a"));
        assert!(!is_vouched(JOB, None, &wanted, &owned, IMAGE));
        assert!(!is_vouched(JOB, Some("nonsense"), &wanted, &owned, IMAGE));
    }

    #[test]
    fn only_the_same_value_for_the_same_wish_is_the_servers_word() {
        let found = |live: Value, wanted: Value| diff::diff(&live, &wanted, None);
        for (live, wanted, left) in [
            (body("x", "mirror/a"), body("x", "a"), &[][..]),
            (body("y", "mirror/a"), body("x", "a"), &[LABEL]),
            (body("x", "other/a"), body("x", "a"), &[IMAGE]),
            (body("x", "mirror/a"), body("x", "b"), &[IMAGE]),
        ] {
            let mut past = Past { amended: found(body("x", "mirror/a"), body("x", "a")).places, ..Past::default() };
            let mut now = found(live.clone(), wanted.clone());
            past.accept(&mut now, |_| false);
            assert_eq!(now.paths(), left, "{live} {wanted}");
        }
    }

    #[test]
    fn what_was_as_wanted_in_between_is_no_longer_the_servers_word() {
        let found = || diff::diff(&body("x", "mirror/a"), &body("x", "a"), None);
        let mut past = Past { amended: found().places, ..Past::default() };
        past.accept(&mut Difference::default(), |_| false);
        let mut now = found();
        past.accept(&mut now, |_| false);
        assert_eq!(now.paths(), [IMAGE]);
    }

    #[test]
    fn an_amended_pod_is_sent_as_it_is_and_everything_else_as_wanted() {
        let (live, wanted) = (body("x", "mirror/a"), body("y", "a"));
        let amended = diff::diff(&live, &wanted, None).places;
        assert_eq!(keep_fixed(JOB, &live, wanted, &amended), body("y", "mirror/a"));
    }
}
