//! `users rotate`: a new random password.

use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use private_registry_operator::api::{PrivateRegistry, annotation};
use private_registry_operator::credentials::{UserName, generated};
use private_registry_operator::model::RegistryName;
use serde_json::json;

use super::{By, Place, change, find, how_to_read, known, passwd, secret, user_name};
use crate::change::{Look, Patience};
use crate::cluster::{self, Registry};
use crate::shell;

/// Longer than the operator's --login-lead can be.
const UNTIL_SHOWN: Duration = Duration::from_secs(900);

/// Options of `users rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The user
    #[arg(value_parser = user_name)]
    user: UserName,
    /// The present password ends at once, and every one before it
    #[arg(long)]
    now: bool,
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
        if place.by == By::Rotation {
            return ask(&registry, &found, &place, options).await;
        }
        // Without a rotation the former password always ends at once.
        let password = |_: &Registry| Ok(generated::admin_password()?);
        passwd::renew(&registry, user, password, &options.patience).await
    })
}

/// Asks the operator for it, and waits.
async fn ask(registry: &Registry, found: &PrivateRegistry, place: &Place, options: &Options) -> Result<()> {
    let user = &options.user;
    let Some(live) = secret(registry, &place.secret).await? else {
        bail!(
            "there is no Secret {}/{} yet: kubectl registry status {} --namespace {} says why",
            registry.namespace,
            place.secret,
            registry.name,
            registry.namespace
        );
    };
    if !options.now && text(&live, "former-password").is_some() {
        bail!("{}", still_counts(registry, found, user));
    }
    if options.now {
        let consequence = format!(
            "{}: whoever has a password of {user} can log in no longer until he has read the new one; pods pull with it as soon as their pull Secret shows it. Go on?",
            registry.title()
        );
        shell::confirm(&consequence, options.yes)?;
    }
    let value = request(options.now, Timestamp::now());
    let before = text(&live, "password");
    change(registry, &live, json!({"metadata": {"annotations": {annotation::ROTATE: value}}})).await?;
    shell::print(&format!(
        "{}: asked for another password of {user} ({value}).\n{}",
        registry.title(),
        how_to_read(registry, place)
    ));
    let look = async |found: &PrivateRegistry| {
        let Some(live) = secret(registry, &place.secret).await? else {
            return Ok(Look::Not(format!("Secret {} is gone", place.secret)));
        };
        let is_shown = text(&live, "password") != before && text(&live, "handled").as_deref() == Some(&value);
        Ok(match (is_shown, text(&live, "former-password"), until(found, user)) {
            (false, _, _) if text(&live, "next-password").is_some() => {
                Look::Not("running pods have to accept it before it is shown, which takes some minutes".to_owned())
            }
            (false, ..) => Look::Not("the operator has not followed yet".to_owned()),
            (true, None, _) => Look::Done("no former one counts any more".to_owned()),
            (true, Some(_), Some(until)) => Look::Done(format!("the former one counts until {until}")),
            (true, Some(_), None) => Look::Not("not every pull Secret shows it yet".to_owned()),
        })
    };
    // Running pods accept it before it is shown.
    let patience = if options.now { options.patience.clone() } else { options.patience.usually(UNTIL_SHOWN) };
    patience.until(registry, &format!("The new login of {user} is shown"), look).await
}

/// What stands in the way of the next login.
fn still_counts(registry: &Registry, found: &PrivateRegistry, user: &UserName) -> String {
    let until = until(found, user);
    let until = until.map_or_else(
        || "until all pull Secrets show the present one, and a while longer".to_owned(),
        |at| format!("until {at}"),
    );
    format!(
        "{}: the former login of {user} counts {until}; ask again after that, or with --now, which ends both at once",
        registry.title()
    )
}

/// Until when the former login counts, as the operator says.
fn until(found: &PrivateRegistry, user: &UserName) -> Option<String> {
    known(found, user)?.rotation.as_ref()?.former_ends_at.clone()
}

fn text(live: &Secret, key: &str) -> Option<String> {
    live.data.as_ref().and_then(|data| String::from_utf8(data.get(key)?.0.clone()).ok())
}

/// A value that no request had before.
fn request(now: bool, at: Timestamp) -> String {
    format!("{}{}", if now { "now-" } else { "" }, at.strftime("%Y%m%dT%H%M%S%.3fZ"))
}

#[cfg(test)]
mod tests {
    use private_registry_operator::credentials::rotation::Asked;

    use super::*;

    #[test]
    fn each_request_is_one_that_the_operator_understands() {
        let at: Timestamp = "2026-12-01T11:00:00.5Z".parse().unwrap();
        assert_eq!(request(false, at), "20261201T110000.500Z");
        assert_eq!(Asked::of(Some(&request(false, at)), None), Asked::Next);
        assert_eq!(Asked::of(Some(&request(true, at)), Some(&request(false, at))), Asked::Now);
    }
}
