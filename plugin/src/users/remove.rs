//! `users remove`: a user may log in no longer.

use anyhow::{Context as _, Result, bail};
use kube::api::{DeleteParams, Preconditions};
use private_registry_operator::api::condition::USERS_READY;
use private_registry_operator::api::{PrivateRegistry, UserSpec};
use private_registry_operator::credentials::UserName;
use private_registry_operator::model::{RegistryName, second_name};
use serde_json::{Value, json};

use super::{
    By, Place, add, auth, change as change_secret, find, has_unlisted, hash_in, is_line_of, known, secret, secrets,
    table, user_name,
};
use crate::change::{self, Look, Patience, said};
use crate::cluster::{self, Registry, explained};
use crate::shell;

/// Options of `users remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The user
    #[arg(value_parser = user_name)]
    user: UserName,
    /// Ask no questions
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    place: cluster::Place,
}

pub(super) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        let user = &options.user;
        let place = find(&registry, &found, user).await?;
        if place.by == By::Admin {
            bail!(
                "the operator makes {user} itself: it ends when another user can log in, or with spec.auth.admin.generate: Never"
            );
        }
        shell::confirm(&question(&registry, &found, user), options.yes)?;
        let mut generation = found.metadata.generation.unwrap_or_default();
        match place.by {
            By::Users | By::Rotation => {
                let written = change::manifest(&registry, |live| Ok(without(live, user))).await?;
                generation = written.metadata.generation.unwrap_or_default();
                change::note_other_writers(&written, &format!("remove user {user} from spec.auth.users there"));
                shell::print(&format!("{}: user {user} is removed from spec.auth.users.\n", registry.title()));
                clear(&registry, &written, user, &place).await?;
            }
            By::Many | By::Lines | By::Admin => {
                let key = remove_from_secret(&registry, user, &place).await?;
                shell::print(&format!("{}: {key} of Secret {} is removed.\n", registry.title(), place.secret));
            }
        }
        let done = format!("{user} can log in no longer");
        let look = async |found: &PrivateRegistry| {
            Ok(match table(&registry).await? {
                Some(table) if lines(user, &place).iter().any(|name| hash_in(&table, name).is_some()) => {
                    Look::Not("the table of users still has the user".to_owned())
                }
                Some(_) => said(found, USERS_READY, generation).map_or_else(Look::Not, |told| Look::Done(words(told))),
                None => is_out(found, user, generation),
            })
        };
        options.patience.until(&registry, &done, look).await
    })
}

/// The names that a user has in the table.
fn lines(user: &UserName, place: &Place) -> Vec<UserName> {
    let second = (place.by == By::Rotation).then(|| UserName::new(&second_name(user.as_str())).ok());
    [user.clone()].into_iter().chain(second.flatten()).collect()
}

fn question(registry: &Registry, found: &PrivateRegistry, user: &UserName) -> String {
    let pulls = found.spec.pull_secrets.iter().any(|pull| pull.user.as_deref() == Some(user.as_str()));
    let pulls = if pulls { ", pods neither, which pull as this user (spec.pullSecrets)" } else { "" };
    format!("{}: {user} can log in no longer{pulls}. Go on?", registry.title())
}

/// The manifest without the user.
fn without(live: &Value, user: &UserName) -> Option<Value> {
    let users = live["spec"]["auth"]["users"].as_array()?;
    let others: Vec<_> = users.iter().filter(|one| one["name"] != user.as_str()).cloned().collect();
    // As if nobody had ever been there.
    let others = if others.is_empty() { Value::Null } else { json!(others) };
    Some(json!({"spec": {"auth": {"users": others}}}))
}

/// Deletes the Secret with the password, if `users add` made it for this user and nobody else has it.
async fn clear(registry: &Registry, left: &PrivateRegistry, user: &UserName, place: &Place) -> Result<()> {
    let Some(live) = secret(registry, &place.secret).await? else { return Ok(()) };
    let made = live.metadata.annotations.as_ref().and_then(|all| all.get(add::MADE_FOR));
    let is_used = {
        let references =
            |user: &UserSpec| user.password_secret_ref.as_ref().is_some_and(|own| own.name == place.secret);
        auth(left).users.iter().any(references)
    } || auth(left).users_from.iter().any(|from| {
        let many = from.secret_ref.as_ref().is_some_and(|many| many.name == place.secret);
        many || from.htpasswd_secret_ref.as_ref().is_some_and(|file| file.name == place.secret)
    });
    if is_used || made.is_none_or(|made| *made != add::made_for(registry, user)) {
        return Ok(());
    }
    let only =
        Preconditions { uid: live.metadata.uid.clone(), resource_version: live.metadata.resource_version.clone() };
    let deleted = secrets(registry).delete(&place.secret, &DeleteParams::default().preconditions(only)).await;
    deleted.map_err(explained).with_context(|| format!("remove Secret {}/{}", registry.namespace, place.secret))?;
    shell::print(&format!("Secret {} is removed, too.\n", place.secret));
    Ok(())
}

/// Takes the user out of a Secret of many. Says what was taken.
async fn remove_from_secret(registry: &Registry, user: &UserName, place: &Place) -> Result<String> {
    let Some(live) = secret(registry, &place.secret).await? else { return Ok(format!("user {user}")) };
    let (patch, what) = match place.by {
        By::Lines => {
            let text = live.data.as_ref().and_then(|data| data.get(&place.key)).cloned().unwrap_or_default();
            let Ok(text) = String::from_utf8(text.0) else {
                bail!("Secret {}: {} is no text", place.secret, place.key)
            };
            let left = text.split_inclusive('\n').filter(|line| !is_line_of(line, user)).collect::<String>();
            (json!({"stringData": {place.key.clone(): left}}), format!("the line of {user} in key {}", place.key))
        }
        _ => (json!({"data": {place.key.clone(): null}}), format!("key {}", place.key)),
    };
    change_secret(registry, &live, patch).await?;
    Ok(what)
}

/// By the status alone.
fn is_out(found: &PrivateRegistry, user: &UserName, generation: i64) -> Look {
    match said(found, USERS_READY, generation) {
        Err(why) => Look::Not(why),
        Ok((_, _, message)) if known(found, user).is_some() => Look::Not(format!("UsersReady: {message}")),
        Ok((is_ready, _, message)) if has_unlisted(found) => {
            let words = format!("the status lists only the first of them by name; UsersReady: {message}");
            if is_ready { Look::Done(words) } else { Look::Not(words) }
        }
        Ok(told) => Look::Done(words(told)),
    }
}

/// That nobody is left, or another one has a fault, is no matter of this user.
fn words((is_ready, reason, message): (bool, &str, &str)) -> String {
    if is_ready { message.to_owned() } else { format!("UsersReady is False now: {reason}: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_user_leaves_a_manifest_as_if_nobody_had_been_there() {
        let ann = UserName::new("ann").unwrap();
        let live = |users: Value| json!({"spec": {"auth": {"users": users}}});
        let left = |users: Value| without(&live(users), &ann).unwrap()["spec"]["auth"]["users"].clone();
        assert_eq!(left(json!([{"name": "ann"}])), Value::Null);
        assert_eq!(left(json!([{"name": "eve", "new": 1}, {"name": "ann"}])), json!([{"name": "eve", "new": 1}]));
    }
}
