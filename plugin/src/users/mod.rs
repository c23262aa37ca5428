//! `users …`: who may log in. Works on the manifest and on the Secrets that it refers to; what of it is in force is what the operator says.

mod add;
mod list;
mod passwd;
mod remove;
mod rotate;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use private_registry_operator::api::condition::USERS_READY;
use private_registry_operator::api::{AuthSpec, PrivateRegistry, UserSource, UserSpec, UserStatus};
use private_registry_operator::credentials::{BcryptHash, Password, UserName, generated};
use private_registry_operator::desired::secrets::HTPASSWD_KEY;
use private_registry_operator::model::names::login_secret;
use private_registry_operator::model::{Child, HTPASSWD_KEYS};
use private_registry_operator::secret::Sensitive;
use serde_json::{Value, json};

use crate::change::{Look, said};
use crate::cluster::{MANAGER, Registry, explained};
use crate::shell;

/// What is done with users.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show who can log in, and where each password is.
    #[command(after_help = "Examples:\n  \
        kubectl registry users list team-a\n  \
        kubectl registry users list team-a -o json | jq -r '.[] | select(.canLogIn | not).name'")]
    List(list::Options),
    /// Let another user in.
    ///
    /// The password is asked for, read with --password-stdin, made with --generate, or lies in a Secret already (--from). It goes into a Secret of its own,
    /// and the user into spec.auth.users. Waits until the operator says that the user can log in.
    #[command(after_help = "Examples:\n  \
        kubectl registry users add team-a alice\n  \
        kubectl registry users add team-a ci --generate\n  \
        pass show team-a/ci | kubectl registry users add team-a ci --password-stdin\n  \
        kubectl registry users add team-a ci --from ci-login --key token --keep-admin")]
    Add(add::Options),
    /// Give a user another password, which is asked for, read with --password-stdin, or made with --generate.
    ///
    /// It is written into the Secret that the manifest names. The former one is refused from then on.
    #[command(after_help = "Examples:\n  \
        kubectl registry users passwd team-a alice\n  \
        pass show team-a/ci | kubectl registry users passwd team-a ci --password-stdin")]
    Passwd(passwd::Options),
    /// Give a user a new random password.
    ///
    /// It is not shown: a line says how to read it. Pull Secrets that the operator writes follow by themselves; whoever has logged in elsewhere has to do it
    /// again. The former password of a user with `rotation` counts for a while, and nobody's pull fails; with --now, because it may be in wrong hands, it ends
    /// at once. That of any other user always does.
    #[command(after_help = "Examples:\n  \
        kubectl registry users rotate team-a ci\n  \
        kubectl registry users rotate team-a robot --now --yes       # the password was stolen")]
    Rotate(rotate::Options),
    /// Let a user in no longer.
    ///
    /// The user goes from the manifest, or from the Secret that it names. A Secret that users add made goes, too. Waits until the operator says so.
    #[command(after_help = "Examples:\n  \
        kubectl registry users remove team-a alice\n  \
        kubectl registry users remove team-a ci --yes")]
    Remove(remove::Options),
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::List(options) => list::run(options),
        Command::Add(options) => add::run(options),
        Command::Passwd(options) => passwd::run(options),
        Command::Rotate(options) => rotate::run(options),
        Command::Remove(options) => remove::run(options),
    }
}

/// Where a new password comes from. Never from an argument: those stand in the shell's history and in the list of processes.
#[derive(Debug, clap::Args)]
struct Given {
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Make a random one; it is not shown
    #[arg(long, conflicts_with = "password_stdin")]
    generate: bool,
}

impl Given {
    fn password(&self, user: &UserName, registry: &Registry) -> Result<Sensitive<String>> {
        let password = match () {
            () if self.generate => return Ok(generated::admin_password()?),
            () if self.password_stdin => shell::password_from_stdin()?,
            () => {
                let first = shell::ask_password(&format!("New password of {user} at {}:", registry.title()))?;
                if first != shell::ask_password("The same again:")? {
                    bail!("the two are not the same; nothing was changed");
                }
                first
            }
        };
        // What the operator would refuse is not written.
        Password::new(password.expose().as_bytes())?;
        Ok(password)
    }
}

fn user_name(text: &str) -> Result<UserName, String> {
    UserName::new(text).map_err(|rule| rule.to_string())
}

/// Where the password of a user is: Secret and key, and by which part of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    by: By,
    secret: String,
    key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// auth.users.
    Users,
    /// auth.usersFrom[].secretRef.
    Many,
    /// auth.usersFrom[].htpasswdSecretRef: a hash, and no password.
    Lines,
    /// The operator makes it, again and again: auth.users[].rotation.
    Rotation,
    /// The operator made it.
    Admin,
}

fn auth(found: &PrivateRegistry) -> AuthSpec {
    found.spec.auth.clone().unwrap_or_default()
}

fn secrets(registry: &Registry) -> Api<Secret> {
    Api::namespaced(registry.client.clone(), &registry.namespace)
}

async fn secret(registry: &Registry, name: &str) -> Result<Option<Secret>> {
    let found = secrets(registry).get_opt(name).await.map_err(explained);
    found.with_context(|| format!("read Secret {}/{name}", registry.namespace))
}

/// Finds a user as the operator does: the first of auth.users, then of auth.usersFrom; the generated admin last.
async fn find(registry: &Registry, found: &PrivateRegistry, user: &UserName) -> Result<Place> {
    let auth = auth(found);
    if auth.none.is_some() {
        bail!("{} has no users: its manifest says spec.auth.none", registry.title());
    }
    if let Some(one) = auth.users.iter().find(|one| one.name == user.as_str()) {
        return Ok(written_place(registry.name.as_str(), one));
    }
    for from in &auth.users_from {
        if let Some(many) = &from.secret_ref {
            let content = secret(registry, &many.name).await?.and_then(|secret| secret.data).unwrap_or_default();
            if content.contains_key(user.as_str()) {
                return Ok(Place { by: By::Many, secret: many.name.clone(), key: user.to_string() });
            }
        }
        if let Some(file) = &from.htpasswd_secret_ref {
            let content = secret(registry, &file.name).await?.and_then(|secret| secret.data).unwrap_or_default();
            let keys = file.key.as_deref().map_or(HTPASSWD_KEYS.to_vec(), |key| vec![key]);
            if let Some((key, text)) = keys.into_iter().find_map(|key| Some((key, content.get(key)?)))
                && String::from_utf8_lossy(&text.0).lines().any(|line| is_line_of(line, user))
            {
                return Ok(Place { by: By::Lines, secret: file.name.clone(), key: key.to_owned() });
            }
        }
    }
    if known(found, user).is_some_and(|known| known.source.name == registry.name.child(Child::Admin)) {
        return Ok(Place { by: By::Admin, secret: registry.name.child(Child::Admin), key: "password".to_owned() });
    }
    bail!(
        "{} has no user {user}: kubectl registry users list {} --namespace {} shows all",
        registry.title(),
        registry.name,
        registry.namespace
    )
}

/// Where the password of a user of auth.users is.
fn written_place(registry: &str, user: &UserSpec) -> Place {
    match &user.password_secret_ref {
        Some(reference) => Place {
            by: By::Users,
            secret: reference.name.clone(),
            key: reference.key.clone().unwrap_or_else(|| "password".to_owned()),
        },
        None => Place { by: By::Rotation, secret: login_secret(registry, &user.name), key: "password".to_owned() },
    }
}

fn is_line_of(line: &str, user: &UserName) -> bool {
    line.split_once(':').is_some_and(|(name, _)| name.trim() == user.as_str())
}

/// What the operator says of a user that can log in.
fn known<'a>(found: &'a PrivateRegistry, user: &UserName) -> Option<&'a UserStatus> {
    found.status.as_ref()?.users.iter().find(|known| known.name == user.as_str())
}

/// Whether the status has more users than it lists by name, so that nothing can be said of one who is not among those.
pub(crate) fn has_unlisted(found: &PrivateRegistry) -> bool {
    let status = found.status.clone().unwrap_or_default();
    usize::try_from(status.user_count.unwrap_or(0)).unwrap_or(0) > status.users.len()
}

/// Writes a password where the manifest says that it is, into exactly the Secret that was read.
async fn write(registry: &Registry, place: &Place, password: &Sensitive<String>) -> Result<bool> {
    let Some(live) = secret(registry, &place.secret).await? else {
        bail!("there is no Secret {}/{}, which the manifest names: create it", registry.namespace, place.secret);
    };
    let present = live.data.as_ref().and_then(|data| data.get(&place.key));
    if present.is_some_and(|present| present.0 == password.expose().as_bytes()) {
        return Ok(false);
    }
    change(registry, &live, json!({"stringData": {place.key.clone(): password.expose()}})).await?;
    Ok(true)
}

/// Changes a Secret, if it is still as it was read.
async fn change(registry: &Registry, live: &Secret, mut patch: Value) -> Result<()> {
    patch["metadata"]["resourceVersion"] = json!(live.metadata.resource_version);
    patch["metadata"]["uid"] = json!(live.metadata.uid);
    let name = live.metadata.name.clone().unwrap_or_default();
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patched = secrets(registry).patch(&name, &parameters, &Patch::Merge(&patch)).await.map_err(explained);
    patched.with_context(|| format!("change Secret {}/{name}", registry.namespace))?;
    Ok(())
}

/// Who else has this password: the same key of the same Secret.
fn sharing(found: &PrivateRegistry, user: &UserName, place: &Place) -> Vec<String> {
    let shares = |reference: &private_registry_operator::api::SecretKeyRef| {
        reference.name == place.secret && reference.key.as_deref().unwrap_or("password") == place.key
    };
    let users = auth(found).users.into_iter().filter(|other| other.name != user.as_str());
    users.filter(|other| other.password_secret_ref.as_ref().is_some_and(shares)).map(|other| other.name).collect()
}

/// Whether a user can log in with this password: the table of users tells. Where it may not be read, the status does, as far as it can: the user's place
/// and another time than `before`.
async fn counts(
    registry: &Registry,
    found: &PrivateRegistry,
    user: &UserName,
    (place, password): (&Place, &Password),
    (before, generation): (Option<&str>, i64),
) -> Result<Look> {
    let Some(table) = table(registry).await? else { return Ok(told(found, user, place, before, generation)) };
    let fits = hash_in(&table, user).is_some_and(|hash| hash.is_of(password));
    Ok(match said(found, USERS_READY, generation) {
        Ok((true, _, message)) if fits => Look::Done(message.to_owned()),
        // Somebody else has a fault.
        Ok((false, ..)) if fits => Look::Done(WITHIN_SECONDS.to_owned()),
        Ok((_, _, message)) => Look::Not(format!("UsersReady: {message}")),
        Err(why) => Look::Not(why),
    })
}

/// When the registry's pods follow its table.
const WITHIN_SECONDS: &str = "running pods accept it within seconds";

/// The table of users, if there is one that may be read.
async fn table(registry: &Registry) -> Result<Option<Sensitive<String>>> {
    let name = registry.name.child(Child::Htpasswd);
    let found = match secrets(registry).get_opt(&name).await {
        Err(kube::Error::Api(refusal)) if refusal.is_forbidden() => return Ok(None),
        found => found.map_err(explained).with_context(|| format!("read Secret {}/{name}", registry.namespace))?,
    };
    let text = found.and_then(|secret| secret.data?.remove(HTPASSWD_KEY)).map(|text| String::from_utf8(text.0));
    Ok(text.and_then(Result::ok).map(Sensitive::new))
}

fn hash_in(table: &Sensitive<String>, user: &UserName) -> Option<BcryptHash> {
    table
        .expose()
        .lines()
        .find(|line| is_line_of(line, user))?
        .split_once(':')
        .and_then(|(_, hash)| BcryptHash::new(hash))
}

/// The same by the status alone.
fn told(found: &PrivateRegistry, user: &UserName, place: &Place, before: Option<&str>, generation: i64) -> Look {
    let (is_ready, _, message) = match said(found, USERS_READY, generation) {
        Ok(said) => said,
        Err(why) => return Look::Not(why),
    };
    let is_it = |source: &UserSource| source.name == place.secret && source.key == place.key;
    match known(found, user) {
        Some(known) if is_it(&known.source) && known.changed_at.as_deref() != before => {
            let words = if is_ready { message } else { WITHIN_SECONDS };
            Look::Done(words.to_owned())
        }
        None if has_unlisted(found) && is_ready => {
            Look::Done(format!("the status lists only the first of them by name; {message}"))
        }
        _ => Look::Not(format!("UsersReady: {message}")),
    }
}

/// How to read a password that was not shown.
fn how_to_read(registry: &Registry, place: &Place) -> String {
    let key = place.key.replace('.', "\\.");
    format!(
        "It is in Secret {}:\n  kubectl --namespace {} get secret {} --output jsonpath='{{.data.{key}}}' | base64 --decode\n",
        place.secret, registry.namespace, place.secret
    )
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use super::*;

    fn registry(status: Value) -> PrivateRegistry {
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"},
            "spec": {"auth": {"users": [
                {"name": "ann", "passwordSecretRef": {"name": "one"}}, {"name": "bob", "passwordSecretRef": {"name": "one", "key": "password"}},
                {"name": "eve", "passwordSecretRef": {"name": "one", "key": "eve"}},
            ]}},
            "status": status,
        }))
        .unwrap()
    }

    fn ann() -> UserName {
        UserName::new("ann").unwrap()
    }

    fn place() -> Place {
        Place { by: By::Users, secret: "one".to_owned(), key: "password".to_owned() }
    }

    fn status(ready: &str, users: Value) -> Value {
        json!({"userCount": users.as_array().unwrap().len(), "users": users, "conditions": [{
            "type": "UsersReady", "status": ready, "reason": "X", "message": "as it is", "observedGeneration": 2,
            "lastTransitionTime": "2026-11-30T11:00:00Z",
        }]})
    }

    fn listed(at: &str) -> Value {
        json!([{"name": "ann", "source": {"kind": "Users", "name": "one", "key": "password"}, "changedAt": at}])
    }

    #[test]
    fn where_the_table_may_not_be_read_a_password_is_in_force_when_the_status_speaks_of_it() {
        let is_done = |status: Value, before, generation| {
            matches!(told(&registry(status), &ann(), &place(), before, generation), Look::Done(_))
        };
        assert!(is_done(status("True", listed("later")), Some("earlier"), 2));
        assert!(!is_done(status("True", listed("earlier")), Some("earlier"), 2), "the former one");
        assert!(!is_done(status("True", listed("later")), Some("earlier"), 3), "of an earlier manifest");
        assert!(!is_done(status("True", json!([])), None, 2), "not among them");
        assert!(is_done(status("False", listed("later")), None, 2), "somebody else has a fault");
        let mut crowd = status("True", json!([]));
        crowd["userCount"] = json!(300);
        assert!(is_done(crowd, None, 2), "more than are listed");
        let mut other = listed("later");
        other[0]["source"]["name"] = json!("other");
        assert!(!is_done(status("True", other), None, 2), "the first of two sources counts, and it is another one");
    }

    #[test]
    fn whoever_has_the_same_password_is_named() {
        assert_eq!(sharing(&registry(Value::Null), &ann(), &place()), ["bob"]);
    }

    #[test]
    fn a_line_is_of_whose_name_stands_before_the_colon() {
        assert!(is_line_of("ann:$2y$05$x", &ann()));
        assert!(!is_line_of("annie:$2y$05$x", &ann()) && !is_line_of("# ann", &ann()));
    }
}
