//! Our process beside the front end. It brings nginx what only the running pod knows: which addresses there are to listen on, and each renewed certificate.
//! And it answers what nginx asks. One process, the roles that the manifest needs: the reloader, the [`gate`], and the token server.

mod files;
pub mod gate;
mod logins;
mod recent;
mod reloader;
mod softlock;
mod tokens;
mod users;

use std::net::{Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use files::{Shelf, Shown};
use gate::Gate;
use reloader::{Reloader, Step};

/// How often it is looked whether the kubelet shows another certificate: one look is one link that is read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The file that nginx cannot start without, and so the last one that is written.
const LISTEN: &str = "listen.conf";
/// Where nginx asks the gate.
const GATE: &str = "gate.sock";

/// What the sidecar is for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that nginx reads.
    pub folder: PathBuf,
    /// Folder in which the kubelet shows certificate and key; `None` without TLS.
    pub certificate: Option<PathBuf>,
    /// What nginx is told to listen on: a port, and how.
    pub listen: String,
    /// What the gate looks at, where there is one.
    pub gate: Option<gate::Options>,
}

/// Works until it is told to end.
///
/// # Errors
/// The folder cannot be written, or the system refuses signal handlers.
pub async fn run(options: &Options) -> std::io::Result<()> {
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let gate = async {
        match &options.gate {
            Some(wanted) => Gate::new(wanted)?.serve(&options.folder.join(GATE)).await.map(|never| match never {}),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // First, so that it listens before nginx starts.
        biased;
        done = gate => done,
        done = work(options) => done,
        _ = ended.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    }
}

/// Whether nginx can start.
#[must_use]
pub fn is_ready(folder: &Path) -> bool {
    folder.join(LISTEN).exists()
}

async fn work(options: &Options) -> std::io::Result<()> {
    let shelf = Shelf::in_folder(&options.folder)?;
    let mut reloader = Reloader::serving(shelf.served());
    let mut last = None;
    loop {
        if let Some(shown) = options.certificate.as_deref() {
            look(shown, &shelf, &mut reloader, &mut last)?;
        }
        if (options.certificate.is_none() || reloader.serves()) && !is_ready(&options.folder) {
            files::write(&options.folder, LISTEN, &listen(&options.listen, has_ipv6()))?;
            info!("the front end can start");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks once at what the kubelet shows.
fn look(shown: &Path, shelf: &Shelf, reloader: &mut Reloader, last: &mut Option<PathBuf>) -> std::io::Result<()> {
    let version = files::version(shown);
    if version.is_some() && *last == version {
        return Ok(());
    }
    let read = Shown::read(version.as_deref().unwrap_or(shown));
    // The kubelet has exchanged it meanwhile: next time.
    if version != files::version(shown) {
        return Ok(());
    }
    match reloader.step(&read.judged(Timestamp::now())) {
        Step::Rest => {}
        Step::Serve { checksum, serial } => {
            if let Some(leaf) = read.leaf() {
                shelf.put(&checksum, leaf)?;
            }
            reloader.served(&checksum);
            info!(serial, "the front end serves this certificate from now on");
        }
        Step::Complain(why) => {
            warn!(why, "the certificate that is shown cannot be served; the last good one is served on");
        }
    }
    *last = version;
    Ok(())
}

/// nginx ends where it is told to listen on addresses of a family that its kernel does not know.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn listen(how: &str, ipv6: bool) -> String {
    let second = if ipv6 { format!("listen [::]:{how};\n") } else { String::new() };
    format!("listen {how};\n{second}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_listens_on_what_there_is() {
        assert_eq!(listen("5000 ssl http2", false), "listen 5000 ssl http2;\n");
        assert_eq!(listen("5000", true), "listen 5000;\nlisten [::]:5000;\n");
    }
}
