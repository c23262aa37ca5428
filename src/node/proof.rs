//! What a failed pull tells of trust. An image that the registry does not have is asked for, without a login: an answer of 401 or 404 came through good TLS.

/// The image's repository: nobody's.
pub const REPOSITORY: &str = "privateregistry.dev/trust-proof";

/// What a pull tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet: it is asked.
    Asked,
    /// The runtime has talked to the registry over TLS that it trusts.
    Trusted,
    /// It refuses the certificate.
    Refused,
    /// It did not come so far, or says what is not known.
    Unclear,
}

/// Words of runtimes for a certificate that they do not trust.
const REFUSED: [&str; 4] = ["x509:", "tls: failed to verify", "certificate verify failed", "unknown authority"];
/// Words of those that have not reached the registry. They come before [`ANSWERED`]: "host not found" is no answer of a registry.
const UNREACHED: [&str; 12] = [
    "no such host",
    "server misbehaving",
    "host not found",
    "connection refused",
    "connection reset",
    "no route to host",
    "unreachable",
    "timeout",
    "deadline exceeded",
    "proxy",
    "executable file",
    "http response to https client",
];
/// Words of those that a registry has answered.
const ANSWERED: [&str; 8] = [
    "401 unauthorized",
    "403 forbidden",
    "authorization failed",
    "authentication required",
    "access denied",
    "404 not found",
    ": not found",
    "manifest unknown",
];

/// Judges what a kubelet says of a pull of `image` that failed.
#[must_use]
pub fn judge(image: &str, message: &str) -> Verdict {
    // Names may be words.
    let host = image.split('/').next().unwrap_or_default();
    let names = [image, REPOSITORY, host].into_iter().filter(|name| !name.is_empty());
    let said = names.fold(message.to_owned(), |said, name| said.replace(name, "NAME")).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&REFUSED) {
        Verdict::Refused
    } else if says(&UNREACHED) {
        Verdict::Unclear
    } else if says(&ANSWERED) {
        Verdict::Trusted
    } else {
        Verdict::Unclear
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_registry_proves_trust_and_nothing_else_does() {
        for (message, verdict) in [
            (
                "failed to pull and unpack image \"team-a.registries.svc:5000/x:1\": failed to resolve reference: pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
                Verdict::Trusted,
            ),
            (
                "unexpected status from HEAD request to https://10.96.0.9:5000/v2/x/manifests/1: 401 Unauthorized",
                Verdict::Trusted,
            ),
            ("unexpected status from HEAD request to https://h:5000/v2/x/manifests/1: 403 Forbidden", Verdict::Trusted),
            ("rpc error: code = NotFound desc = team-a.registries.svc:5000/x:1: not found", Verdict::Trusted),
            (
                "initializing source docker://h:5000/x:1: reading manifest 1 in h:5000/x: manifest unknown",
                Verdict::Trusted,
            ),
            (
                "initializing source docker://h:5000/x:1: reading manifest 1 in h:5000/x: authentication required",
                Verdict::Trusted,
            ),
            (
                "failed to do request: Head \"https://10.96.0.9:5000/v2/x/manifests/1\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                Verdict::Refused,
            ),
            (
                "pinging container registry h:5000: Get \"https://h:5000/v2/\": x509: certificate signed by unknown authority",
                Verdict::Refused,
            ),
            ("dial tcp: lookup team-a.registries.svc on 10.0.0.2:53: no such host", Verdict::Unclear),
            ("dial tcp 10.96.0.9:5000: connect: connection refused", Verdict::Unclear),
            ("dial tcp 10.96.0.9:5000: i/o timeout", Verdict::Unclear),
            ("http: server gave HTTP response to HTTPS client", Verdict::Unclear),
            ("container runtime is down", Verdict::Unclear),
            ("Proxy Authentication Required", Verdict::Unclear),
            ("exec: \"ecr-credential-provider\": executable file not found in $PATH", Verdict::Unclear),
            ("connect: network is unreachable", Verdict::Unclear),
            ("Back-off pulling image \"h:5000/x:1\"", Verdict::Unclear),
            ("", Verdict::Unclear),
        ] {
            assert_eq!(judge("h:5000/x:1", message), verdict, "{message}");
        }
        for host in ["401 unauthorized", "timeout.x509:", "access denied"] {
            let image = format!("{host}/x:1");
            assert_eq!(judge(&image, &format!("Back-off pulling image {image:?} from {host}")), Verdict::Unclear);
            assert_eq!(judge(&image, &format!("{image}: not found")), Verdict::Trusted);
        }
    }
}
