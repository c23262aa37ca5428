//! Users whose passwords the operator makes, and another one again and again: what `credentials::rotation` decides, carried out, one write a pass. The
//! Secret with a login is all there is to know of it, so the operator may end after any write and goes on from there; nothing is made of a password that
//! is not stored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use operator_engine::apply::{Hold, Kind, Live, Outcome, Standing};
use operator_engine::work::events::{Happening, Tone};
use serde_json::Value;

use super::decide::text;
use super::untold::Untold;
use crate::api::{UserRotationStatus, UserSource, UserSourceKind, UserStatus, annotation, condition, reason};
use crate::credentials::plan::{Stored, stored_since};
use crate::credentials::rotation::{self, Asked, Facts, Former, Next, Step};
use crate::credentials::{Login, Password, Source, SourceKind, UserFact, Wanted, generated};
use crate::desired::secrets::{HTPASSWD_KEY, LOGIN_KEYS, SOURCES_KEY};
use crate::desired::workload::sha256;
use crate::desired::{self, AdminLogin, FormerPassword, RotatedLogin, kinds};
use crate::model::{self, Resolved, RotatedUser, Users, second_name};
use crate::parts::{Error, Pass, being_deleted, whole};
use crate::secret::Sensitive;
use crate::status::Problem;

/// Bytes that are kept of what somebody asks for.
const ASKED_AT_MOST: usize = 253;

/// The users of a registry whose passwords the operator makes.
#[derive(Default)]
pub(in crate::parts) struct Rotations {
    known: Vec<Rotation>,
    /// Those whose Secret could not be read, or holds no password: what the table has of them stays.
    unclear: Vec<(RotatedUser, String)>,
    /// Of all of them, whether there is a login or not.
    second_names: BTreeMap<String, String>,
    /// What is wrong with others.
    pub(super) problems: Vec<Problem>,
}

/// A user with a login that is stored.
struct Rotation {
    user: RotatedUser,
    /// Name of the Secret.
    secret: String,
    login: RotatedLogin,
    asked: Option<String>,
    /// Whether something may be written to it: it is not being deleted.
    is_ours: bool,
    /// Whether somebody takes away what is written: then the next try has its time, whatever is due.
    is_cut: bool,
}

/// Finds, makes and exchanges logins. `table`: what is stored of the table. `is_followed`: running pods follow it.
pub(super) async fn settle(pass: &Pass<'_>, table: &StoredTable, is_followed: bool) -> Rotations {
    let mut rotations = Rotations::of(pass.registry);
    for user in pass.registry.rotated_users() {
        let found = find(pass, user).await;
        let found = match found {
            Found::Absent => make(pass, user).await,
            Found::Login(rotation) if rotation.is_ours => advance(pass, rotation, table, is_followed).await,
            found => found,
        };
        rotations.add(user, pass.registry.name.login(&user.name), found);
    }
    rotations
}

/// Finds logins, and changes nothing.
pub(super) async fn look(pass: &Pass<'_>) -> Rotations {
    let mut rotations = Rotations::of(pass.registry);
    for user in pass.registry.rotated_users() {
        let found = find(pass, user).await;
        rotations.add(user, pass.registry.name.login(&user.name), found);
    }
    rotations
}

/// The stored table, as far as it is needed to know who is in it.
#[derive(Debug, Default)]
pub(super) struct StoredTable {
    file: Option<String>,
    memory: Option<String>,
    cost: u32,
}

impl StoredTable {
    pub(super) fn of(pass: &Pass<'_>, live: Option<&Live>) -> Self {
        let Users::Table { cost, .. } = pass.registry.users else { return Self::default() };
        let text = |key: &str| live.and_then(|live| text(live, key));
        Self { file: text(HTPASSWD_KEY), memory: text(SOURCES_KEY), cost }
    }

    /// Since when it has had this login.
    fn since(&self, user: &Wanted) -> Option<Timestamp> {
        stored_since(user, self.cost, Stored { file: self.file.as_deref(), memory: self.memory.as_deref() })
    }
}

/// Secrets that must stay: with the logins, and those that were such and that the manifest refers to now, so that somebody keeps his password.
pub(super) fn secrets(pass: &Pass<'_>) -> impl Iterator<Item = (&'static Kind, String)> {
    let name = &pass.registry.name;
    let logins = pass.registry.rotated_users().iter().map(|user| name.login(&user.name));
    let prefix = name.login("");
    let referred = model::secrets_of(pass.manifest).filter(move |secret| secret.starts_with(&prefix)).cloned();
    logins.chain(referred).map(|secret| (kinds::SECRET, secret))
}

/// What was found of a user's login.
enum Found {
    /// There is none yet.
    Absent,
    Login(Rotation),
    /// With what stands in the way of the next step.
    Hindered(Rotation, Problem),
    /// Nothing can be said: what the table has stays.
    Unclear(Problem),
    /// There is none, and there can be none.
    Nobody(Problem),
}

async fn find(pass: &Pass<'_>, user: &RotatedUser) -> Found {
    let secret = pass.registry.name.login(&user.name);
    let standing = pass.ctx.engine.known_standing(&pass.owner, kinds::SECRET, &secret, Hold::Disposable).await;
    let (live, is_ours) = match standing {
        Err(error) => return Found::Unclear(pass.problem(error)),
        Ok(Standing::Absent) => return Found::Absent,
        Ok(Standing::Foreign(claim)) => {
            return Found::Nobody(pass.problem(pass.not_ours(kinds::SECRET, &secret, claim)));
        }
        Ok(Standing::Ours(live) | Standing::Offered(live)) => (live, true),
        Ok(Standing::Leaving(live)) => (live, false),
    };
    let Some(login) = read(&live, &user.name) else {
        let words = format!(
            "Secret {secret} holds no password of 8 to 72 bytes under the key password; put one there, or delete the Secret for a new login; until then \
             user {} logs in as before",
            user.name
        );
        return Found::Unclear(Problem::stuck("LoginUnreadable", words));
    };
    let recall = &pass.ctx.recall;
    let login =
        if is_ours { recall.login_as_written(pass.key, &user.name, live.uid(), login, pass.now) } else { login };
    let asked = live.annotation(annotation::ROTATE).map(cut);
    let rotation = Rotation { user: user.clone(), secret, login, asked, is_ours, is_cut: false };
    if is_ours {
        return Found::Login(rotation);
    }
    // Its password holds while it is there.
    let problem = being_deleted(&format!("Secret {}", rotation.secret), "when it is gone, a new login is made");
    Found::Hindered(rotation, problem)
}

async fn make(pass: &Pass<'_>, user: &RotatedUser) -> Found {
    let password = match generated::admin_password() {
        Ok(password) => password,
        Err(error) => return Found::Nobody(pass.problem(error)),
    };
    let login = RotatedLogin::first(&user.name, password, whole(pass.now));
    let secret = pass.registry.name.login(&user.name);
    match write(pass, user, &login).await {
        Ok(written) => {
            written.found(Rotation { user: user.clone(), secret, login, asked: None, is_ours: true, is_cut: false })
        }
        Err(problem) => Found::Nobody(problem),
    }
}

/// Takes the step that is due, or sees to the Secret's labels.
async fn advance(pass: &Pass<'_>, rotation: Rotation, table: &StoredTable, is_followed: bool) -> Found {
    let step = rotation::step(&rotation.facts(pass, table, is_followed), pass.now);
    let wanted = match rotation.after(step, pass) {
        Ok(wanted) => wanted,
        Err(error) => return Found::Hindered(rotation, pass.problem(error)),
    };
    match write(pass, &rotation.user, &wanted).await {
        Ok(written) => {
            let has_happened = written.login.password.expose() == wanted.password.expose();
            if has_happened && matches!(step, Step::Show | Step::Replace) {
                tell(pass, &rotation, step).await;
            }
            written.found(rotation)
        }
        Err(problem) => Found::Hindered(rotation, problem),
    }
}

/// What is stored after a write.
struct Written {
    login: RotatedLogin,
    /// Whether something of it did not arrive, or waits because somebody takes it away each time.
    is_cut: bool,
    /// What nobody else tells of that.
    problem: Option<Problem>,
}

impl Written {
    fn found(self, rotation: Rotation) -> Found {
        let rotation = Rotation { login: self.login, is_cut: self.is_cut, ..rotation };
        match self.problem {
            Some(problem) => Found::Hindered(rotation, problem),
            None => Found::Login(rotation),
        }
    }
}

/// What is stored then: what somebody else changes back each time is not what was to be written.
async fn write(pass: &Pass<'_>, user: &RotatedUser, login: &RotatedLogin) -> Result<Written, Problem> {
    let secret = pass.registry.name.login(&user.name);
    let applied = pass.apply(desired::secrets::login(pass.registry, &user.name, login)).await;
    let applied = applied.map_err(|error| pass.problem(error))?;
    let stored = read(&applied.live, &user.name).filter(|_| applied.outcome != Outcome::Replacing);
    let stored = stored.ok_or_else(|| {
        let words = format!("Secret {secret} is being deleted, or was changed meanwhile; it is tried again");
        Problem::retrying(reason::BEING_DELETED, words)
    })?;
    if matches!(applied.outcome, Outcome::Created | Outcome::Changed | Outcome::Recreated) {
        pass.ctx.recall.wrote_login(pass.key, &user.name, applied.live.uid(), login, pass.now);
    }
    // A fight is told by whoever notices it. What never arrives is none.
    let is_cut = stored.lacks(login);
    let problem = (is_cut && applied.contested.is_none()).then(|| {
        let words = format!(
            "an admission webhook or policy takes keys out of Secret {secret} (next-password or handled); let it leave this Secret alone. Until \
             then the login of user {} is not exchanged",
            user.name
        );
        Problem::stuck("Contested", words)
    });
    Ok(Written { login: stored, is_cut, problem })
}

/// A login that ended, or will, is worth an event.
async fn tell(pass: &Pass<'_>, rotation: &Rotation, step: Step) {
    let (user, secret) = (&rotation.user.name, &rotation.secret);
    let former = match step {
        Step::Replace => "every former one has ended".to_owned(),
        _ => format!("the former one counts for {:#} more", rotation.user.overlap),
    };
    let switched = Happening {
        tone: Tone::Normal,
        reason: reason::LOGIN_SWITCHED.to_owned(),
        action: condition::USERS_READY.to_owned(),
        note: format!("Secret {secret} and the pull Secrets show another login of user {user}; {former}"),
    };
    pass.ctx.events.publish(&pass.manifest.object_ref(&()), &[switched]).await;
}

/// What a Secret holds, if that can log in.
fn read(live: &Live, user: &str) -> Option<RotatedLogin> {
    let text = |key: &str| live.data(key).and_then(|bytes| String::from_utf8(bytes).ok());
    let [username, password, since, next, former, former_since, handled] = LOGIN_KEYS.map(text);
    let legal = |password: Option<String>| -> Option<Sensitive<String>> {
        password.filter(|password| Password::new(password.as_bytes()).is_ok()).map(Sensitive::new)
    };
    let time = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let second = second_name(user);
    Some(RotatedLogin {
        username: username.filter(|name| *name == second).unwrap_or_else(|| user.to_owned()),
        password: legal(password)?,
        since: time(since),
        next: legal(next),
        former: legal(former).map(|password| FormerPassword { password, since: time(former_since) }),
        handled,
        kind: live.at("type").and_then(Value::as_str).unwrap_or(AdminLogin::KIND).to_owned(),
    })
}

fn cut(asked: &str) -> String {
    let mut end = asked.len().min(ASKED_AT_MOST);
    while !asked.is_char_boundary(end) {
        end -= 1;
    }
    asked[..end].to_owned()
}

impl Rotation {
    /// The line of the table that is not the shown login's.
    fn other_line(&self) -> String {
        let name = &self.user.name;
        if self.login.username == *name { second_name(name) } else { name.clone() }
    }

    fn facts(&self, pass: &Pass<'_>, table: &StoredTable, is_followed: bool) -> Facts {
        let login = &self.login;
        let next = match (&login.next, self.other()) {
            (Some(_), Some(next)) => table.since(&next).map_or(Next::Stored, Next::InTable),
            _ => Next::None,
        };
        Facts {
            since: login.since,
            next,
            former: self.former(),
            asked: Asked::of(self.asked.as_deref(), login.handled.as_deref()),
            is_followed,
            every: self.user.every,
            overlap: self.user.overlap,
            lead: SignedDuration::try_from(pass.ctx.settings.login_lead).unwrap_or_default(),
        }
    }

    fn former(&self) -> Former {
        match &self.login.former {
            None => Former::None,
            Some(former) => former.since.map_or(Former::Needed, Former::Counting),
        }
    }

    /// What is stored after a step.
    fn after(&self, step: Step, pass: &Pass<'_>) -> Result<RotatedLogin, Error> {
        let login = self.login.clone();
        let now = Some(whole(pass.now));
        let handled = || self.asked.clone().or_else(|| login.handled.clone());
        Ok(match step {
            Step::Keep => login,
            Step::Make => RotatedLogin { handled: handled(), next: Some(generated::admin_password()?), ..login },
            Step::Show => {
                // Where the sidecar looks at passwords, both are of one name.
                let has_one_name = pass.registry.policy().is_some();
                let username = if has_one_name { self.user.name.clone() } else { self.other_line() };
                let handled = handled();
                RotatedLogin {
                    username,
                    password: match login.next {
                        Some(next) => next,
                        None => generated::admin_password()?,
                    },
                    since: now,
                    next: None,
                    former: Some(FormerPassword { password: login.password, since: None }),
                    handled,
                    kind: login.kind,
                }
            }
            Step::End => RotatedLogin { former: None, ..login },
            Step::Replace => RotatedLogin {
                handled: handled(),
                password: generated::admin_password()?,
                since: now,
                next: None,
                former: None,
                ..login
            },
        })
    }

    /// The login that is shown, as a line of the table.
    fn shown(&self) -> Wanted {
        self.line(self.login.username.clone(), self.other_line(), &self.login.password)
    }

    /// The one that is to follow, or that was shown before.
    fn other(&self) -> Option<Wanted> {
        let former = self.login.former.as_ref().map(|former| &former.password);
        let password = former.or(self.login.next.as_ref())?;
        Some(self.line(self.other_line(), self.login.username.clone(), password))
    }

    fn line(&self, name: String, other: String, password: &Sensitive<String>) -> Wanted {
        let source = Source {
            kind: SourceKind::Users,
            secret: self.secret.clone(),
            key: "password".to_owned(),
            uid: String::new(),
            // Not the Secret's version: whoever labels it changes no password.
            version: sha256(password.expose().as_bytes()),
        };
        let password = password.expose().as_bytes().to_vec().into();
        Wanted { name, source, login: Login::OneOfTwo { password, other } }
    }

    /// When the next login is shown, and until when the former one counts.
    fn times(&self) -> Option<UserRotationStatus> {
        let after =
            |since: Timestamp, long: SignedDuration| since.saturating_add(long).unwrap_or(Timestamp::MAX).to_string();
        let counting = self.login.former.as_ref().and_then(|former| former.since);
        Some(UserRotationStatus {
            next: after(self.login.since?, self.user.every),
            former_ends_at: counting.map(|since| after(since, self.user.overlap)),
        })
    }
}

impl Rotations {
    fn of(registry: &Resolved) -> Self {
        let users = registry.rotated_users().iter();
        let second_names = users.map(|user| (second_name(&user.name), user.name.clone())).collect();
        Self { second_names, ..Self::default() }
    }

    fn add(&mut self, user: &RotatedUser, secret: String, found: Found) {
        let (rotation, problem) = match found {
            Found::Absent => return,
            Found::Login(rotation) => (Some(rotation), None),
            Found::Hindered(rotation, problem) => (Some(rotation), Some(problem)),
            Found::Unclear(problem) => {
                self.unclear.push((user.clone(), secret));
                (None, Some(problem))
            }
            Found::Nobody(problem) => (None, Some(problem)),
        };
        self.known.extend(rotation);
        self.problems.extend(problem);
    }

    /// Whether somebody of them can log in.
    pub(super) fn has_logins(&self) -> bool {
        !self.known.is_empty() || !self.unclear.is_empty()
    }

    /// Whether it cannot be said of somebody what his login is.
    pub(super) fn is_open(&self) -> bool {
        !self.unclear.is_empty()
    }

    /// Whose second name this is.
    pub(super) fn whose(&self, name: &str) -> Option<&String> {
        self.second_names.get(name)
    }

    /// Every line of the table that is to be there. `stored`: who is in it now.
    pub(super) fn lines(&self, stored: &BTreeSet<String>) -> Vec<Wanted> {
        let known = self.known.iter().flat_map(|rotation| [Some(rotation.shown()), rotation.other()]).flatten();
        let unclear = self.unclear.iter().flat_map(|(user, secret)| {
            let names = [user.name.clone(), second_name(&user.name)].into_iter().filter(|name| stored.contains(name));
            names.map(|name| {
                let source = Source {
                    kind: SourceKind::Users,
                    secret: secret.clone(),
                    key: "password".to_owned(),
                    uid: String::new(),
                    version: String::new(),
                };
                Wanted { name, source, login: Login::AsStored }
            })
        });
        known.chain(unclear).collect()
    }

    /// Lines that are a second password of a user, with the user's name, as far as they are in the table.
    pub(super) fn second_lines(&self, in_table: impl Fn(&str, &str) -> bool) -> BTreeMap<String, String> {
        let lines = self.second_names.iter().filter(|(line, user)| in_table(line, user));
        lines.map(|(line, user)| (line.clone(), user.clone())).collect()
    }

    /// The name that a user is shown to log in with; `None`: he is none of these, or it is not known.
    pub(super) fn shown_name(&self, user: &str) -> Option<&str> {
        let rotation = self.known.iter().find(|rotation| rotation.user.name == user)?;
        Some(&rotation.login.username)
    }

    /// The users among those who are in the table, each once.
    pub(super) fn statuses(&self, registry: &Resolved, table: &[UserFact]) -> Vec<UserStatus> {
        let fact = |name: &str| table.iter().find(|fact| fact.name.as_str() == name);
        let users = registry.rotated_users().iter().filter_map(|user| {
            let rotation = self.known.iter().find(|rotation| rotation.user == *user);
            let line = match rotation {
                Some(rotation) => fact(&rotation.login.username)?,
                None => fact(&user.name).or_else(|| fact(&second_name(&user.name)))?,
            };
            let since = rotation.and_then(|rotation| rotation.login.since).unwrap_or(line.changed_at);
            Some(UserStatus {
                name: user.name.clone(),
                source: UserSource {
                    kind: UserSourceKind::Users,
                    name: registry.name.login(&user.name),
                    key: "password".to_owned(),
                },
                changed_at: Some(since.to_string()),
                rotation: rotation.and_then(Rotation::times),
            })
        });
        users.collect()
    }

    /// Whether a line of the table is of one of them.
    pub(super) fn has_line(&self, registry: &Resolved, name: &str) -> bool {
        self.second_names.contains_key(name) || registry.rotated_users().iter().any(|user| user.name == name)
    }

    /// The earliest time at which a step is due. `table`: as it is stored now.
    pub(super) fn look_again(&self, pass: &Pass<'_>, table: &StoredTable, is_followed: bool) -> Option<Timestamp> {
        let looks = self.known.iter().filter(|rotation| rotation.is_ours && !rotation.is_cut).filter_map(|rotation| {
            let facts = rotation.facts(pass, table, is_followed);
            // One step a pass.
            let is_due = rotation::step(&facts, pass.now) != Step::Keep;
            if is_due { Some(pass.now) } else { rotation::look_again(&facts, pass.now) }
        });
        looks.min()
    }

    /// Whether somebody's former login waits until its time counts.
    pub(super) fn wait_to_count(&self, now: Timestamp) -> bool {
        let waits = |rotation: &Rotation| rotation.is_ours && rotation::counts_from_now(rotation.former(), now);
        self.known.iter().any(waits)
    }

    /// The time of former logins counts from now on, but of those whose present ones not every pull Secret is known to show. Gives when the first of them
    /// is over.
    pub(super) async fn count(
        &mut self,
        pass: &Pass<'_>,
        users: &mut [UserStatus],
        untold: &Untold,
    ) -> (Option<Timestamp>, Vec<Problem>) {
        let (mut look_again, mut problems) = (None, Vec::new());
        for rotation in self.known.iter_mut().filter(|rotation| rotation.is_ours) {
            if untold.has(&rotation.user.name) || !rotation::counts_from_now(rotation.former(), pass.now) {
                continue;
            }
            let Some(former) = rotation.login.former.clone() else { continue };
            let former = FormerPassword { since: Some(whole(pass.now)), ..former };
            let wanted = RotatedLogin { former: Some(former), ..rotation.login.clone() };
            match write(pass, &rotation.user, &wanted).await {
                Ok(written) => {
                    rotation.login = written.login;
                    problems.extend(written.problem);
                }
                Err(problem) => problems.push(problem),
            }
            if let Some(user) = users.iter_mut().find(|user| user.name == rotation.user.name) {
                user.rotation = rotation.times();
            }
            let over = whole(pass.now).saturating_add(rotation.user.overlap).unwrap_or(Timestamp::MAX);
            look_again = look_again.into_iter().chain([over]).min();
        }
        (look_again, problems)
    }
}
