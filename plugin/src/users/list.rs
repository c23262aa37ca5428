//! `users list`: who can log in, and where each password is.

use anyhow::Result;
use jiff::Timestamp;
use private_registry_operator::api::condition::USERS_READY;
use private_registry_operator::api::{PrivateRegistry, UserRotationStatus, UserSource, UserSourceKind};
use private_registry_operator::model::RegistryName;
use serde::Serialize;

use super::{auth, has_unlisted, written_place};
use crate::cluster;
use crate::output::{self, Form};
use crate::shell;

/// Options of `users list`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// How to print them
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    place: cluster::Place,
}

/// One user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct User {
    name: String,
    /// `null`: the status does not list so many by name.
    can_log_in: Option<bool>,
    source: UserSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<UserRotationStatus>,
}

pub(super) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        if auth(&found).none.is_some() {
            shell::complain(&format!("{}: everybody, without a login (spec.auth.none)", registry.title()));
        }
        let users = users(&found);
        let names = || users.iter().map(|user| user.name.clone()).collect::<Vec<_>>();
        shell::print(&match options.output {
            Form::Table => table(&users, Timestamp::now()),
            Form::Name => output::names("NAME", &names(), Form::Name)?,
            Form::Json => output::json(&users)?,
            Form::Yaml => output::yaml(&users)?,
        });
        if has_unlisted(&found) {
            let all = found.status.as_ref().and_then(|status| status.user_count).unwrap_or(0);
            shell::complain(&format!("{all} users can log in; the status lists the first of them by name"));
        }
        let told = found.status.as_ref().and_then(|status| status.condition(USERS_READY));
        if let Some(told) = told.filter(|told| told.status != "True") {
            shell::complain(&format!("UsersReady is {}: {}: {}", told.status, told.reason, told.message));
        }
        Ok(())
    })
}

/// Those who can log in, as the operator says, and those of the manifest who cannot.
fn users(found: &PrivateRegistry) -> Vec<User> {
    let status = found.status.clone().unwrap_or_default();
    let can = status.users.into_iter().map(|user| User {
        name: user.name,
        can_log_in: Some(true),
        source: user.source,
        changed_at: user.changed_at,
        rotation: user.rotation,
    });
    let mut users: Vec<_> = can.collect();
    let unlisted = has_unlisted(found);
    for user in auth(found).users {
        if users.iter().all(|known| known.name != user.name) {
            let place = written_place(found.metadata.name.as_deref().unwrap_or_default(), &user);
            let source = UserSource { kind: UserSourceKind::Users, name: place.secret, key: place.key };
            let can_log_in = (!unlisted).then_some(false);
            users.push(User { name: user.name, can_log_in, source, changed_at: None, rotation: None });
        }
    }
    users
}

fn table(users: &[User], now: Timestamp) -> String {
    let row = |user: &User| {
        let from = match user.source.kind {
            UserSourceKind::GeneratedAdmin => "generated",
            UserSourceKind::Users => "auth.users",
            UserSourceKind::UsersFrom => "auth.usersFrom",
        };
        let login = match user.can_log_in {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let changed = user.changed_at.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
        vec![
            user.name.clone(),
            login.to_owned(),
            from.to_owned(),
            format!("{}/{}", user.source.name, user.source.key),
            changed.map_or(String::new(), |at| output::age(at, now)),
            user.rotation.as_ref().map_or(String::new(), |rotation| rotation.next.clone()),
            user.rotation.as_ref().and_then(|rotation| rotation.former_ends_at.clone()).unwrap_or_default(),
        ]
    };
    let heads = ["NAME", "LOGIN", "BY", "SECRET/KEY", "CHANGED", "NEXT", "FORMER UNTIL"];
    // Most registries rotate nobody's password.
    let shown = if users.iter().any(|user| user.rotation.is_some()) { heads.len() } else { heads.len() - 2 };
    let cut = |mut row: Vec<String>| {
        row.truncate(shown);
        row
    };
    output::table(&heads[..shown], &users.iter().map(row).map(cut).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_can_log_in_is_told_with_those_of_the_manifest_who_cannot() {
        let mut manifest = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"},
            "spec": {"auth": {"users": [
                {"name": "ann", "passwordSecretRef": {"name": "one"}}, {"name": "bob", "passwordSecretRef": {"name": "missing", "key": "b"}},
            ]}},
            "status": {"userCount": 1, "users": [
                {"name": "ann", "source": {"kind": "Users", "name": "one", "key": "password"}, "changedAt": "2026-11-30T11:00:00Z"},
            ]},
        });
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let told =
            |manifest: &serde_json::Value| table(&users(&serde_json::from_value(manifest.clone()).unwrap()), now);
        assert_eq!(
            told(&manifest),
            "NAME   LOGIN   BY           SECRET/KEY     CHANGED\n\
             ann    yes     auth.users   one/password   60m\n\
             bob    no      auth.users   missing/b      -\n"
        );
        let rotated = &mut manifest["status"]["users"][0];
        rotated["rotation"] = json!({"next": "2026-12-30T11:00:00Z", "formerEndsAt": "2026-12-01T11:00:00Z"});
        assert!(told(&manifest).contains("CHANGED   NEXT                   FORMER UNTIL\n"), "{}", told(&manifest));
        assert!(
            told(&manifest).contains("60m       2026-12-30T11:00:00Z   2026-12-01T11:00:00Z\n"),
            "{}",
            told(&manifest)
        );
        manifest["spec"]["auth"]["users"] = json!([{"name": "robot", "rotation": {"every": "720h"}}]);
        assert!(
            told(&manifest).contains("robot   no      auth.users   team-a-login-robot/password"),
            "{}",
            told(&manifest)
        );
        manifest["spec"]["auth"]["users"] =
            json!([{"name": "bob", "passwordSecretRef": {"name": "missing", "key": "b"}}]);
        manifest["status"]["userCount"] = json!(300);
        assert!(told(&manifest).contains("bob    -"), "nobody knows");
    }
}
