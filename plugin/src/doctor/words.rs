//! What kubelets and clients say when a pull fails, what it means and what to do: the tables of docs/clients.md, for a program. Pure.

/// A fault that is known by its words.
pub(super) struct Known {
    /// One of these stands in the message.
    pub(super) words: &'static [&'static str],
    pub(super) cure: &'static str,
    pub(super) page: &'static str,
}

/// The first that fits counts: what several faults have in common comes last.
pub(super) const KNOWN: &[Known] = &[
    Known {
        words: &["certificate signed by unknown authority", "self-signed certificate in certificate chain"],
        cure: "the node does not have this registry's authority, or has it under another host name or port: spec.trust.nodes, or kubectl registry trust NAME --print",
        page: "clients.md#containerd-and-with-it-most-kubelets",
    },
    Known {
        words: &["certificate is valid for", "relies on legacy Common Name"],
        cure: "the name in the image is not in the certificate: add it to spec.addresses",
        page: "clients.md#trust-and-names",
    },
    Known {
        words: &["certificate has expired or is not yet valid"],
        cure: "see CertificateReady; if that is well, the clock of the node is wrong",
        page: "clients.md#trust-and-names",
    },
    Known {
        words: &["server gave HTTP response to HTTPS client"],
        cure: "the registry speaks plain HTTP (spec.tls.none): let it have TLS, or tell the node's runtime that this host is insecure",
        page: "clients.md#trust-and-names",
    },
    Known {
        words: &["no such host", "server misbehaving"],
        cure: "the node does not resolve the name; names of Services are resolved by pods only: spec.trust.nodes, or another address of the registry",
        page: "clients.md#containerd-and-with-it-most-kubelets",
    },
    Known {
        words: &["i/o timeout", "connection refused", "no route to host", "context deadline exceeded"],
        cure: "nothing answers the node there: a network policy or a firewall is between, or no pod of the registry is ready",
        page: "clients.md#trust-and-names",
    },
    Known {
        words: &["429 Too Many Requests", "toomanyrequests"],
        cure: "too many requests or wrong logins from one address: see the front end's log",
        page: "tokens.md#wrong-logins",
    },
    Known {
        words: &["no match for platform in manifest", "no matching manifest for"],
        cure: "the image is not made for the node's platform: kubectl registry inspect shows which it has",
        page: "clients.md#pulling",
    },
    Known {
        words: &["client certificate"],
        cure: "the registry asks for certificates of clients (spec.tls.clientCASecretRef): the node needs client.cert and client.key",
        page: "clients.md#trust-and-names",
    },
    Known {
        words: &[
            "no basic auth credentials",
            "pull access denied",
            "authorization failed",
            "401 Unauthorized",
            "403 Forbidden",
            "insufficient_scope",
        ],
        cure: "the pod has no imagePullSecrets with a login for exactly this host and port, or that user may not pull this repository: kubectl registry can-i",
        page: "clients.md#logins",
    },
    Known {
        words: &["not found", "manifest unknown"],
        cure: "the registry has no image of this name: kubectl registry tags and repos show what there is",
        page: "clients.md#pulling",
    },
];

/// What is known of a message.
pub(super) fn known(message: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.words.iter().any(|words| message.contains(words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_real_kubelets_are_known() {
        let of = "Failed to pull image \"a.example.com:5000/app:1\": failed to pull and unpack image \"a.example.com:5000/app:1\": ";
        for (message, page) in [
            (
                "failed to do request: Head \"https://a.example.com:5000/v2/app/manifests/1\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "containerd",
            ),
            ("dial tcp: lookup a.registries.svc on 10.0.0.1:53: no such host", "containerd"),
            (
                "failed to resolve reference \"a.example.com:5000/app:1\": a.example.com:5000/app:1: not found",
                "pulling",
            ),
            ("failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized", "logins"),
            ("unexpected status from HEAD request: 403 Forbidden", "logins"),
            ("no match for platform in manifest: not found", "pulling"),
            ("dial tcp 10.96.0.9:5000: connect: connection refused", "trust-and-names"),
        ] {
            let known = known(&format!("{of}{message}")).unwrap_or_else(|| panic!("{message}"));
            assert!(known.page.contains(page), "{message}: {}", known.page);
        }
        assert!(known("Failed to pull image: something new").is_none());
        let of_platform = known("no match for platform in manifest: not found").unwrap();
        assert!(of_platform.cure.contains("platform"), "the more exact words come first");
    }

    #[test]
    fn a_message_of_a_missing_tag_is_not_taken_for_a_missing_login() {
        let message = "failed to resolve reference \"a:5000/app:none\": a:5000/app:none: not found";
        assert!(known(message).unwrap().cure.contains("no image of this name"));
    }
}
