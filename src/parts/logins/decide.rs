//! Who is in the table and whether an admin is generated: what `credentials` decides, carried out. Hashing is slow on purpose and happens on a thread for
//! such work, in portions.

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::Timestamp;
use operator_engine::apply::Live;
use serde_json::Value;

use super::rotated::Rotations;
use crate::access::{AccessFile, Policy};
use crate::api::{GenerateAdmin, UserSource, UserSourceKind, UserStatus};
use crate::credentials::plan::{HASH_FAILED, Stored as StoredTable};
use crate::credentials::{
    self, Htpasswd, Login, Password, Source, SourceKind, UserName, Wanted, docker_config, generated, hashing,
};
use crate::desired::secrets::{HTPASSWD_KEY, SOURCES_KEY};
use crate::desired::{self, AdminLogin, workload::sha256};
use crate::model::{Child, Fault, Observed, PullAs, PullSecret, Resolved, Users};
use crate::parts::Error;
use crate::secret::Sensitive;
use crate::status::{Logins, Problem};

/// What a Secret may hold is 1 MiB; some room is left for its other parts.
const MOST_BYTES: usize = 1_000_000;

/// The table, as far as it could be made.
pub(super) struct Decided {
    /// What is to be stored; `None` while there is nobody.
    pub(super) table: Option<desired::Table>,
    /// Whether some users are not hashed yet.
    pub(super) is_unfinished: bool,
    /// Names of the pull Secrets, and whom pods of the namespace pull as with each; `None`: what is there stays.
    pub(super) pull: Vec<(String, Option<PullLogin>)>,
    /// Whom pods of other namespaces pull as, entry by entry.
    pub(super) lent: Vec<Lent>,
    /// What the status says.
    pub(super) report: Logins,
}

/// The generated admin, whose password is stored.
pub(super) struct Admin(Wanted);

/// Whom pods pull as.
pub(in crate::parts) struct PullLogin(UserName, Password);

/// What is known of a login that others are given.
pub(in crate::parts) enum Lent {
    /// It is this one.
    Login(PullLogin),
    /// It cannot be said at the moment: what is there stays.
    Open,
    /// There is none.
    Nobody,
    /// A ServiceAccount's token, which the cluster is asked for where it is to be.
    Token,
}

impl Lent {
    /// The login, if it is known.
    pub(in crate::parts) fn login(&self) -> Option<&PullLogin> {
        match self {
            Self::Login(login) => Some(login),
            Self::Open | Self::Nobody | Self::Token => None,
        }
    }
}

impl PullLogin {
    /// The login of this user, if its password is known.
    fn of(user: &Wanted) -> Option<Self> {
        user.login().map(|(name, password)| Self(name, password))
    }

    /// A `.dockerconfigjson` with this login at every address.
    pub(in crate::parts) fn docker_config(&self, addresses: &BTreeSet<String>) -> Sensitive<String> {
        docker_config(addresses, self.0.as_str(), self.1.expose())
    }
}

impl Admin {
    pub(super) fn of(registry: &Resolved, password: &Sensitive<String>) -> Self {
        let name = registry.admin_name().to_owned();
        let source = Source {
            kind: SourceKind::GeneratedAdmin,
            secret: registry.name.child(Child::Admin),
            key: "password".to_owned(),
            uid: String::new(),
            // Not the Secret's version: whoever labels it changes no password.
            version: sha256(password.expose().as_bytes()),
        };
        Self(Wanted { name, source, login: Login::Password(password.expose().as_bytes().to_vec().into()) })
    }

    /// The one whose password could not be read this time: what is in the table stays.
    pub(super) fn as_stored(registry: &Resolved) -> Self {
        let admin = Self::of(registry, &String::new().into());
        Self(Wanted { login: Login::AsStored, ..admin.0 })
    }
}

/// Whether there is to be a generated admin. `Auto` drops it only when another user is written: one whose Secret is still missing would leave nobody.
pub(super) fn wants_admin(registry: &Resolved, rotations: &Rotations, is_there: bool) -> bool {
    let Users::Table { candidates, rotated, missing, unread, admin, .. } = &registry.users else { return false };
    let named = candidates.iter().any(Wanted::is_usable) || rotations.has_logins();
    match admin.generate {
        GenerateAdmin::Always => true,
        GenerateAdmin::Never => false,
        // While users that are named are on their way, an admin that is there stays, and none is made for them.
        GenerateAdmin::Auto => {
            let nobody_is_named =
                missing.is_empty() && candidates.is_empty() && unread.is_empty() && rotated.is_empty();
            !named && (nobody_is_named || is_there)
        }
    }
}

/// The login in `NAME-admin`, if there is one.
pub(super) fn login_of(live: &Live) -> Option<AdminLogin> {
    let password = text(live, "password").filter(|kept| Password::new(kept.as_bytes()).is_ok())?;
    let kind = live.at("type").and_then(Value::as_str).unwrap_or(AdminLogin::KIND);
    Some(AdminLogin { password: password.into(), kind: kind.to_owned() })
}

/// A login for a new admin.
pub(super) fn new_login() -> Result<AdminLogin, Error> {
    Ok(AdminLogin { password: generated::admin_password()?, kind: AdminLogin::KIND.to_owned() })
}

/// Keeps, makes or drops hashes until `deadline`. There is always a table for those who are in it and wanted, so that nobody who was removed stays in.
///
/// # Errors
/// The thread for slow work ended early.
pub(super) async fn table(
    registry: &Resolved,
    observed: &Observed,
    stored: Option<&Live>,
    admin: Option<&Admin>,
    rotations: &Rotations,
    deadline: Instant,
    now: Timestamp,
) -> Result<Decided, Error> {
    let Users::Table { candidates, missing, faults, unread, cost, .. } = &registry.users else {
        let (pull, lent) = (Vec::new(), Vec::new());
        let report = Logins::default();
        return Ok(Decided { table: None, is_unfinished: false, pull, lent, report });
    };
    let room = MOST_BYTES.saturating_sub(access(registry, rotations, None).len());
    let file = stored.and_then(|live| text(live, HTPASSWD_KEY));
    let memory = stored.and_then(|live| text(live, SOURCES_KEY));
    let mut wanted = candidates.clone();
    wanted.extend(rotations.lines(&names(file.as_deref())));
    wanted.extend(admin.map(|admin| admin.0.clone()));
    if !observed.unread.is_empty() {
        // Of rotated users it is known which lines there are to be, whatever could not be read: a former login ends all the same.
        let others = as_stored(registry, file.as_deref(), &wanted);
        wanted.extend(others.into_iter().filter(|user| !rotations.has_line(registry, &user.name)));
    }
    let mut plan =
        credentials::plan(wanted.clone(), *cost, StoredTable { file: file.as_deref(), memory: memory.as_deref() });
    let left_out = plan.fit(room);
    let (table, left) = if plan.is_settled() {
        hashing::advance(plan, now, deadline)
    } else {
        tokio::task::spawn_blocking(move || hashing::advance(plan, now, deadline)).await?
    };

    let mut problems: Vec<_> =
        missing.iter().map(|message| Problem::waiting("WaitingForSecret", message.clone())).collect();
    problems.extend(unread.iter().map(|secret| {
        let message = format!("Secret {secret} could not be read; its users stay as they are, and it is tried again");
        Problem::retrying("ReadFailed", message)
    }));
    problems.extend(table.problems.iter().map(|problem| {
        let make = if problem.reason == HASH_FAILED { Problem::retrying } else { Problem::stuck };
        make(problem.reason, problem.message.clone())
    }));
    problems.extend(faults.iter().map(fault));
    let is_open = left > 0 || !observed.unread.is_empty() || rotations.is_open();
    let known = Known { wanted: &wanted, users: &table.users, rotations, is_open };
    let (pull, unknown) = pull_logins(registry, admin, &known);
    let lent = registry.login_copies.iter().map(|copy| match &copy.whom {
        PullAs::User(user) => known.login_of(user),
        PullAs::ServiceAccount(_) => Lent::Token,
    });
    let lent = lent.collect();
    problems.extend(registry.pull_faults.iter().map(fault));
    problems.extend(unknown.iter().map(fault).filter(|_| missing.is_empty()));
    if let Some(first) = left_out.first() {
        problems.insert(0, too_large(first, left_out.len()));
    }
    if left > 0 {
        let all = table.users.len() + left;
        let message =
            format!("{} of {all} users can log in; the passwords of the others are being hashed", table.users.len());
        problems.push(Problem::retrying("Hashing", message));
    }
    let others = table.users.iter().filter(|user| !rotations.has_line(registry, user.name.as_str()));
    let mut users: Vec<_> = others.map(user_status).chain(rotations.statuses(registry, &table.users)).collect();
    users.sort_by(|one, other| one.name.cmp(&other.name));
    // An empty table would still be a table: everybody gets 401, and nobody is let in by accident.
    let nobody_yet = table.users.is_empty() && stored.is_none();
    let access = access(registry, rotations, Some(&table.users));
    let written = desired::Table { file: table.file, sources: table.memory, access };
    Ok(Decided {
        table: (!nobody_yet).then_some(written),
        is_unfinished: left > 0,
        lent,
        report: Logins { note: pull.is_empty().then(|| NO_PULL_SECRET.to_owned()), users, problems, untold: None },
        pull,
    })
}

/// Who of these users may do what; `None`: of as many as there can be. The generated admin may do everything; a user who has its name from elsewhere may not.
fn access(registry: &Resolved, rotations: &Rotations, users: Option<&[credentials::UserFact]>) -> String {
    // A line that somebody else has by this name is nobody's second password.
    let is_line = |user: &credentials::UserFact, line: &str, of: &str| {
        user.name.as_str() == line && user.source.secret == registry.name.login(of)
    };
    let in_table = |line: &str, of: &str| users.is_none_or(|users| users.iter().any(|user| is_line(user, line, of)));
    let users = users.unwrap_or_default();
    let generated = users.iter().filter(|user| user.source.kind == SourceKind::GeneratedAdmin);
    let administrators = generated.map(|user| user.name.to_string()).collect();
    let policy = match registry.policy() {
        Some(rules) => Policy { administrators, ..rules.clone() },
        None => Policy::everything(),
    };
    AccessFile {
        service: registry.token_service(),
        policy,
        cluster: registry.cluster_logins(),
        issuers: registry.issuers().iter().map(|issuer| issuer.login.clone()).collect(),
        second_lines: rotations.second_lines(in_table),
    }
    .render()
}

/// Users of the stored table of whom the manifest still tells, or may tell, but whose Secret could not be read.
fn as_stored(registry: &Resolved, file: Option<&str>, wanted: &[Wanted]) -> Vec<Wanted> {
    let known: BTreeSet<_> = wanted.iter().map(|user| user.name.as_str()).collect();
    let names = names(file).into_iter().filter(|name| !known.contains(name.as_str()));
    let source = Source {
        kind: SourceKind::UsersFrom,
        secret: registry.name.child(Child::Htpasswd),
        key: HTPASSWD_KEY.to_owned(),
        uid: String::new(),
        version: String::new(),
    };
    names.map(|name| Wanted { name, source: source.clone(), login: Login::AsStored }).collect()
}

/// Everybody in a stored table.
fn names(file: Option<&str>) -> BTreeSet<String> {
    let table = file.and_then(|file| Htpasswd::parse(file).ok()).unwrap_or_default();
    table.names().map(ToString::to_string).collect()
}

fn user_status(user: &credentials::UserFact) -> UserStatus {
    let kind = match user.source.kind {
        SourceKind::Users => UserSourceKind::Users,
        SourceKind::UsersFrom => UserSourceKind::UsersFrom,
        SourceKind::GeneratedAdmin => UserSourceKind::GeneratedAdmin,
    };
    UserStatus {
        name: user.name.to_string(),
        source: UserSource { kind, name: user.source.secret.clone(), key: user.source.key.clone() },
        changed_at: Some(user.changed_at.to_string()),
        rotation: None,
    }
}

fn too_large(first: &UserName, count: usize) -> Problem {
    let who =
        if count == 1 { format!("user {first} is") } else { format!("user {first} and {} others are", count - 1) };
    let message = format!(
        "{who} not in the table: a Secret holds at most 1 MiB, about 5,000 users; remove users from auth.usersFrom"
    );
    Problem::stuck("TooManyUsers", message)
}

/// What is said where pods of the namespace get no login.
const NO_PULL_SECRET: &str = "no pull Secret is written: name the user that pods pull as in spec.pullSecrets";

/// Who can log in, as far as it is known.
struct Known<'a> {
    wanted: &'a [Wanted],
    users: &'a [credentials::UserFact],
    rotations: &'a Rotations,
    /// Whether somebody may not be in the table, or his password not be known, only for now.
    is_open: bool,
}

impl Known<'_> {
    fn login_of(&self, user: &str) -> Lent {
        // Every other time it would be somebody's.
        if self.rotations.whose(user).is_some() {
            return Lent::Nobody;
        }
        let user = self.rotations.shown_name(user).unwrap_or(user);
        let in_table =
            |of: &&Wanted| self.users.iter().any(|fact| fact.name.as_str() == of.name && fact.source == of.source);
        let found = self.wanted.iter().filter(|candidate| candidate.name == user).find(in_table);
        match found.and_then(PullLogin::of) {
            Some(login) => Lent::Login(login),
            None if self.is_open => Lent::Open,
            None => Lent::Nobody,
        }
    }
}

/// Pods pull as the users that the manifest names, or as the generated admin; as nobody else, because every login may push too.
fn pull_logins(
    registry: &Resolved,
    admin: Option<&Admin>,
    known: &Known<'_>,
) -> (Vec<(String, Option<PullLogin>)>, Vec<Fault>) {
    let is_named = !registry.pull_secrets.is_empty() || !registry.pull_faults.is_empty();
    if !is_named {
        let name = registry.name.child(Child::Pull);
        return (admin.map(|admin| (name, PullLogin::of(&admin.0))).into_iter().collect(), Vec::new());
    }
    let (mut logins, mut unknown) = (Vec::new(), Vec::new());
    for PullSecret { name, whom } in &registry.pull_secrets {
        let PullAs::User(user) = whom else {
            logins.push((name.clone(), None));
            continue;
        };
        match known.login_of(user) {
            Lent::Login(login) => logins.push((name.clone(), Some(login))),
            Lent::Open | Lent::Token => logins.push((name.clone(), None)),
            Lent::Nobody => unknown.push(Fault {
                reason: "PullUserUnknown",
                message: format!(
                    "spec.pullSecrets names user {user}, who cannot log in or of whom only a hash is known; name one of auth.users or usersFrom.secretRef"
                ),
            }),
        }
    }
    (logins, unknown)
}

fn fault(fault: &Fault) -> Problem {
    Problem::stuck(fault.reason, fault.message.clone())
}

pub(super) fn text(live: &Live, key: &str) -> Option<String> {
    live.data(key).and_then(|bytes| String::from_utf8(bytes).ok())
}
