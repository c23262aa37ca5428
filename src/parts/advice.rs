//! What to do about a refusal: the API server speaks of a child's fields, its user knows those of the manifest. Pure, and no more than words.

use std::cmp::Reverse;

use operator_engine::apply::{self};

use super::error::Error;
use crate::desired::kinds;

/// Where fields of the Service come from: beginning of the path in the child, field of the manifest.
const SERVICE: &[(&str, &str)] = &[
    ("spec.ports[0].nodePort", "spec.service.nodePort"),
    ("spec.ports[0]", "spec.service.port"),
    ("spec.type", "spec.service.type"),
    ("spec.loadBalancerClass", "spec.service.loadBalancerClass"),
    ("spec.ipFamilyPolicy", "spec.service.ipFamilyPolicy"),
    ("spec.externalTrafficPolicy", "spec.service.externalTrafficPolicy"),
    ("metadata.labels", "spec.commonLabels"),
    ("spec.loadBalancerSourceRanges", "spec.service.loadBalancerSourceRanges"),
    ("metadata.annotations", "spec.service.annotations"),
];

/// Where fields of the Deployment or Job come from.
const WORKLOAD: &[(&str, &str)] = &[
    ("spec.replicas", "spec.replicas"),
    ("spec.template.labels", "spec.pod.labels"),
    ("spec.template.annotations", "spec.pod.annotations"),
    ("spec.template.spec.nodeSelector", "spec.pod.nodeSelector"),
    ("spec.template.spec.tolerations", "spec.pod.tolerations"),
    ("spec.template.spec.affinity", "spec.pod.affinity"),
    ("spec.template.spec.topologySpreadConstraints", "spec.pod.topologySpreadConstraints"),
    ("spec.template.spec.priorityClassName", "spec.pod.priorityClassName"),
    ("spec.template.spec.securityContext", "spec.pod.securityContext"),
    ("spec.template.spec.containers[0].securityContext", "spec.pod.containerSecurityContext"),
    ("metadata.labels", "spec.commonLabels"),
    ("spec.template.spec.imagePullSecrets", "spec.pod.imagePullSecrets"),
    ("spec.template.spec.containers[0].resources", "spec.pod.resources"),
    ("spec.template.spec.containers[1].resources", "spec.frontend.nginx.resources"),
    ("spec.template.spec.initContainers[1].resources", "spec.frontend.nginx.resources"),
    ("spec.template.spec.initContainers[2].resources", "spec.frontend.nginx.resources"),
    ("spec.template.spec.containers[0].env", "spec.pod.env"),
    ("spec.template.spec.containers[0].image", "spec.image"),
    ("].emptyDir.sizeLimit", "spec.storage.emptyDir.sizeLimit"),
];

/// Where fields of the Ingress come from.
const INGRESS: &[(&str, &str)] = &[
    ("spec.ingressClassName", "spec.route.ingress.className"),
    ("spec.rules", "spec.route.ingress.hosts"),
    ("spec.tls[0].hosts", "spec.route.ingress.hosts"),
    ("spec.tls", "spec.route.ingress.tlsSecretName"),
    ("metadata.labels", "spec.commonLabels"),
    ("metadata.annotations", "spec.route.ingress.annotations"),
    ("annotation", "spec.route.ingress.annotations"),
];

/// Where fields of the route of a Gateway come from.
const GATEWAY: &[(&str, &str)] = &[
    ("spec.parentRefs", "spec.route.gateway.parentRefs"),
    ("spec.hostnames", "spec.route.gateway.hosts"),
    ("metadata.labels", "spec.commonLabels"),
];

/// The next action, where the error's own words do not have it.
pub(super) fn advice(error: &Error) -> Option<String> {
    if let Error::Request { source, .. } = error
        && let kube::Error::Api(refusal) = &**source
    {
        return match refusal.code {
            403 => Some("an admission policy or the operator's roles must allow it; it is tried again".to_owned()),
            400 | 422 => {
                Some("correct spec.tls.certificateSigningRequest.signerName in the registry's manifest".to_owned())
            }
            _ => None,
        };
    }
    if let Error::AccountToken { source, .. } = error
        && let kube::Error::Api(refusal) = &**source
    {
        return match refusal.code {
            403 => Some(
                "somebody in that namespace lets the operator create serviceaccounts/token for this name, by a Role and a RoleBinding; it is tried again"
                    .to_owned(),
            ),
            404 => Some("create the ServiceAccount; it is tried again".to_owned()),
            _ => None,
        };
    }
    let Error::Apply(error) = error else { return None };
    if let apply::Error::Sealed { object, is_kept: false, .. } = &**error
        && object.kind == kinds::SECRET
    {
        let why = "kubelets never look at an immutable Secret again, nor at another of its name while a pod mounts it";
        return Some(format!("{why}: then set spec.suspend to true until no pod is left, and back"));
    }
    let apply::Error::Refused { object, code, message, .. } = &**error else { return None };
    if *code == 403 {
        let who = "a quota, an admission policy or the operator's roles must allow it";
        return Some(format!("{who}; it is tried again"));
    }
    let origins = match object.kind {
        kind if kind == kinds::SERVICE => SERVICE,
        kind if kind == kinds::DEPLOYMENT || kind == kinds::JOB => WORKLOAD,
        kind if kind == kinds::INGRESS => INGRESS,
        kind if kind == kinds::HTTP_ROUTE || kind == kinds::TLS_ROUTE => GATEWAY,
        _ => &[],
    };
    Some(match origin(message, origins) {
        Some(field) => format!("correct {field} in the registry's manifest"),
        None => {
            "correct what this names in the registry's manifest; kubectl explain privateregistry.spec shows its fields"
                .to_owned()
        }
    })
}

/// The manifest's field for the first path that the message names.
fn origin(message: &str, origins: &[(&str, &'static str)]) -> Option<&'static str> {
    let named = origins.iter().filter_map(|(path, field)| Some((message.find(path)?, Reverse(path.len()), *field)));
    named.min().map(|(.., field)| field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use operator_engine::apply::{Kind, ObjectRef, Verb};

    fn refused(kind: &'static Kind, code: u16, message: &str) -> Error {
        let object = ObjectRef::new(kind, "registries", "team-a");
        apply::Error::Refused { verb: Verb::Create, object, code, message: message.to_owned() }.into()
    }

    #[test]
    fn every_field_of_the_pod_has_its_row() {
        let schema = crate::api::schema();
        let pod = schema.pointer("/properties/spec/properties/pod/properties").and_then(|fields| fields.as_object());
        for field in pod.expect("fields of spec.pod").keys() {
            let named = format!("spec.pod.{field}");
            assert!(WORKLOAD.iter().any(|(_, field)| *field == named), "{named}: add the child's path to WORKLOAD");
        }
    }

    #[test]
    fn a_refusal_says_what_to_correct_in_the_words_of_the_manifest() {
        let rest = "kubectl explain privateregistry.spec";
        for (kind, code, message, words) in [
            (
                kinds::SERVICE,
                422,
                "spec.ports[0].nodePort: Invalid value: 30077: allocated",
                "spec.service.nodePort in",
            ),
            (kinds::SERVICE, 422, "spec.ports[0].port: Invalid value: 0", "spec.service.port in"),
            (
                kinds::DEPLOYMENT,
                422,
                "[spec.template.spec.containers[0].resources.requests: Invalid value, spec.template.spec.tolerations[0].key: Required]",
                "spec.pod.resources in",
            ),
            (
                kinds::JOB,
                422,
                "spec.template.spec.volumes[1].emptyDir.sizeLimit: Forbidden",
                "spec.storage.emptyDir.sizeLimit",
            ),
            (kinds::DEPLOYMENT, 422, "spec.template.spec.hostAliases: Invalid", rest),
            (kinds::INGRESS, 422, "spec.tls[0].secretName: Invalid value", "spec.route.ingress.tlsSecretName in"),
            (kinds::INGRESS, 422, "spec.rules[0].host: Invalid value", "spec.route.ingress.hosts in"),
            (kinds::INGRESS, 422, "nginx.ingress.kubernetes.io/x annotation is not allowed", "ingress.annotations in"),
            (kinds::HTTP_ROUTE, 422, "spec.parentRefs: sectionName must be unique", "spec.route.gateway.parentRefs in"),
            // A path of one kind means nothing in another.
            (kinds::SECRET, 422, "Invalid metadata.annotations", rest),
            (kinds::SECRET, 403, "exceeded quota: secrets", "it is tried again"),
        ] {
            let advice = advice(&refused(kind, code, message)).unwrap();
            assert!(advice.contains(words), "{message}: {advice}");
        }
        assert_eq!(advice(&crate::pki::issue::IssueError::Random.into()), None);
        for (code, words) in [(403, Some("the operator's roles")), (422, Some("signerName")), (500, None)] {
            let refusal = kube::core::Status { code, ..kube::core::Status::default() };
            let source = Box::new(kube::Error::Api(refusal.boxed()));
            let advice = advice(&Error::Request { what: "make", name: "x".to_owned(), source });
            assert_eq!(advice.is_some(), words.is_some(), "{code}");
            assert!(words.is_none_or(|words| advice.unwrap().contains(words)), "{code}");
        }
    }
}
