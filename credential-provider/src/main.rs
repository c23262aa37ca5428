//! An image credential provider of the kubelet (KEP-4412): it hands the token of a pod's ServiceAccount to the registry that the pod's image is in, so that
//! pods pull without any pull Secret. It reads a question from standard input and answers on standard output, and asks nobody.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use private_registry_credential_provider::answer;

/// Bytes of a question: an image's name, a token and some annotations.
const LARGEST: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut question = Vec::new();
    let read = io::stdin().take(LARGEST).read_to_end(&mut question).map_err(|error| error.to_string());
    let done = read.and_then(|_| answer(&question));
    let done = done.and_then(|answer| io::stdout().write_all(answer.as_bytes()).map_err(|error| error.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The kubelet writes it into its log.
            let _ = writeln!(io::stderr(), "private-registry-credential-provider: {error}");
            ExitCode::FAILURE
        }
    }
}
