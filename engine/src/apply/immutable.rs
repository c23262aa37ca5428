//! Whether a difference can be repaired in place, only by making the object again, or not at all. Pure.

use std::borrow::Cow;

use serde_json::Value;

use super::diff::{Difference, Divergence, diff};
use super::fields::{Owned, stale, written_entry};
use super::kinds::{Grows, Kind, Remedy};
use super::path;
use super::quantity::Quantity;

/// What has to happen to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is as wanted.
    Nothing,
    /// These paths differ, and can be written.
    InPlace(Vec<String>),
    /// In place too, but merging wouldn't do: because of this path, `spec` has to be replaced as a whole.
    Replace(String),
    /// It must be deleted and made again, because of this path.
    Recreate(String),
    /// It can't be made as wanted without losing what it holds, because of this path.
    Never(String),
    /// Somebody has sealed the object, so that this path can't change.
    Sealed(String),
}

/// Where `live` isn't as wanted: what differs, what is ours and no longer wanted, what is held otherwise than by apply. `wanted` has been through
/// [`concede`].
pub(super) fn compare(kind: &Kind, live: &Value, wanted: &Value, manager: &str) -> Difference {
    let owned = Owned::of(kind, live, manager);
    let mut found = diff(live, wanted, owned.as_ref());
    let stale = owned.iter().flat_map(|owned| stale(owned, wanted));
    let is_written = !kind.is_verbatim && written_entry(live, manager).is_some();
    let written = is_written.then(|| "metadata.managedFields".to_owned());
    found.places.extend(stale.chain(written).map(Divergence::unwanted));
    found
}

/// What it takes to put right what [`compare`] found.
pub(super) fn remedy(kind: &Kind, live: &Value, found: &Difference) -> Change {
    let paths = found.paths();
    let within = |root: &str| paths.iter().find(|path| path::is_within(path, root)).map(|path| (*path).to_owned());
    let first = |remedy: Remedy| {
        let mut fields = kind.immutable.iter().filter(|field| field.remedy == remedy);
        fields.find_map(|field| within(field.path))
    };
    let sealed = || (live["immutable"] == true).then(|| kind.sealed.iter().find_map(|root| within(root))).flatten();
    match (first(Remedy::Refuse), sealed(), first(Remedy::Recreate), &found.renamed) {
        _ if paths.is_empty() => Change::Nothing,
        (Some(path), ..) => Change::Never(path),
        (None, Some(path), ..) => Change::Sealed(path),
        (None, None, Some(path), _) => Change::Recreate(path),
        (None, None, None, Some(path)) if kind.is_replaceable && path::is_within(path, "spec") => {
            Change::Replace(path.clone())
        }
        (None, None, None, _) => Change::InPlace(paths.into_iter().map(str::to_owned).collect()),
    }
}

/// What is sent instead of `wanted`, because the API server wouldn't take it: a size that would shrink stays as it is, or is taken back as far as
/// it was never reached, and a field that can't be taken back once it was set is sent again.
pub(super) fn concede<'a>(kind: &Kind, live: &Value, wanted: &'a Value, manager: &str) -> Cow<'a, Value> {
    let mut wanted = Cow::Borrowed(wanted);
    for Grows { path, has } in kind.grows {
        let amount = |object: &Value, path: &str| path::find(object, path)?.as_str().and_then(Quantity::parse);
        let (Some(asked), Some(wants)) = (amount(live, path), amount(&wanted, path)) else { continue };
        if asked <= wants {
            continue;
        }
        // Kubernetes takes back a request to grow since 1.34, down to what is more than the object has.
        match amount(live, has).filter(|has| *has < asked) {
            Some(has) if wants > has => {}
            Some(has) if has.next_whole() < asked => {
                path::put(wanted.to_mut(), path, has.next_whole().to_string().into());
            }
            _ => path::put(wanted.to_mut(), path, path::find(live, path).cloned().unwrap_or_default()),
        }
    }
    for field in kind.immutable.iter().filter(|field| field.remedy == Remedy::Refuse) {
        let (Some(set), None) = (path::find(live, field.path), path::find(&wanted, field.path)) else { continue };
        let owned = Owned::of(kind, live, manager).unwrap_or_default();
        if !field.path.split('.').fold(owned, |owned, name| owned.field(name)).is_empty() {
            path::put(wanted.to_mut(), field.path, set.clone());
        }
    }
    wanted
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use serde_json::json;

    use super::super::kinds::{CONFIG_MAP, DEPLOYMENT, JOB, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE};
    use super::*;

    fn change(kind: &Kind, live: &Value, wanted: &Value, manager: &str) -> Change {
        remedy(kind, live, &compare(kind, live, wanted, manager))
    }

    fn with_fields(mut live: Value, fields: Value) -> Value {
        live["metadata"] = json!({"managedFields": [{"manager": "us", "operation": "Apply", "fieldsV1": fields}]});
        live
    }

    #[test]
    fn each_kind_has_its_remedy() {
        for (kind, live, wanted, expected) in [
            (DEPLOYMENT, json!({"spec": {"replicas": 1}}), json!({"spec": {"replicas": 1}}), Change::Nothing),
            (
                DEPLOYMENT,
                json!({"spec": {"replicas": 1, "template": {"a": 1}}}),
                json!({"spec": {"replicas": 2, "template": {"a": 2}}}),
                Change::InPlace(vec!["spec.replicas".into(), "spec.template.a".into()]),
            ),
            (
                DEPLOYMENT,
                json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}),
                json!({"spec": {"selector": {"matchLabels": {"a": "2"}}}}),
                Change::Recreate("spec.selector.matchLabels.a".into()),
            ),
            (
                JOB,
                json!({"spec": {"backoffLimit": 1, "suspend": false, "parallelism": 1}}),
                json!({"spec": {"backoffLimit": 2, "suspend": true, "parallelism": 0}}),
                Change::InPlace(vec!["spec.backoffLimit".into(), "spec.parallelism".into(), "spec.suspend".into()]),
            ),
            (
                JOB,
                json!({"spec": {"template": {"spec": {"containers": [{"name": "r", "image": "a"}]}}}}),
                json!({"spec": {"template": {"spec": {"containers": [{"name": "r", "image": "b"}]}}}}),
                Change::Recreate("spec.template.spec.containers[name=r].image".into()),
            ),
            (
                SERVICE,
                json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1"}}),
                json!({"spec": {"type": "ClusterIP"}}),
                Change::InPlace(vec!["spec.type".into()]),
            ),
            (
                SERVICE,
                json!({"spec": {"clusterIP": "10.0.0.1"}}),
                json!({"spec": {"clusterIP": "None"}}),
                Change::Never("spec.clusterIP".into()),
            ),
            (
                PERSISTENT_VOLUME_CLAIM,
                json!({"spec": {"storageClassName": "a", "accessModes": ["ReadWriteOnce"]}}),
                json!({"spec": {"storageClassName": "a", "accessModes": ["ReadWriteMany"]}}),
                Change::Never("spec.accessModes".into()),
            ),
            (SECRET, json!({"type": "Opaque"}), json!({"type": "kubernetes.io/tls"}), Change::Never("type".into())),
        ] {
            assert_eq!(change(kind, &live, &wanted, "us"), expected, "{kind:?} {wanted}");
        }
    }

    #[test]
    fn a_field_that_is_dropped_from_a_jobs_pod_makes_a_new_job() {
        let live = with_fields(
            json!({"spec": {"template": {"hostNetwork": true}}}),
            json!({"f:spec": {"f:template": {"f:hostNetwork": {}}}}),
        );
        let wanted = json!({"spec": {"template": {}}});
        assert_eq!(change(JOB, &live, &wanted, "us"), Change::Recreate("spec.template.hostNetwork".into()));
        assert_eq!(change(DEPLOYMENT, &live, &wanted, "us"), Change::InPlace(vec!["spec.template.hostNetwork".into()]));
    }

    #[test]
    fn a_renamed_element_is_not_merged_where_the_spec_can_be_replaced() {
        let ports = |port: i32| json!({"spec": {"ports": [{"name": "registry", "port": port}]}});
        let path = "spec.ports[port=5000,protocol=TCP]".to_owned();
        assert_eq!(change(SERVICE, &ports(5001), &ports(5000), "us"), Change::Replace(path.clone()));
        assert_eq!(change(PERSISTENT_VOLUME_CLAIM, &ports(5001), &ports(5000), "us"), Change::InPlace(vec![path]));
    }

    #[test]
    fn what_we_wrote_otherwise_than_by_apply_is_put_right_unless_we_posted_it() {
        let mut live = json!({"data": {"a": "1"}});
        live["metadata"] =
            json!({"managedFields": [{"manager": "us", "operation": "Update", "fieldsV1": {"f:data": {"f:a": {}}}}]});
        let wanted = json!({"data": {"a": "1"}});
        assert_eq!(change(SERVICE, &live, &wanted, "us"), Change::InPlace(vec!["metadata.managedFields".into()]));
        assert_eq!(change(SECRET, &live, &wanted, "us"), Change::Nothing);
    }

    #[test]
    fn what_somebody_sealed_is_told_when_its_content_differs_and_only_then() {
        let live = |sealed: bool| json!({"immutable": sealed, "metadata": {"labels": {"a": "1"}}, "data": {"k": "1"}});
        let wanted = |label: &str, data: &str| json!({"metadata": {"labels": {"a": label}}, "data": {"k": data}});
        for kind in [SECRET, CONFIG_MAP] {
            let changed = |sealed, label, data| change(kind, &live(sealed), &wanted(label, data), "us");
            assert_eq!(changed(true, "1", "2"), Change::Sealed("data.k".into()));
            assert_eq!(changed(true, "1", "1"), Change::Nothing);
            assert_eq!(changed(true, "2", "1"), Change::InPlace(vec!["metadata.labels.a".into()]));
            assert_eq!(changed(false, "1", "2"), Change::InPlace(vec!["data.k".into()]));
        }
    }

    fn claim(size: &str) -> Value {
        json!({"spec": {"resources": {"requests": {"storage": size}}}})
    }

    #[test]
    fn a_claim_grows_and_never_shrinks() {
        for (live, wanted, sent) in [("1Gi", "2Gi", "2Gi"), ("2Gi", "1Gi", "2Gi"), ("1Gi", "1024Mi", "1024Mi")] {
            assert_eq!(concede(PERSISTENT_VOLUME_CLAIM, &claim(live), &claim(wanted), "us").into_owned(), claim(sent));
        }
    }

    #[test]
    fn a_claim_that_could_not_be_grown_goes_back_to_a_little_more_than_it_has() {
        let live = |asked: &str, has: &str| {
            let mut claim = claim(asked);
            claim["status"] = json!({"capacity": {"storage": has}});
            claim
        };
        for (asked, has, wanted, sent) in [
            ("100Ti", "1Gi", "2Gi", "2Gi"),
            ("100Ti", "1Gi", "1Gi", "1073741825"),
            ("100Ti", "1Gi", "500Mi", "1073741825"),
            ("1073741825", "1Gi", "1Gi", "1073741825"),
            ("2Gi", "2Gi", "1Gi", "2Gi"),
            ("2Gi", "3Gi", "1Gi", "2Gi"),
        ] {
            let conceded = concede(PERSISTENT_VOLUME_CLAIM, &live(asked, has), &claim(wanted), "us").into_owned();
            assert_eq!(conceded, claim(sent), "{asked}, of which there are {has}, to {wanted}");
        }
    }

    #[test]
    fn the_order_of_access_modes_is_no_difference() {
        let modes = |modes: [&str; 2]| json!({"spec": {"accessModes": modes}});
        let (one, other) = (modes(["ReadWriteOnce", "ReadWriteMany"]), modes(["ReadWriteMany", "ReadWriteOnce"]));
        assert_eq!(change(PERSISTENT_VOLUME_CLAIM, &one, &other, "us"), Change::Nothing);
    }

    #[test]
    fn a_class_that_is_no_longer_named_is_sent_again_so_that_the_claim_stays_valid() {
        let mut live = claim("1Gi");
        live["spec"]["storageClassName"] = json!("fast");
        live["spec"]["volumeName"] = json!("pv-1");
        let live = with_fields(
            live,
            json!({"f:spec": {"f:storageClassName": {}, "f:resources": {"f:requests": {"f:storage": {}}}}}),
        );

        let sent = concede(PERSISTENT_VOLUME_CLAIM, &live, &claim("1Gi"), "us").into_owned();
        assert_eq!(sent["spec"]["storageClassName"], "fast");
        assert_eq!(sent["spec"]["volumeName"], Value::Null, "set by the cluster, so not ours to send");
        assert_eq!(change(PERSISTENT_VOLUME_CLAIM, &live, &sent, "us"), Change::Nothing);
    }

    #[test]
    fn another_class_is_reported_not_conceded() {
        let live = json!({"spec": {"storageClassName": "fast"}});
        let wanted = json!({"spec": {"storageClassName": "slow"}});
        let sent = concede(PERSISTENT_VOLUME_CLAIM, &live, &wanted, "us").into_owned();
        assert_eq!(change(PERSISTENT_VOLUME_CLAIM, &live, &sent, "us"), Change::Never("spec.storageClassName".into()));
    }
}
