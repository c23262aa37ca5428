//! What went wrong between us and the API server, in words that a person can act on.
//!
//! The texts of kube's own errors must not be printed: a failed decode quotes the value it stumbled over (a Secret's, for instance), and a failed
//! credential plugin is quoted with its arguments and its output. Everything here is chosen piece by piece.

use std::error::Error as StdError;
use std::io;

use kube::client::AuthError;
use kube::config::KubeconfigError;
use kube::core::Status;

use super::gate::GateError;

/// Longest text taken over from a server.
const LONGEST_MESSAGE: usize = 400;

/// The reason that kube makes up for an answer that is no `Status` (`handle_api_errors` in kube-client).
const NO_STATUS: &str = "Failed to parse error data";

/// `error` in one line, ending with what to do where that is known. Never contains a secret.
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => refused(status),
        kube::Error::SerdeError(error) => {
            format!(
                "the API server's answer is not what was expected (line {}, column {})",
                error.line(),
                error.column()
            )
        }
        kube::Error::Auth(error) => credentials(error),
        kube::Error::InferKubeconfig(error) => kubeconfig(error),
        kube::Error::HyperError(error) => transport(error),
        kube::Error::Service(error) => transport(error.as_ref()),
        kube::Error::ReadEvents(error) => transport(error),
        kube::Error::RustlsTls(_) => {
            "the client certificate, its key, or the CA in the kubeconfig can't be read; look at them with \
             kubectl config view --raw"
                .to_owned()
        }
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            "the kubeconfig names a proxy-url; the operator talks to the API server directly: remove it".to_owned()
        }
        kube::Error::FromUtf8(_) => "the API server's answer is not text".to_owned(),
        kube::Error::Discovery(error) => error.to_string(),
        _ => "the request could not be made".to_owned(),
    }
}

fn refused(status: &Status) -> String {
    let message = shortened(&status.message);
    match status.code {
        401 => "the API server does not accept our credentials (401): the token or client certificate is wrong or has \
                expired; get a fresh kubeconfig, or delete the pod if its ServiceAccount was made anew"
            .to_owned(),
        403 => format!("{message} (403); grant the right, for example by installing the chart's roles"),
        // A page of a proxy, or half an object: nothing to quote.
        code if status.reason == NO_STATUS => {
            format!("the answer was {code}, and not one of an API server; is a proxy in between?")
        }
        code => format!("{message} ({code})"),
    }
}

/// At most [`LONGEST_MESSAGE`] characters of `text`, in one line.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// What is wrong with a kubeconfig. A parser's own text quotes the lines around the mistake, with the token that may stand there.
pub(super) fn kubeconfig(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, path) => format!("{} can't be read: {error}", path.display()),
        KubeconfigError::Parse(error) => match error.location() {
            Some(location) => format!("not a kubeconfig: look at line {}", location.line()),
            None => "not a kubeconfig".to_owned(),
        },
        KubeconfigError::CurrentContextNotSet => {
            "it has no current context; give --context NAME or run kubectl config use-context NAME".to_owned()
        }
        KubeconfigError::LoadContext(name) => {
            format!("it has no context {name:?}; kubectl config get-contexts shows those it has")
        }
        KubeconfigError::LoadClusterOfContext(name) => {
            format!("its context names a cluster {name:?} that it does not have")
        }
        KubeconfigError::MissingClusterUrl => "its cluster has no server".to_owned(),
        KubeconfigError::ParseClusterUrl(_) => "its cluster's server is not a URL".to_owned(),
        KubeconfigError::ParseProxyUrl(_) => "proxy-url, or HTTPS_PROXY in the environment, is not a URL".to_owned(),
        KubeconfigError::LoadCertificateAuthority(error) => format!("the cluster's CA can't be read: {error}"),
        KubeconfigError::LoadClientCertificate(error) => format!("the client certificate can't be read: {error}"),
        KubeconfigError::LoadClientKey(error) => format!("the client key can't be read: {error}"),
        KubeconfigError::ParseCertificates(_) => "the cluster's CA is not a PEM certificate".to_owned(),
        _ => "can't be used".to_owned(),
    }
}

/// Why no credentials could be had.
fn credentials(error: &AuthError) -> String {
    match error {
        AuthError::AuthExecStart(error) => {
            format!("the kubeconfig's credential plugin can't be started: {error}; install it, or use another context")
        }
        AuthError::AuthExecRun { out, .. } => format!(
            "the kubeconfig's credential plugin failed ({}); run kubectl get nodes with the same kubeconfig to see why",
            out.status
        ),
        AuthError::ReadTokenFile(error, path) => format!("the token file {} can't be read: {error}", path.display()),
        AuthError::MissingCommand => "the kubeconfig's credential plugin has no command".to_owned(),
        _ => "the kubeconfig's credentials can't be used; try kubectl get nodes with the same kubeconfig".to_owned(),
    }
}

fn transport(error: &(dyn StdError + 'static)) -> String {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    if let Some(gate) = chain().find_map(|error| error.downcast_ref::<GateError>()) {
        return gate.to_string();
    }
    if let Some(error) = chain().find_map(|error| error.downcast_ref::<AuthError>()) {
        return credentials(error);
    }
    // rustls hides inside an io::Error whose source() skips it.
    let tls = |error: &(dyn StdError + 'static)| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned(),
        None => error.downcast_ref::<rustls::Error>().cloned(),
    };
    if let Some(error) = chain().find_map(tls) {
        return format!("no trusted connection: {error}; does the CA in the kubeconfig belong to this API server?");
    }
    // What lies above the last cause only says which layer noticed.
    let cause = chain().last().map_or_else(String::new, |last| shortened(&last.to_string()));
    format!("can't be reached: {cause}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const PLANTED: &str = "hunter2-planted";

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed())
    }

    #[test]
    fn refusals_say_what_to_do() {
        let expired = explain(&api(401, "Unauthorized"));
        assert!(expired.contains("expired") && expired.contains("kubeconfig"), "{expired}");
        let rights = explain(&api(403, "secrets is forbidden: User \"x\" cannot list resource \"secrets\""));
        assert!(rights.contains("cannot list resource \"secrets\"") && rights.contains("grant the right"), "{rights}");
    }

    #[test]
    fn a_long_message_is_cut_and_made_one_line() {
        let page = explain(&api(502, &"ä of x\n".repeat(500)));
        assert!(page.chars().count() < 450 && !page.contains('\n'), "{page}");
    }

    #[test]
    fn an_answer_that_is_no_status_is_not_quoted() {
        let error = kube::Error::Api(Status::failure(PLANTED, NO_STATUS).with_code(502).boxed());
        let words = explain(&error);
        assert!(words.contains("502") && !words.contains(PLANTED), "{words}");
    }

    #[test]
    fn a_value_that_does_not_decode_is_not_quoted() {
        let text = format!(r#"{{"data":"{PLANTED}"}}"#);
        let error = serde_json::from_str::<k8s_openapi::api::core::v1::Secret>(&text).unwrap_err();
        assert!(error.to_string().contains(PLANTED), "the decoder does quote: {error}");
        assert!(!explain(&kube::Error::SerdeError(error)).contains(PLANTED));
    }

    #[test]
    fn a_failed_plugin_is_not_quoted() {
        let out = std::process::Output {
            status: std::process::ExitStatus::from_raw(256),
            stdout: PLANTED.as_bytes().to_vec(),
            stderr: Vec::new(),
        };
        let error = AuthError::AuthExecRun { cmd: format!("login --token {PLANTED}"), out: Box::new(out) };
        let boxed: Box<dyn StdError + Send + Sync> = Box::new(error);
        let words = explain(&kube::Error::Service(boxed));
        assert!(words.contains("exit status: 1") && !words.contains(PLANTED), "{words}");
    }

    #[test]
    fn an_untrusted_certificate_is_called_so() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::new(io::ErrorKind::InvalidData, inner);
        let words = explain(&kube::Error::Service(Box::new(error)));
        assert!(words.contains("UnknownIssuer") && words.contains("CA"), "{words}");
    }

    #[test]
    fn an_unreachable_server_names_the_cause() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(explain(&kube::Error::Service(Box::new(error))), "can't be reached: connection refused");
    }
}
