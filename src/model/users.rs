//! Who may log in, as far as the manifest and the Secrets that it names tell: candidates, what is missing, what is refused. Each
//! user by itself: a fault of one is a line in the condition and stops nobody else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::resolved::{Admin, Fault, RotatedUser, TrustedIssuer, Users};
use super::{Observed, SecretContent};
use crate::access::expressions;
use crate::access::issuer::{self, Issuer};
use crate::access::{Action, Policy, RepositoryGlob, Rule};
use crate::api::{
    AuthSpec, GoDuration, HtpasswdSecretRef, IssuerSpec, RuleAction, RuleSpec, TeamSpec, TokenSpec, UserRotation,
    UserSpec,
};
use crate::credentials::{DEAREST, Login, Source, SourceKind, Wanted, given};

/// Users that are looked at, twice as many as a table holds: lines of an htpasswd file are short.
const CANDIDATES: usize = 10_000;
/// Flawed lines of one file that are told.
const FLAWS: usize = 20;
/// Bytes of teams and rules: they lie beside the table of users, in one Secret.
const POLICY: usize = 256 << 10;
const DEFAULT_ADMIN: &str = "admin";
const DEFAULT_COST: u32 = 5;
const PASSWORD_KEY: &str = "password";
/// Shorter, a login would be exchanged more often than clients read it.
const SHORTEST_ROTATION: SignedDuration = SignedDuration::from_hours(1);
const SHORTEST_OVERLAP: SignedDuration = SignedDuration::from_mins(1);
const DEFAULT_OVERLAP: SignedDuration = SignedDuration::from_hours(24);
/// From the end of a former login to the beginning of the next one.
const ROOM: SignedDuration = SignedDuration::from_mins(10);
/// Keys that are looked for where the manifest names none: ours, and the one of ingress controllers.
pub const HTPASSWD_KEYS: [&str; 2] = ["htpasswd", "auth"];

/// Looks up every reference.
pub(super) fn users(spec: Option<&AuthSpec>, observed: &Observed) -> Users {
    let spec = spec.cloned().unwrap_or_default();
    if spec.none.is_some() {
        return Users::Everybody;
    }
    let admin = spec.admin.unwrap_or_default();
    let mut found = Found {
        observed,
        candidates: Vec::new(),
        missing: Vec::new(),
        unread: Vec::new(),
        faults: Vec::new(),
        is_full: false,
        has_tokens: spec.token.is_some(),
        rotated_lines: BTreeMap::new(),
    };
    let rotated = rotated(&spec.users, &mut found.faults);
    let lines = rotated
        .iter()
        .flat_map(|user| [user.name.clone(), second_name(&user.name)].map(|line| (line, user.name.clone())));
    found.rotated_lines = lines.collect();
    for user in &spec.users {
        let Some(reference) = &user.password_secret_ref else { continue };
        let key = reference.key.as_deref().unwrap_or(PASSWORD_KEY);
        found.password(&user.name, &reference.name, key);
    }
    for from in spec.users_from {
        if let Some(secret) = &from.secret_ref {
            found.passwords(&secret.name);
        }
        if let Some(reference) = &from.htpasswd_secret_ref {
            found.lines(reference);
        }
    }
    let policy = spec.token.as_ref().map(|spec| Box::new(policy(spec, &mut found.faults)));
    let token = spec.token.unwrap_or_default();
    let issuers = issuers(token.issuers, &mut found.faults);
    Users::Table {
        policy,
        cluster_audience: token.kubernetes.map(|spec| spec.audience),
        issuers,
        candidates: found.candidates,
        rotated,
        missing: found.missing,
        unread: found.unread,
        faults: found.faults,
        admin: Box::new(Admin {
            generate: admin.generate.unwrap_or_default(),
            username: admin.username.unwrap_or_else(|| DEFAULT_ADMIN.to_owned()),
        }),
        cost: spec.htpasswd.unwrap_or_default().bcrypt_cost.unwrap_or(DEFAULT_COST),
    }
}

/// Those whose passwords the operator makes itself, each by itself. Admission refuses the others; only a cluster with an older definition can let one through.
fn rotated(users: &[UserSpec], faults: &mut Vec<Fault>) -> Vec<RotatedUser> {
    let mut rotated = Vec::new();
    for (user, rotation) in users.iter().filter_map(|user| Some((user, user.rotation.as_ref()?))) {
        match followed(user, rotation) {
            Ok(followed) => rotated.push(followed),
            Err(why) => faults
                .push(Fault { reason: "InvalidManifest", message: format!("spec.auth.users, {:?}: {why}", user.name) }),
        }
    }
    rotated
}

fn followed(user: &UserSpec, rotation: &UserRotation) -> Result<RotatedUser, String> {
    if user.password_secret_ref.is_some() {
        return Err("has both passwordSecretRef and rotation; remove one of the two".to_owned());
    }
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = &user.name;
    if name.is_empty() || name.len() > 63 || !name.bytes().all(is_plain) || name.starts_with('-') || name.ends_with('-')
    {
        return Err(
            "a user with rotation is called by lower-case letters, digits and '-', at most 63; choose another name"
                .to_owned(),
        );
    }
    let read = |field: &str, given: &GoDuration, least: SignedDuration| {
        let seconds = given.seconds().and_then(|seconds| i64::try_from(seconds).ok());
        let read = seconds.map(SignedDuration::from_secs).filter(|read| *read >= least);
        read.ok_or_else(|| {
            format!("rotation.{field}: {:?} is no duration of at least {least:#}; write for instance 720h", given.0)
        })
    };
    let every = read("every", &rotation.every, SHORTEST_ROTATION)?;
    let overlap = match &rotation.overlap {
        Some(given) => read("overlap", given, SHORTEST_OVERLAP)?,
        None => DEFAULT_OVERLAP.min(every / 2),
    };
    if overlap + ROOM > every {
        return Err("rotation.overlap must be at least 10m shorter than every; shorten it".to_owned());
    }
    Ok(RotatedUser { name: name.clone(), every, overlap })
}

/// The name of a rotated user's second login: the registry's file has one line for each name.
#[must_use]
pub fn second_name(user: &str) -> String {
    format!("{user}.2")
}

/// Issuers whose expressions can be understood. Of the others no token counts, and they are told.
fn issuers(given: Vec<IssuerSpec>, faults: &mut Vec<Fault>) -> Vec<TrustedIssuer> {
    let mut trusted = Vec::new();
    for (number, spec) in given.into_iter().enumerate() {
        let mapping = spec.claim_mapping.unwrap_or_default();
        let login = Issuer {
            audience: spec.audience,
            user: mapping.user.unwrap_or_else(|| issuer::SUBJECT.to_owned()),
            groups: mapping.groups,
            has_file: spec.jwks_config_map_ref.is_some(),
            authority: spec.certificate_authority,
            name: spec.name,
            url: spec.issuer,
        };
        let expressions = [("user", Some(&login.user)), ("groups", login.groups.as_ref())];
        let flaw = expressions.into_iter().find_map(|(field, text)| Some((field, expressions::check(text?).err()?)));
        if let Some((field, why)) = flaw {
            faults.push(Fault {
                reason: "IssuerInvalid",
                message: format!(
                    "spec.auth.token.issuers, {}: claimMapping.{field} cannot be understood as CEL ({why}); its tokens count when that is corrected",
                    login.name
                ),
            });
            continue;
        }
        let keys =
            spec.jwks_config_map_ref.map(|map| (map.name, map.key.unwrap_or_else(|| issuer::KEYS_FILE.to_owned())));
        trusted.push(TrustedIssuer { number, login, keys });
    }
    trusted
}

/// Teams and rules. A rule that cannot be followed allows nothing, and is told.
fn policy(spec: &TokenSpec, faults: &mut Vec<Fault>) -> Policy {
    let members = |of: fn(&TeamSpec) -> &Vec<String>| {
        let teams = spec.teams.iter().filter(|team| !of(team).is_empty());
        teams.map(|team| (team.name.clone(), of(team).iter().cloned().collect())).collect()
    };
    let (teams, groups) = (members(|team| &team.users), members(|team| &team.groups));
    faults.extend(unknown_issuers(spec));
    let mut followed = |(number, given)| match rule(given) {
        Ok(rule) => Some(rule),
        Err(why) => {
            faults.push(Fault {
                reason: "RuleInvalid",
                message: format!("spec.auth.token.rules[{number}] {why}; it allows nothing until it is corrected"),
            });
            None
        }
    };
    let rules = spec.rules.iter().enumerate().map(&mut followed).collect();
    let policy = Policy { administrators: BTreeSet::new(), teams, groups, rules };
    let size = serde_json::to_vec(&policy).map_or(usize::MAX, |text| text.len());
    if size <= POLICY {
        return policy;
    }
    faults.push(Fault {
        reason: "RulesTooLarge",
        message: format!(
            "spec.auth.token: teams and rules have {size} bytes, of {POLICY} that there is room for, and none of them counts; name fewer users in teams and rules"
        ),
    });
    Policy::default()
}

/// Users and groups of issuers that there are not.
fn unknown_issuers(spec: &TokenSpec) -> Option<Fault> {
    let of_teams = spec.teams.iter().flat_map(|team| team.users.iter().chain(&team.groups));
    let mut named = of_teams.chain(spec.rules.iter().flat_map(|rule| &rule.users));
    let is_unknown = |name: &&String| {
        name.split_once(':').is_some_and(|(issuer, _)| spec.issuers.iter().all(|known| known.name != issuer))
    };
    named.find(is_unknown).map(|name| Fault {
        reason: "IssuerUnknown",
        message: format!(
            "spec.auth.token names {name}, and no issuer of spec.auth.token.issuers has the name before the colon; add it there, or correct the name"
        ),
    })
}

fn rule(given: &RuleSpec) -> Result<Rule, String> {
    let pattern = |text: &String| RepositoryGlob::parse(text).map_err(|error| format!("has {text:?}, which {error}"));
    Ok(Rule {
        users: given.users.iter().cloned().collect(),
        teams: given.teams.iter().cloned().collect(),
        anonymous: given.anonymous.unwrap_or(false),
        repositories: given.repositories.iter().map(pattern).collect::<Result<_, _>>()?,
        actions: given.actions.iter().copied().map(action).collect(),
    })
}

fn action(given: RuleAction) -> Action {
    match given {
        RuleAction::Pull => Action::Pull,
        RuleAction::Push => Action::Push,
        RuleAction::Delete => Action::Delete,
        RuleAction::Catalog => Action::Catalog,
    }
}

/// The rules of a manifest, for those who explain them without a cluster's Secrets, and what is wrong with some of them.
#[must_use]
pub fn rules_of(spec: &TokenSpec) -> (Policy, Vec<Fault>) {
    let mut faults = Vec::new();
    (policy(spec, &mut faults), faults)
}

struct Found<'a> {
    observed: &'a Observed,
    candidates: Vec<Wanted>,
    missing: Vec<String>,
    unread: Vec<String>,
    faults: Vec<Fault>,
    /// Whether it was said that no more users are taken.
    is_full: bool,
    /// Whether passwords are looked at by the sidecar alone.
    has_tokens: bool,
    /// Names that rotated users log in with in turn, and whose each is.
    rotated_lines: BTreeMap<String, String>,
}

impl<'a> Found<'a> {
    fn secret(&mut self, name: &str) -> Option<&'a SecretContent> {
        let content = self.observed.secrets.get(name).and_then(Option::as_ref);
        if self.observed.unread.contains(name) {
            self.unread.push(name.to_owned());
        } else if self.observed.oversized.contains(name) {
            self.faults.push(Fault {
                reason: "SecretsTooLarge",
                message: format!(
                    "Secret {name}: the Secrets of this registry's users have more than 2 MiB together, and nobody of this one is let in; take out what is no password, or spread the users over several registries"
                ),
            });
        } else if content.is_none() {
            self.missing.push(format!("Secret {name} does not exist; create it"));
        }
        content
    }

    /// One user, one key.
    fn password(&mut self, user: &str, secret: &str, key: &str) {
        let Some(content) = self.secret(secret) else { return };
        match content.data.get(key) {
            Some(password) => self.candidate(Wanted {
                name: user.to_owned(),
                source: source(SourceKind::Users, secret, key, content),
                login: Login::Password(password.clone()),
            }),
            None => self.missing.push(format!("Secret {secret} has no key {key} for user {user}; add it")),
        }
    }

    /// Every key a user. The keys of Kubernetes' own types are no users: `username` of a basic-auth Secret would log in with its own
    /// name.
    fn passwords(&mut self, secret: &str) {
        let Some(content) = self.secret(secret) else { return };
        if content.kind.starts_with("kubernetes.io/") {
            self.faults.push(Fault {
                reason: "SecretTypeRefused",
                message: format!(
                    "Secret {secret} in auth.usersFrom is of type {}, whose keys are no users' names; use auth.users[].passwordSecretRef for a single user, or a Secret of type Opaque",
                    content.kind
                ),
            });
            return;
        }
        for (user, password) in &content.data {
            self.candidate(Wanted {
                name: user.clone(),
                source: source(SourceKind::UsersFrom, secret, user, content),
                login: Login::Password(password.clone()),
            });
        }
    }

    /// Lines of an htpasswd file.
    fn lines(&mut self, reference: &HtpasswdSecretRef) {
        let Some(content) = self.secret(&reference.name) else { return };
        let keys = reference.key.as_deref().map_or(HTPASSWD_KEYS.to_vec(), |key| vec![key]);
        let Some((key, text)) = keys.iter().find_map(|key| Some((*key, content.data.get(*key)?))) else {
            let keys = keys.join(" or ");
            self.missing.push(format!("Secret {} has no key {keys} with lines of htpasswd; add it", reference.name));
            return;
        };
        let mut flaws = 0;
        for line in given::lines(text.expose()) {
            match line {
                Ok((user, hash)) if self.has_tokens && hash.cost() > DEAREST => self.faults.push(Fault {
                    reason: "HashTooDear",
                    message: format!(
                        "Secret {}, key {key}: the hash of user {user} has cost {}, and with spec.auth.token those up to {DEAREST} are looked at; make the line anew with htpasswd -B -C 10",
                        reference.name,
                        hash.cost()
                    ),
                }),
                Ok((user, hash)) => {
                    let source = source(SourceKind::UsersFrom, &reference.name, key, content);
                    self.candidate(Wanted { name: user.to_string(), source, login: Login::Hash(hash) });
                }
                Err(flawed) if flaws < FLAWS => {
                    flaws += 1;
                    self.faults.push(Fault {
                        reason: flawed.reason(),
                        message: format!("Secret {}, key {key}, {flawed}", reference.name),
                    });
                }
                Err(_) => {}
            }
        }
    }

    fn candidate(&mut self, wanted: Wanted) {
        if let Some(owner) = self.rotated_lines.get(&wanted.name) {
            self.faults.push(Fault {
                reason: "UserDuplicate",
                message: format!(
                    "user {:?} ({}): user {owner}, who has spec.auth.users[].rotation, logs in by this name every other time; give this one another name",
                    wanted.name, wanted.source
                ),
            });
            return;
        }
        if self.candidates.len() < CANDIDATES {
            self.candidates.push(wanted);
        } else if !self.is_full {
            self.is_full = true;
            self.faults.push(Fault {
                reason: "TooManyUsers",
                message: format!(
                    "there are more than {CANDIDATES} users; user {} and those after it, of Secret {}, are not let in; remove users from auth.usersFrom",
                    wanted.name, wanted.source.secret
                ),
            });
        }
    }
}

fn source(kind: SourceKind, secret: &str, key: &str, content: &SecretContent) -> Source {
    Source {
        kind,
        secret: secret.to_owned(),
        key: key.to_owned(),
        uid: content.uid.clone(),
        version: content.resource_version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LINE: &str = "ann:$2y$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";

    fn secret(kind: &str, data: &[(&str, &str)]) -> SecretContent {
        SecretContent {
            uid: "uid".to_owned(),
            kind: kind.to_owned(),
            resource_version: "1".to_owned(),
            data: data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect(),
        }
    }

    struct Read {
        names: Vec<String>,
        missing: Vec<String>,
        faults: Vec<Fault>,
    }

    fn read(auth: &Value, secrets: Vec<(&str, Option<SecretContent>)>) -> Read {
        let secrets = secrets.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
        let auth = serde_json::from_value(auth.clone()).unwrap();
        let observed = Observed { secrets, ..Observed::default() };
        let Users::Table { candidates, missing, faults, .. } = users(Some(&auth), &observed) else { panic!() };
        Read { names: candidates.into_iter().map(|user| user.name).collect(), missing, faults }
    }

    #[test]
    fn a_missing_password_stops_one_user_and_nobody_else() {
        let user = |name: &str| json!({"name": name, "passwordSecretRef": {"name": name}});
        let auth =
            json!({"users": [user("ann"), user("bob"), user("eve")], "usersFrom": [{"secretRef": {"name": "team"}}]});
        let found = read(
            &auth,
            vec![
                ("ann", Some(secret("Opaque", &[("password", "correct horse")]))),
                ("bob", Some(secret("Opaque", &[("passwort", "x")]))),
                ("eve", None),
                ("team", Some(secret("Opaque", &[("carl", "one two three"), ("dora", "four five six")]))),
            ],
        );
        assert_eq!(found.names, ["ann", "carl", "dora"]);
        assert_eq!(
            found.missing,
            ["Secret bob has no key password for user bob; add it", "Secret eve does not exist; create it"]
        );
    }

    #[test]
    fn a_rotated_user_has_a_login_of_its_own_and_nobody_else_its_second_name() {
        let rotated = |name: &str, rotation: Value| json!({"name": name, "rotation": rotation});
        let auth = json!({
            "users": [rotated("robot", json!({"every": "720h"})), {"name": "robot.2", "passwordSecretRef": {"name": "one"}},
                {"name": "robot.3", "passwordSecretRef": {"name": "one"}}],
            "usersFrom": [{"secretRef": {"name": "many"}}],
        });
        let one = Some(secret("Opaque", &[("password", "correct horse")]));
        let many = Some(secret("Opaque", &[("robot.2", "correct horse"), ("ann", "correct horse")]));
        let found = read(&auth, vec![("one", one), ("many", many)]);
        assert_eq!(found.names, ["robot.3", "ann"]);
        let reasons: Vec<_> = found.faults.iter().map(|fault| fault.reason).collect();
        assert_eq!(reasons, ["UserDuplicate", "UserDuplicate"]);
        assert!(found.faults[0].message.contains("user robot, who has"), "{:?}", found.faults);

        let hours = SignedDuration::from_hours;
        for (name, rotation, becomes) in [
            ("robot", json!({"every": "720h"}), Ok((hours(720), hours(24)))),
            ("robot", json!({"every": "2h"}), Ok((hours(2), hours(1)))),
            ("robot", json!({"every": "2h", "overlap": "1h50m"}), Ok((hours(2), SignedDuration::from_mins(110)))),
            ("robot", json!({"every": "2h", "overlap": "1h50m1s"}), Err("10m shorter")),
            ("robot", json!({"every": "59m"}), Err("rotation.every")),
            ("robot", json!({"every": "30d"}), Err("rotation.every")),
            ("robot", json!({"every": "2h", "overlap": "59s"}), Err("rotation.overlap")),
            ("Robot", json!({"every": "2h"}), Err("another name")),
            ("robot.x", json!({"every": "2h"}), Err("another name")),
            (&"r".repeat(64), json!({"every": "2h"}), Err("another name")),
        ] {
            let auth = serde_json::from_value(json!({"users": [rotated(name, rotation.clone())]})).unwrap();
            let Users::Table { rotated, faults, .. } = users(Some(&auth), &Observed::default()) else { panic!() };
            let found = rotated.first().map(|user| (user.every, user.overlap));
            assert_eq!(found, becomes.ok(), "{name} {rotation}");
            let said = faults.first().map(|fault| fault.message.as_str()).unwrap_or_default();
            assert!(becomes.is_ok() && faults.is_empty() || becomes.is_err_and(|words| said.contains(words)), "{said}");
        }
    }

    #[test]
    fn nobody_is_let_in_from_a_secret_that_has_no_place() {
        let auth = json!({"usersFrom": [{"secretRef": {"name": "team"}}, {"secretRef": {"name": "huge"}}]});
        let team = Some(secret("Opaque", &[("carl", "one two three")]));
        let observed = Observed {
            secrets: [("team".to_owned(), team)].into(),
            oversized: ["huge".to_owned()].into(),
            ..Observed::default()
        };
        let auth = serde_json::from_value(auth).unwrap();
        let Users::Table { candidates, faults, missing, .. } = users(Some(&auth), &observed) else { panic!() };
        assert_eq!(candidates.into_iter().map(|user| user.name).collect::<Vec<_>>(), ["carl"]);
        assert_eq!((faults[0].reason, faults.len(), missing.len()), ("SecretsTooLarge", 1, 0));
        assert!(faults[0].message.contains("Secret huge"));
    }

    #[test]
    fn what_is_kept_of_a_file_is_bounded_whatever_is_in_it() {
        let auth = json!({"usersFrom": [{"htpasswdSecretRef": {"name": "file"}}]});
        let hash = LINE.split_once(':').unwrap().1;
        let crowd: String = (0..=CANDIDATES).map(|number| format!("u{number}:{hash}\n")).collect();
        let found = read(&auth, vec![("file", Some(secret("Opaque", &[("htpasswd", &crowd)])))]);
        assert_eq!((found.names.len(), found.faults.len(), found.faults[0].reason), (CANDIDATES, 1, "TooManyUsers"));
        assert!(found.faults[0].message.contains(&format!("user u{CANDIDATES} ")), "{}", found.faults[0].message);

        let flawed = format!("{}{LINE}\n", "x\n".repeat(1_000));
        let found = read(&auth, vec![("file", Some(secret("Opaque", &[("htpasswd", &flawed)])))]);
        assert_eq!((found.names, found.faults.len()), (vec!["ann".to_owned()], FLAWS));
    }

    #[test]
    fn the_keys_of_a_basic_auth_secret_are_no_users() {
        let basic =
            || Some(secret("kubernetes.io/basic-auth", &[("username", "alice"), ("password", "correct horse")]));
        let found = read(&json!({"usersFrom": [{"secretRef": {"name": "alice"}}]}), vec![("alice", basic())]);
        assert!(found.names.is_empty(), "{:?}", found.names);
        assert_eq!(found.faults[0].reason, "SecretTypeRefused");
        assert!(found.faults[0].message.contains("passwordSecretRef"), "{:?}", found.faults);

        let one = json!({"users": [{"name": "alice", "passwordSecretRef": {"name": "alice"}}]});
        assert_eq!(read(&one, vec![("alice", basic())]).names, ["alice"]);
    }

    #[test]
    fn lines_of_htpasswd_are_taken_as_they_are_and_flawed_ones_told_by_their_number() {
        let text = format!("# ours\n\n{LINE}\nbob:$apr1$planted$secret\nplanted-secret\n");
        let by = |reference: Value| json!({"usersFrom": [{"htpasswdSecretRef": reference}]});
        for (key, reference) in [
            ("htpasswd", json!({"name": "old"})),
            ("auth", json!({"name": "old"})),
            ("mine", json!({"name": "old", "key": "mine"})),
        ] {
            let found = read(&by(reference), vec![("old", Some(secret("Opaque", &[(key, &text)])))]);
            assert_eq!(found.names, ["ann"], "{key}");
            let reasons: Vec<_> = found.faults.iter().map(|fault| fault.reason).collect();
            assert_eq!(reasons, ["HtpasswdHashUnsupported", "HtpasswdLineInvalid"]);
            let said = format!("{:?}", found.faults);
            assert!(said.contains("line 4") && said.contains("bob") && said.contains("line 5"), "{said}");
            assert!(!said.contains("planted"), "{said}");
        }
        let found = read(&by(json!({"name": "old"})), vec![("old", Some(secret("Opaque", &[("users", &text)])))]);
        assert_eq!(found.missing, ["Secret old has no key htpasswd or auth with lines of htpasswd; add it"]);
    }
}
