//! The users as the kubelet shows them: who may come in, and what they may do. Read again when the kubelet has turned its link, so whoever is taken out is out
//! at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tracing::warn;

use super::files;
use super::logins::{Check, Login, Logins};
use super::softlock::{Softlock, Verdict, Who};
use crate::access::AccessFile;
use crate::credentials::{BcryptHash, Htpasswd};
use crate::secret::Sensitive;

/// Passwords that are hashed at once: the pod may have few processors, and the registry needs them too.
pub(super) const HASHING: usize = 2;
/// How long a login waits for its turn to be hashed.
const PATIENCE: Duration = Duration::from_secs(2);
/// The table's file in the folder that the kubelet shows.
pub(super) const TABLE: &str = "htpasswd";
/// The file with rules beside it, where clients get tokens.
pub(super) const ACCESS: &str = "access.json";

/// Who may come in.
pub(super) struct Users {
    folder: PathBuf,
    /// Whether there are rules beside the table.
    has_rules: bool,
    known: Mutex<Known>,
    locks: Mutex<Softlock>,
    pub(super) hashing: Arc<Semaphore>,
}

/// The table and the rules that are shown now.
pub(super) struct Known {
    pub(super) logins: Logins,
    /// Empty without rules.
    pub(super) access: AccessFile,
    /// Which version of the files was read last.
    version: Option<PathBuf>,
    /// Whether that could be read.
    is_readable: bool,
}

/// Whether somebody may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// By the password of this line of the table.
    Yes(BcryptHash),
    No,
    /// Not now, but after this time.
    Later(Duration),
    /// It cannot be said here.
    Unclear,
}

impl Users {
    pub(super) fn new(folder: PathBuf, has_rules: bool) -> io::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let logins = Logins::new(key, Instant::now());
        let known = Known { logins, access: AccessFile::default(), version: None, is_readable: false };
        let hashing = Arc::new(Semaphore::new(HASHING));
        Ok(Self { folder, has_rules, known: Mutex::new(known), locks: Mutex::default(), hashing })
    }

    /// Who comes by this name. `None`: that cannot be read.
    pub(super) fn user_of(&self, name: &str) -> Option<String> {
        self.with(|known| known.logins.user_of(name).to_owned())
    }

    /// Whether the login in an `Authorization` header is right.
    pub(super) async fn admit(self: &Arc<Self>, authorization: Option<&[u8]>) -> Entry {
        let Some(authorization) = authorization else { return Entry::No };
        match self.with(|known| known.logins.look_up(authorization, Instant::now())) {
            Some(Login::Remembered(line)) => Entry::Yes(line),
            Some(Login::New(check)) => self.hash(Arc::new(check)).await,
            Some(Login::Unclear) | None => Entry::Unclear,
        }
    }

    /// Whether this is the user's password. Wrong ones are slowed for `who`.
    pub(super) async fn admit_slowly(self: &Arc<Self>, name: &str, password: Sensitive<Vec<u8>>, who: Who) -> Entry {
        let check = match self.with(|known| known.logins.look_up_user(name, password, Instant::now())) {
            Some(Login::Remembered(line)) => return Entry::Yes(line),
            Some(Login::New(check)) => Arc::new(check),
            Some(Login::Unclear) | None => return Entry::Unclear,
        };
        match self.locks(|locks| locks.begin(&who, check.mark(), Instant::now())) {
            Verdict::Look => {}
            Verdict::Wrong => return Entry::No,
            Verdict::Locked(wait) => return Entry::Later(wait),
        }
        let entry = self.hash(Arc::clone(&check)).await;
        match entry {
            Entry::Yes(_) => self.locks(|locks| locks.was_right(&who)),
            Entry::No => self.locks(|locks| locks.was_wrong(&who, check.mark())),
            Entry::Later(_) | Entry::Unclear => {}
        }
        entry
    }

    async fn hash(self: &Arc<Self>, check: Arc<Check>) -> Entry {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.hashing).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Entry::Unclear };
        // Of many that came with it, one was hashed.
        if let Some(line) = self.with(|known| known.logins.known_line(&check)).flatten() {
            return Entry::Yes(line);
        }
        // Whoever asked may go: what is begun is done, and its turn is over only then.
        let users = Arc::clone(self);
        let hash = move || {
            let _turn = turn;
            let line = check.fitting()?.cloned();
            if let Some(line) = &line {
                users.with(|known| known.logins.remember(&check, line, Instant::now()));
            }
            Some(line)
        };
        match tokio::task::spawn_blocking(hash).await {
            Ok(Some(Some(line))) => Entry::Yes(line),
            Ok(Some(None)) => Entry::No,
            Ok(None) | Err(_) => Entry::Unclear,
        }
    }

    fn locks<T>(&self, work: impl FnOnce(&mut Softlock) -> T) -> T {
        work(&mut self.locks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works with what is shown now. `None`: it cannot be read.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let version = files::version(&self.folder);
        if known.version != version {
            let read = version.as_deref().ok_or("there is no table".to_owned()).and_then(|folder| self.read(folder));
            known.is_readable = read.is_ok();
            match read {
                Ok((table, access)) => {
                    known.logins.replace(table, access.second_lines.clone());
                    known.access = access;
                }
                Err(error) => warn!(error, "the table of users cannot be read; no login is decided by it"),
            }
            known.version = version;
        }
        known.is_readable.then(|| work(&mut known))
    }

    fn read(&self, folder: &Path) -> Result<(Htpasswd, AccessFile), String> {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|error| format!("{name}: {error}"));
        let table = Htpasswd::parse(Sensitive::new(text(TABLE)?).expose()).map_err(|error| error.to_string())?;
        let access = match self.has_rules {
            true => serde_json::from_str(&text(ACCESS)?).map_err(|error| format!("{ACCESS}: {error}"))?,
            false => AccessFile::default(),
        };
        Ok((table, access))
    }
}
