//! Who may log in to one registry: what `credentials` decides, carried out. Hashing is slow on purpose and happens on a thread for
//! such work.

use std::collections::BTreeSet;

use jiff::Timestamp;
use operator_engine::apply::Live;

use super::error::Error;
use crate::api::{GenerateAdmin, UserSource, UserSourceKind, UserStatus};
use crate::credentials::table::Stored as StoredTable;
use crate::credentials::{
    self, Login, Password, Source, SourceKind, UserName, Wanted, docker_config, generated, hashing,
};
use crate::desired::secrets::{HTPASSWD_KEY, HTTP_SECRET_KEY};
use crate::desired::{self, workload::sha256};
use crate::model::{self, Child, Fault, Resolved, Users, labels};
use crate::secret::Sensitive;
use crate::status::{Logins, Problem};

/// What the cluster holds of a registry's users.
pub(super) struct Stored<'a> {
    /// `NAME-htpasswd`.
    pub(super) table: Option<&'a Live>,
    /// `NAME-admin`.
    pub(super) admin: Option<&'a Live>,
    /// `NAME-config`, for the key that signs uploads.
    pub(super) config: Option<&'a Live>,
}

/// What a pass goes on with.
#[derive(Debug)]
pub(super) struct Settled {
    /// The table; `None` without logins, or while there is nobody.
    pub(super) table: Option<desired::Table>,
    /// Password of the generated admin, if there is to be one.
    pub(super) admin: Option<Sensitive<String>>,
    /// Login for pods of the namespace.
    pub(super) pull: Option<Sensitive<String>>,
    /// Key that signs uploads.
    pub(super) http_secret: Sensitive<String>,
    /// What the status says.
    pub(super) report: Logins,
}

/// Keeps, makes or drops hashes, the generated admin and the key that signs uploads.
///
/// # Errors
/// When a hash or a password cannot be made.
pub(super) async fn settle(
    registry: &Resolved,
    stored: &Stored<'_>,
    addresses: &BTreeSet<String>,
    now: Timestamp,
) -> Result<Settled, Error> {
    let http_secret = match stored.config.and_then(|live| text(live, HTTP_SECRET_KEY)) {
        Some(kept) if kept.len() >= 32 => kept.into(),
        _ => generated::http_secret()?,
    };
    let Users::Table { candidates, missing, faults, admin: given, cost } = &registry.users else {
        return Ok(Settled { table: None, admin: None, pull: None, http_secret, report: Logins::default() });
    };

    let admin = admin(registry, given, candidates, missing, stored)?;
    let mut wanted = candidates.clone();
    wanted.extend(admin.as_ref().map(|admin| admin.wanted.clone()));
    let file = stored.table.and_then(|live| text(live, HTPASSWD_KEY));
    let memory = stored.table.and_then(|live| live.annotation(labels::SOURCES));
    let plan = credentials::plan(wanted.clone(), *cost, StoredTable { file: file.as_deref(), memory });
    let table = if plan.is_settled() {
        hashing::complete(plan, now)?
    } else {
        tokio::task::spawn_blocking(move || hashing::complete(plan, now)).await??
    };

    let mut problems: Vec<_> = missing
        .iter()
        .map(|message| Problem { reason: "WaitingForSecret".to_owned(), message: message.clone(), waiting: true })
        .collect();
    problems.extend(table.problems.iter().map(|problem| Problem {
        reason: problem.reason.to_owned(),
        message: problem.message.clone(),
        waiting: false,
    }));
    problems.extend(faults.iter().map(fault));
    let pull = pull_login(registry, admin.as_ref(), &wanted, &table.users);
    problems.extend(pull.as_ref().err().map(fault).filter(|_| missing.is_empty()));
    let pull = pull.ok().flatten();
    let report = Logins {
        note: pull.is_none().then(|| NO_PULL_SECRET.to_owned()),
        users: table
            .users
            .iter()
            .map(|user| UserStatus {
                name: user.name.to_string(),
                source: UserSource {
                    kind: match user.source.kind {
                        SourceKind::Users => UserSourceKind::Users,
                        SourceKind::UsersFrom => UserSourceKind::UsersFrom,
                        SourceKind::GeneratedAdmin => UserSourceKind::GeneratedAdmin,
                    },
                    name: user.source.secret.clone(),
                    key: user.source.key.clone(),
                },
                changed_at: Some(user.changed_at.to_string()),
            })
            .collect(),
        problems,
    };
    let pull = pull.map(|(name, password)| docker_config(addresses, &name, &password));
    // An empty table would still be a table: everybody gets 401, and nobody is let in by accident.
    let nobody_yet = table.users.is_empty() && stored.table.is_none();
    Ok(Settled {
        table: (!nobody_yet).then_some(desired::Table { file: table.file, sources: table.memory }),
        admin: admin.map(|admin| admin.password),
        pull,
        http_secret,
        report,
    })
}

struct Admin {
    password: Sensitive<String>,
    wanted: Wanted,
}

/// The generated admin, kept or made. `Auto` drops it only when another user is written: a user whose Secret is still missing
/// would leave nobody.
fn admin(
    registry: &Resolved,
    given: &model::Admin,
    candidates: &[Wanted],
    missing: &[String],
    stored: &Stored<'_>,
) -> Result<Option<Admin>, Error> {
    let named = candidates.iter().any(Wanted::is_usable);
    let wanted = match given.generate {
        GenerateAdmin::Always => true,
        GenerateAdmin::Never => false,
        // While users that are named are on their way, an admin that is there stays, and none is made for them.
        GenerateAdmin::Auto => !named && (missing.is_empty() && candidates.is_empty() || stored.admin.is_some()),
    };
    if !wanted {
        return Ok(None);
    }
    let kept =
        stored.admin.and_then(|live| text(live, "password")).filter(|kept| Password::new(kept.as_bytes()).is_ok());
    let password: Sensitive<String> = match kept {
        Some(kept) => kept.into(),
        None => generated::admin_password()?,
    };
    let source = Source {
        kind: SourceKind::GeneratedAdmin,
        secret: registry.name.child(Child::Admin),
        key: "password".to_owned(),
        uid: String::new(),
        // Not the Secret's version, which is not known before it is written: the table would be written twice.
        version: sha256(password.expose().as_bytes()),
    };
    let login = Login::Password(password.expose().as_bytes().to_vec().into());
    let wanted = Wanted { name: given.username.clone(), source, login };
    Ok(Some(Admin { password, wanted }))
}

/// What is said where pods of the namespace get no login.
const NO_PULL_SECRET: &str = "no pull Secret is written: name the user that pods pull as in spec.pullSecrets";

/// Pods pull as the user that the manifest names, or as the generated admin; as nobody else, because every login may push too.
fn pull_login(
    registry: &Resolved,
    admin: Option<&Admin>,
    wanted: &[Wanted],
    users: &[credentials::UserFact],
) -> Result<Option<(UserName, Password)>, Fault> {
    let Some(name) = &registry.pull_user else { return Ok(admin.and_then(|admin| admin.wanted.login())) };
    let in_table =
        |user: &&Wanted| users.iter().any(|fact| fact.name.as_str() == user.name && fact.source == user.source);
    let login = wanted.iter().filter(|user| user.name == *name).find(in_table).and_then(Wanted::login);
    login.map(Some).ok_or_else(|| Fault {
        reason: "PullUserUnknown",
        message: format!(
            "spec.pullSecrets names user {name}, who cannot log in or of whom only a hash is known; name one of auth.users or usersFrom.secretRef"
        ),
    })
}

fn fault(fault: &Fault) -> Problem {
    Problem { reason: fault.reason.to_owned(), message: fault.message.clone(), waiting: false }
}

fn text(live: &Live, key: &str) -> Option<String> {
    live.data(key).and_then(|bytes| String::from_utf8(bytes).ok())
}
