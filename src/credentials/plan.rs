//! Which users get into the table, and which of their stored hashes stay.
//!
//! Pure. A bcrypt hash is salted, so hashing again gives another text; and it is slow. So a hash stays as long as nothing
//! about its source has changed, and when something has, it is verified before a new one is made. What must be computed is
//! left to `hashing`.
//!
//! Only what is declared and readable now is served: a user whose Secret or key has vanished, or whose password has become
//! illegal, is not in the table. A user taken away must be refused, and nobody can tell a slip from an intention.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BcryptHash, Htpasswd, Password, UserName};
use crate::secret::Sensitive;

/// By which way a user came into the manifest, in the order in which they win a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// `auth.users`.
    Users,
    /// `auth.usersFrom`.
    UsersFrom,
    /// The generated administrator.
    GeneratedAdmin,
}

/// Where a password or a hash lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// By which way.
    pub kind: SourceKind,
    /// Name of the Secret, in the registry's namespace.
    pub secret: String,
    /// Key in the Secret.
    pub key: String,
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resource version.
    pub version: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}, key {}", self.secret, self.key)
    }
}

/// A user as the manifest and the Secrets give it, unchecked.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The name as written.
    pub name: String,
    /// Where the password or the hash lies.
    pub source: Source,
    /// What lies there.
    pub login: Login,
}

/// With what a user logs in.
#[derive(Debug, Clone)]
pub enum Login {
    /// A password, unchecked: the bytes under the key.
    Password(Sensitive<Vec<u8>>),
    /// The same of a user who has two, each with a line of its own. Its hash may stand in the stored table under the other name: then it moves, and who has a
    /// token for it keeps that.
    OneOfTwo {
        /// The password, unchecked.
        password: Sensitive<Vec<u8>>,
        /// The name of the other line.
        other: String,
    },
    /// A hash that the user brought. It is used as it is, whatever its cost.
    Hash(BcryptHash),
    /// Where it lies could not be read this time: the stored hash stays.
    AsStored,
}

impl Wanted {
    /// Name and password, if both are legal and the password is known.
    pub fn login(&self) -> Option<(UserName, Password)> {
        match &self.login {
            Login::Password(password) | Login::OneOfTwo { password, .. } => {
                Some((UserName::new(&self.name).ok()?, Password::new(password.expose()).ok()?))
            }
            Login::Hash(_) | Login::AsStored => None,
        }
    }

    /// Whether this user will be in the table, unless another has the name.
    pub fn is_usable(&self) -> bool {
        match &self.login {
            Login::Password(_) | Login::OneOfTwo { .. } => self.login().is_some(),
            Login::Hash(_) | Login::AsStored => UserName::new(&self.name).is_ok(),
        }
    }
}

/// The stored table, if there is one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stored<'a> {
    /// The htpasswd file. One that can't be read counts as none: every hash is made again.
    pub file: Option<&'a str>,
    /// What was kept of [`Table::memory`]. One that can't be read counts as none: every hash is verified.
    pub memory: Option<&'a str>,
}

/// A user who is not in the table, and why. The others are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name as written.
    pub user: String,
    /// Where the password lies.
    pub source: Source,
    /// The one word for conditions, events and metrics.
    pub reason: &'static str,
    /// Which rule is broken and what to do. Names the user, never the password.
    pub message: String,
}

/// A user who is in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFact {
    /// The name.
    pub name: UserName,
    /// Where the password lies.
    pub source: Source,
    /// When the hash was made, in whole seconds.
    pub changed_at: Timestamp,
}

/// The finished table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The htpasswd file.
    pub file: Sensitive<String>,
    /// What to keep beside it: JSON, sorted, about 80 bytes a user. Holds no secret.
    pub memory: String,
    /// Who may log in, sorted by name.
    pub users: Vec<UserFact>,
    /// Who may not, and why, in the order of the manifest.
    pub problems: Vec<Problem>,
}

/// What is left to do for a table.
#[derive(Debug)]
pub struct Plan {
    pub(super) entries: BTreeMap<UserName, Entry>,
    /// In the order in which they win a name.
    order: Vec<UserName>,
    pub(super) problems: Vec<Problem>,
    pub(super) cost: u32,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) source: Source,
    pub(super) changed_at: Option<Timestamp>,
    /// Whether the stored table has this user.
    is_stored: bool,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Keep(BcryptHash),
    Take(BcryptHash),
    /// The stored hash, and one that may have moved here.
    VerifyOrHash(BcryptHash, Option<BcryptHash>, Password),
    Hash(Password),
}

impl Plan {
    /// Whether every hash stays, so that completing the plan costs nothing.
    pub fn is_settled(&self) -> bool {
        self.entries.values().all(|entry| matches!(entry.work, Work::Keep(_)))
    }

    /// Leaves out users for whom a table of `bytes`, file and memory together, has no room, and gives their names: those who are in the stored table
    /// come first, then the generated administrator, then the others in the order in which they win a name. Nobody's password is hashed for nothing.
    pub fn fit(&mut self, bytes: usize) -> Vec<UserName> {
        let rank = |name: &UserName| {
            let entry = self.entries.get(name);
            let comes = |test: fn(&Entry) -> bool| !entry.is_some_and(test);
            (comes(|entry| entry.is_stored), comes(|entry| entry.source.kind == SourceKind::GeneratedAdmin))
        };
        let mut order = std::mem::take(&mut self.order);
        order.sort_by_key(rank);
        let mut room = bytes.saturating_sub(AROUND);
        let (fitting, left_out): (Vec<_>, Vec<_>) = order.into_iter().partition(|name| {
            let rest = room.checked_sub(size(name));
            room = rest.unwrap_or(0);
            rest.is_some()
        });
        self.order = fitting;
        left_out.iter().for_each(|name| _ = self.entries.remove(name));
        left_out
    }
}

/// The braces of the memory, less the comma that its last user lacks.
const AROUND: usize = 1;
/// A bcrypt hash, and in the memory 16 bytes in base64 and a time in whole seconds.
const PER_USER: usize = ":\n".len() + 60 + r#":{"seen":"","changedAt":""},"#.len() + 22 + 20;

/// Bytes that a user takes in file and memory.
fn size(name: &UserName) -> usize {
    let quoted = serde_json::to_string(name.as_str()).unwrap_or_default();
    name.as_str().len() + quoted.len() + PER_USER
}

/// What is remembered of a user.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    seen: String,
    changed_at: String,
}

/// Checks every user by itself, and says which hash stays.
///
/// A name that comes twice belongs to the first: `users` before `usersFrom` before the generated administrator, and in the
/// order given within each. The first keeps it even if its password is illegal, otherwise a slip in one Secret would let
/// another one's password in.
pub fn plan(mut wanted: Vec<Wanted>, cost: u32, stored: Stored<'_>) -> Plan {
    let table = stored.file.and_then(|file| Htpasswd::parse(file).ok()).unwrap_or_default();
    let memory: BTreeMap<String, Remembered> =
        stored.memory.and_then(|memory| serde_json::from_str(memory).ok()).unwrap_or_default();

    wanted.sort_by_key(|user| user.source.kind);
    let mut owners: BTreeMap<String, Source> = BTreeMap::new();
    let mut plan = Plan { entries: BTreeMap::new(), order: Vec::new(), problems: Vec::new(), cost };
    for user in wanted {
        if let Some(owner) = owners.get(&user.name) {
            let rule = format!("the name is already given by {owner}; remove one of the two");
            plan.problems.push(problem(user, "UserDuplicate", &rule));
            continue;
        }
        owners.insert(user.name.clone(), user.source.clone());
        match entry(&user, cost, &table, &memory) {
            Ok((name, entry)) => {
                plan.order.push(name.clone());
                plan.entries.insert(name, entry);
            }
            Err((reason, rule)) => plan.problems.push(problem(user, reason, &rule)),
        }
    }
    plan
}

fn entry(
    user: &Wanted,
    cost: u32,
    table: &Htpasswd,
    memory: &BTreeMap<String, Remembered>,
) -> Result<(UserName, Entry), (&'static str, String)> {
    let name = UserName::new(&user.name).map_err(|rule| ("UserNameInvalid", rule.to_string()))?;
    let remembered = memory.get(&user.name);
    let mut changed_at = remembered.and_then(|known| known.changed_at.parse().ok());
    let is_stored = table.hash(&name).is_some();
    let (mut moved, mut other) = (None, None);
    let password = match &user.login {
        Login::Password(password) | Login::OneOfTwo { password, .. } => {
            if let Login::OneOfTwo { other: name, .. } = &user.login {
                let hash = UserName::new(name).ok().and_then(|name| table.hash(&name).cloned());
                moved = hash.filter(|hash| hash.cost() == cost);
                other = memory.get(name);
            }
            Password::new(password.expose()).map_err(|rule| (rule.reason(), rule.to_string()))?
        }
        Login::Hash(hash) => {
            let is_known = table.hash(&name) == Some(hash);
            let work = if is_known { Work::Keep(hash.clone()) } else { Work::Take(hash.clone()) };
            return Ok((name, Entry { source: user.source.clone(), changed_at, is_stored, work }));
        }
        Login::AsStored => {
            let rule = "its Secret could not be read; it is tried again".to_owned();
            let hash = table.hash(&name).cloned().ok_or(("ReadFailed", rule))?;
            return Ok((name, Entry { source: user.source.clone(), changed_at, is_stored, work: Work::Keep(hash) }));
        }
    };

    let work = match table.hash(&name).filter(|hash| hash.cost() == cost) {
        None => Work::Hash(password),
        Some(hash) if remembered.is_some_and(|known| known.seen == seen(&user.source, hash)) => {
            Work::Keep(hash.clone())
        }
        Some(hash) => match moved.clone().zip(other).filter(|(hash, other)| other.seen == seen(&user.source, hash)) {
            // The two have changed places: it is known which hash is of which, and nothing is to be computed. Half of it would leave one of them out.
            Some((hash, other)) => {
                changed_at = other.changed_at.parse().ok();
                Work::Keep(hash)
            }
            None => Work::VerifyOrHash(hash.clone(), moved, password),
        },
    };
    Ok((name, Entry { source: user.source.clone(), changed_at, is_stored, work }))
}

/// Since when exactly this login has been in the stored table; `None`: it is not.
#[must_use]
pub fn stored_since(user: &Wanted, cost: u32, stored: Stored<'_>) -> Option<Timestamp> {
    let Stored { file: Some(file), memory: Some(memory) } = stored else { return None };
    let table = Htpasswd::parse(file).ok()?;
    let memory = serde_json::from_str(memory).ok()?;
    let (name, entry) = entry(user, cost, &table, &memory).ok()?;
    // Not by the other name.
    let is_kept = matches!(&entry.work, Work::Keep(hash) if table.hash(&name) == Some(hash));
    entry.changed_at.filter(|_| is_kept)
}

/// The one word for a hash that could not be made.
pub const HASH_FAILED: &str = "HashFailed";

/// A user whose hash could not be made. Whoever changed a password must not stay in with the old one, so there is none.
pub(super) fn unhashed(user: &UserName, source: Source, why: &str) -> Problem {
    let (name, reason) = (user.to_string(), HASH_FAILED);
    let message = format!("user {name:?} ({source}): the password could not be hashed ({why}); it is tried again");
    Problem { user: name, source, reason, message }
}

fn problem(user: Wanted, reason: &'static str, rule: &str) -> Problem {
    let Wanted { name, source, .. } = user;
    let message = format!("user {name:?} ({source}): {rule}");
    Problem { user: name, source, reason, message }
}

/// One digest for all that a hash was made from, and for the hash itself: a source that changed in any way is seen, and so
/// is a line that somebody else wrote into the file. The key is in it because two keys of one Secret share uid and version.
fn seen(source: &Source, hash: &BcryptHash) -> String {
    let mut digest = Sha256::new();
    for part in [&source.uid, &source.version, &source.key, hash.expose()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    STANDARD_NO_PAD.encode(&digest.finalize()[..16])
}

/// The finished table from what was planned and computed; `users` sorted by name.
pub(super) fn table(users: Vec<(UserFact, BcryptHash)>, problems: Vec<Problem>) -> Table {
    let remember = |(user, hash): &(UserFact, BcryptHash)| {
        let remembered = Remembered { seen: seen(&user.source, hash), changed_at: user.changed_at.to_string() };
        (user.name.to_string(), remembered)
    };
    let memory: BTreeMap<_, _> = users.iter().map(remember).collect();
    // Strings and string keys only: this can't fail.
    let memory = serde_json::to_string(&memory).unwrap_or_default();

    let file = users.iter().map(|(user, hash)| (user.name.clone(), hash.clone())).collect::<Htpasswd>().render();
    Table { file, memory, users: users.into_iter().map(|(user, _)| user).collect(), problems }
}
