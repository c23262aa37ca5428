//! `users add`: another user may log in.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, PostParams, Preconditions};
use operator_engine::process::flag_values;
use private_registry_operator::api::{GenerateAdmin, PrivateRegistry, UserSourceKind};
use private_registry_operator::credentials::{Password, UserName};
use private_registry_operator::model::RegistryName;
use private_registry_operator::secret::Sensitive;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{By, Given, Place, auth, counts, find, how_to_read, known, secret, secrets, user_name};
use crate::change::{self, Patience};
use crate::cluster::{self, MANAGER, Registry, explained};
use crate::shell;

/// Annotation of a Secret that this command made: registry and user.
pub(super) const MADE_FOR: &str = "privateregistry.dev/made-for";

/// Options of `users add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The name to log in with: no colon, no blanks
    #[arg(value_parser = user_name)]
    user: UserName,
    #[command(flatten)]
    given: Given,
    /// A Secret that holds the password already; none is made
    #[arg(long, value_name = "SECRET", value_parser = flag_values::name, conflicts_with_all = ["password_stdin", "generate", "secret"])]
    from: Option<String>,
    /// Key of --from [default: password]
    #[arg(long, value_name = "KEY", requires = "from")]
    key: Option<String>,
    /// Name of the Secret to make [default: NAME-user-USER]
    #[arg(long, value_name = "SECRET", value_parser = flag_values::name)]
    secret: Option<String>,
    /// Keep the generated admin, which otherwise ends with the first user
    #[arg(long)]
    keep_admin: bool,
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
        if auth(&found).none.is_some() {
            bail!("{} asks for no login: remove spec.auth.none from its manifest", registry.title());
        }
        if let Ok(place) = find(&registry, &found, user).await {
            bail!(
                "{} has a user {user} already, whose password is in Secret {}: kubectl registry users passwd changes it",
                registry.title(),
                place.secret
            );
        }
        if ends_admin(&found) && !options.keep_admin {
            let consequence = format!(
                "{}: the generated admin can log in no longer when {user} can, and Secret {}-pull, with which pods pull, goes with it unless spec.pullSecrets \
                 names a user (--keep-admin keeps both). Go on?",
                registry.title(),
                registry.name
            );
            shell::confirm(&consequence, options.yes)?;
        }
        let (place, password, made) = password(options, &registry).await?;
        let written = change::manifest(&registry, |live| patch(live, user, &place, options.keep_admin)).await;
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                if let Some(made) = made {
                    take_back(&registry, &made).await?;
                }
                return Err(error);
            }
        };
        change::note_other_writers(&written, &format!("add user {user} to spec.auth.users there"));
        let mut text = format!("{}: user {user} is in spec.auth.users.\n", registry.title());
        if made.is_some() {
            let _ = write!(text, "{}", how_to_read(&registry, &place));
        }
        shell::print(&text);
        let generation = written.metadata.generation.unwrap_or_default();
        let before = known(&found, user).and_then(|known| known.changed_at.as_deref());
        let done = format!("{user} can log in");
        let look = async |found: &PrivateRegistry| {
            counts(&registry, found, user, (&place, &password), (before, generation)).await
        };
        options.patience.until(&registry, &done, look).await
    })
}

/// Whether the generated admin is there only while nobody else is.
fn ends_admin(found: &PrivateRegistry) -> bool {
    let generate = auth(found).admin.and_then(|admin| admin.generate).unwrap_or_default();
    let users = found.status.iter().flat_map(|status| &status.users);
    generate == GenerateAdmin::Auto && users.into_iter().any(|user| user.source.kind == UserSourceKind::GeneratedAdmin)
}

/// The Secret with the password, made if it is not there already.
async fn password(options: &Options, registry: &Registry) -> Result<(Place, Password, Option<Secret>)> {
    let by = By::Users;
    if let Some(from) = &options.from {
        let key = options.key.clone().unwrap_or_else(|| "password".to_owned());
        let content = secret(registry, from).await?.and_then(|secret| secret.data).unwrap_or_default();
        let Some(text) = content.get(&key) else {
            bail!("there is no Secret {}/{from} with a key {key}", registry.namespace)
        };
        let password =
            Password::new(&text.0).with_context(|| format!("Secret {}/{from}, key {key}", registry.namespace))?;
        return Ok((Place { by, secret: from.clone(), key }, password, None));
    }
    let password = options.given.password(&options.user, registry)?;
    let name = options.secret.clone().unwrap_or_else(|| secret_name(&registry.name, &options.user));
    let made = create(registry, &name, &options.user, &password).await?;
    let place = Place { by, secret: name, key: "password".to_owned() };
    Ok((place, Password::new(password.expose().as_bytes())?, Some(made)))
}

async fn create(registry: &Registry, name: &str, user: &UserName, password: &Sensitive<String>) -> Result<Secret> {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
        "metadata": {
            "name": name, "labels": {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": {MADE_FOR: made_for(registry, user)},
        },
        "stringData": {"username": user.as_str(), "password": password.expose()},
    });
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let object = serde_json::from_value(object).context("make a Secret")?;
    match secrets(registry).create(&parameters, &object).await {
        Err(kube::Error::Api(refusal)) if refusal.is_already_exists() => bail!(
            "Secret {}/{name} is there already: --from takes the password from it, --secret gives the new one another name",
            registry.namespace
        ),
        made => made.map_err(explained).with_context(|| format!("make Secret {}/{name}", registry.namespace)),
    }
}

/// What [`MADE_FOR`] says.
pub(super) fn made_for(registry: &Registry, user: &UserName) -> String {
    format!("{}/{user}", registry.name)
}

/// The manifest was not changed, so nobody needs it.
async fn take_back(registry: &Registry, made: &Secret) -> Result<()> {
    let name = made.metadata.name.clone().unwrap_or_default();
    let only = Preconditions { uid: made.metadata.uid.clone(), resource_version: None };
    let deleted = secrets(registry).delete(&name, &DeleteParams::default().preconditions(only)).await;
    deleted.map_err(explained).with_context(|| format!("remove Secret {}/{name} again", registry.namespace))?;
    Ok(())
}

/// A name that tells whose it is. What an object's name cannot have is left out of it, and told apart by a checksum.
fn secret_name(registry: &RegistryName, user: &UserName) -> String {
    let legal = |letter: char| if letter.is_ascii_lowercase() || letter.is_ascii_digit() { letter } else { '-' };
    let short: String = user.as_str().to_ascii_lowercase().chars().map(legal).take(60).collect();
    let short = short.trim_matches('-');
    if short == user.as_str() {
        return format!("{registry}-user-{short}");
    }
    let digest = Sha256::digest(user.as_str());
    let mark = digest.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let middle = if short.is_empty() { String::new() } else { format!("{short}-") };
    format!("{registry}-user-{middle}{mark}")
}

fn patch(live: &Value, user: &UserName, place: &Place, keep_admin: bool) -> Result<Option<Value>> {
    let mut users = live["spec"]["auth"]["users"].as_array().cloned().unwrap_or_default();
    if users.iter().any(|one| one["name"] == user.as_str()) {
        bail!("somebody else has just added a user {user}");
    }
    let mut reference = json!({"name": place.secret});
    if place.key != "password" {
        reference["key"] = json!(place.key);
    }
    users.push(json!({"name": user.as_str(), "passwordSecretRef": reference}));
    let mut patch = json!({"spec": {"auth": {"users": users}}});
    if keep_admin {
        patch["spec"]["auth"]["admin"] = json!({"generate": "Always"});
    }
    Ok(Some(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_user_is_called_after_the_user_as_far_as_names_of_objects_go() {
        let registry = RegistryName::parse("team-a").unwrap();
        let named = |user: &str| secret_name(&registry, &UserName::new(user).unwrap());
        assert_eq!(named("ci"), "team-a-user-ci");
        assert!(named("Ann@example.com").starts_with("team-a-user-ann-example-com-"));
        assert_ne!(named("a.b"), named("a@b"));
        assert_ne!(named("ann"), named("Ann"));
        let long = named(&"ü".repeat(100));
        assert!(long.len() < 253 && long.starts_with("team-a-user-") && !long.ends_with('-'), "{long}");
    }

    #[test]
    fn a_user_is_put_beside_the_others_as_they_were_written() {
        let place = Place { by: By::Users, secret: "s".to_owned(), key: "k".to_owned() };
        let live = json!({"spec": {"auth": {"users": [{"name": "eve", "fieldOfTheFuture": 1}]}}});
        let ann = UserName::new("ann").unwrap();
        let made = patch(&live, &ann, &place, true).unwrap().unwrap();
        assert_eq!(
            made["spec"]["auth"],
            json!({
                "users": [{"name": "eve", "fieldOfTheFuture": 1}, {"name": "ann", "passwordSecretRef": {"name": "s", "key": "k"}}],
                "admin": {"generate": "Always"},
            })
        );
        assert!(patch(&live, &UserName::new("eve").unwrap(), &place, false).is_err());
    }
}
