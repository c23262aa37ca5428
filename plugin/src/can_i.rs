//! `can-i`: whether somebody may do something with a repository, and which rule says so. Decided by the operator's own rules; of the cluster's users, who are
//! told by the colon in their names, by the cluster.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use kube::api::{Api, PostParams};
use private_registry_operator::access::cluster::{ClusterLogins, ClusterUser, verb};
use private_registry_operator::access::issuer::Guest;
use private_registry_operator::access::{Access, Action, Caller, Grant, Policy, Rule, is_repository};
use private_registry_operator::api::{PrivateRegistry, UserSourceKind};
use private_registry_operator::model::{RegistryName, rules_of};

use crate::cluster::{self, Place};
use crate::manifests;
use crate::shell;
use crate::users::has_unlisted;

/// Options of `can-i`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// What is to be done
    #[arg(value_parser = ["pull", "push", "delete", "catalog"])]
    action: String,
    /// With which repository; of catalog none
    repository: Option<String>,
    /// Who asks, for instance ann or system:serviceaccount:shop:builder [default: somebody without a login]
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// A group that the token of an issuer's user says, for instance github:acme; several times for several
    #[arg(long = "as-group", value_name = "GROUP", requires = "user")]
    groups: Vec<String>,
    /// A manifest to ask in the place of the cluster; - is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "namespace")]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// An answer, and in words why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) is_yes: bool,
    pub(crate) why: String,
}

pub(crate) fn run(options: &Options) -> Result<bool> {
    let action: Action = options.action.parse().context("read the action")?;
    let access = match (action, options.repository.as_deref()) {
        (Action::Catalog, None) => Access::Catalog,
        (Action::Catalog, Some(_)) => bail!("catalog is about all repositories: leave the repository out"),
        (_, None) => bail!("which repository? For instance: kubectl registry can-i {} {action} team/app", options.name),
        (_, Some(name)) if is_repository(name) => Access::Repository(name, action),
        (_, Some(name)) => {
            bail!("{name:?} is no name of a repository; write it without host and tag, for instance team/app")
        }
    };
    let guest = options.user.clone().filter(|user| user.contains(':'));
    let guest = guest.map(|name| Guest { name, groups: options.groups.clone() });
    let caller = match (&guest, options.user.as_deref()) {
        (Some(guest), _) => Caller::Guest(guest),
        (None, Some(user)) => Caller::User(user),
        (None, None) => Caller::Anonymous,
    };
    let answer = match &options.file {
        Some(file) => answer(&of_file(file, &options.name)?, caller, access),
        None => cluster::wait(async {
            let place = options.place.registry(&options.name).await?;
            let found = place.read().await?;
            match guest.as_ref().and_then(|guest| of_cluster(&found, &place.namespace, guest)) {
                Some(_) if deletes_nothing(&found, access) => Ok(answer(&found, caller, access)),
                Some((logins, user)) => by_roles(place.client, &logins, &user, access).await,
                None => Ok(answer(&found, caller, access)),
            }
        })?,
    };
    shell::print(&format!("{}: {}\n", if answer.is_yes { "yes" } else { "no" }, answer.why));
    Ok(answer.is_yes)
}

fn of_file(file: &PathBuf, name: &RegistryName) -> Result<PrivateRegistry> {
    let found = manifests::find(std::slice::from_ref(file));
    let named = |document: &manifests::Document| document.object["metadata"]["name"] == name.as_str();
    let one = found.registries.into_iter().find(named);
    let one = one.with_context(|| format!("{} holds no PrivateRegistry {name} that can be read", file.display()))?;
    serde_json::from_value(one.object).with_context(|| format!("read PrivateRegistry {name} of {}", file.display()))
}

/// Whether it is about deleting, where the registry does not.
fn deletes_nothing(registry: &PrivateRegistry, access: Access<'_>) -> bool {
    matches!(access, Access::Repository(_, Action::Delete))
        && registry.spec.config.as_ref().is_none_or(|config| config.allow_deletes != Some(true))
}

/// A user of the cluster, where its tokens are logins.
fn of_cluster(registry: &PrivateRegistry, namespace: &str, guest: &Guest) -> Option<(ClusterLogins, ClusterUser)> {
    let token = registry.spec.auth.as_ref()?.token.as_ref()?;
    token.kubernetes.as_ref().filter(|_| token.issuers.iter().all(|issuer| issuer.name != guest.issuer()))?;
    let account = guest.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let user = match account {
        Some((namespace, name)) => ClusterUser::service_account(namespace, name),
        None => {
            let groups = guest.groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect();
            ClusterUser { name: guest.name.clone(), groups, ..ClusterUser::default() }
        }
    };
    Some((ClusterLogins { audience: String::new(), namespace: namespace.to_owned() }, user))
}

/// What the cluster says, and why.
async fn by_roles(client: Client, logins: &ClusterLogins, user: &ClusterUser, access: Access<'_>) -> Result<Answer> {
    let question = logins.may(user, access);
    let asked = Api::all(client).create(&PostParams::default(), &question).await;
    let status =
        asked.map_err(cluster::explained).context("ask the cluster what its roles allow")?.status.unwrap_or_default();
    let (verb, name) = match access {
        Access::Repository(name, action) => (verb(action), format!(" {name}")),
        Access::Catalog => (verb(Action::Catalog), String::new()),
    };
    let what = format!("{verb} repositories.privateregistry.dev{name} in namespace {}", logins.namespace);
    let why = match status.allowed {
        true => format!("{} may {what}: {}", user.name, status.reason.unwrap_or_default()),
        false => format!("no Role in namespace {}, and no ClusterRole, lets {} {what}", logins.namespace, user.name),
    };
    Ok(Answer { is_yes: status.allowed, why })
}

/// Whether somebody cannot log in, where the status names everybody who can.
fn is_unknown(registry: &PrivateRegistry, user: &str) -> bool {
    let Some(status) = &registry.status else { return false };
    status.user_count.is_some() && !has_unlisted(registry) && status.users.iter().all(|known| known.name != user)
}

/// Whether somebody may do something, by the manifest and the users that the status names.
pub(crate) fn answer(registry: &PrivateRegistry, caller: Caller<'_>, access: Access<'_>) -> Answer {
    let yes = |why: &str| Answer { is_yes: true, why: why.to_owned() };
    let no = |why: String| Answer { is_yes: false, why };
    let auth = registry.spec.auth.clone().unwrap_or_default();
    if deletes_nothing(registry, access) {
        return no("nobody deletes anything here: spec.config.allowDeletes is not set".to_owned());
    }
    if auth.none.is_some() {
        return yes("spec.auth.none lets everybody do everything");
    }
    if let Caller::User(user) = caller
        && is_unknown(registry, user)
    {
        return no(format!("{user} cannot log in: status.users has everybody who can"));
    }
    let Some(token) = auth.token else {
        return match caller {
            Caller::Guest(_) => no("without spec.auth.token nobody is known but the table's users".to_owned()),
            Caller::User(_) => yes("without spec.auth.token whoever has logged in may do everything"),
            Caller::Anonymous => no("this registry asks everybody for a login".to_owned()),
        };
    };
    if let Caller::Guest(guest) = caller
        && token.issuers.iter().all(|issuer| issuer.name != guest.issuer())
    {
        return no(format!(
            "{} cannot log in: no issuer of spec.auth.token.issuers is called {}",
            guest.name,
            guest.issuer()
        ));
    }
    let (mut policy, faults) = rules_of(&token);
    let users = registry.status.iter().flat_map(|status| &status.users);
    let generated = users.filter(|user| user.source.kind == UserSourceKind::GeneratedAdmin);
    policy.administrators = generated.map(|user| user.name.clone()).collect();
    let faults = faults.iter().map(|fault| format!("; {}", fault.message)).collect::<String>();
    let what = match access {
        Access::Catalog => "list all repositories".to_owned(),
        Access::Repository(name, action) => format!("{action} {name}"),
    };
    let who = match caller {
        Caller::Anonymous => "somebody without a login",
        Caller::User(name) => name,
        Caller::Guest(guest) => &guest.name,
    };
    match policy.allows(caller, access) {
        Some(Grant::Administrator) => yes(&format!("{who} is the generated admin, who may do everything")),
        Some(Grant::Rule(number)) => {
            let rule = policy.rules.get(number).and_then(Option::as_ref).map(|rule| words(rule, &policy, caller));
            yes(&format!("{who} may {what} by spec.auth.token.rules[{number}]{}", rule.unwrap_or_default()))
        }
        None => no(format!("no rule of spec.auth.token.rules lets {who} {what}{faults}")),
    }
}

/// What a rule says, and by which team it is for somebody.
fn words(rule: &Rule, policy: &Policy, caller: Caller<'_>) -> String {
    let list = |name: &str, values: Vec<String>| match values.is_empty() {
        true => String::new(),
        false => format!(", {name}: {}", values.join(" ")),
    };
    let user = match caller {
        Caller::Anonymous => "",
        Caller::User(name) => name,
        Caller::Guest(guest) => &guest.name,
    };
    let teams: Vec<_> = policy.teams_of(caller).collect();
    let member = if rule.teams.is_empty() || teams.is_empty() {
        String::new()
    } else {
        format!(" ({user} is in {})", teams.join(" "))
    };
    let all = [
        list("users", rule.users.iter().cloned().collect()),
        list("teams", rule.teams.iter().cloned().collect()) + &member,
        list("anonymous", rule.anonymous.then(|| "true".to_owned()).into_iter().collect()),
        list("repositories", rule.repositories.iter().map(ToString::to_string).collect()),
        list("actions", rule.actions.iter().map(ToString::to_string).collect()),
    ];
    format!(" ({})", all.concat().trim_start_matches(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn registry(auth: &Value) -> PrivateRegistry {
        let source = json!({"kind": "GeneratedAdmin", "name": "team-a-admin", "key": "password"});
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a"}, "spec": {"auth": auth, "config": {"allowDeletes": true}},
            "status": {"userCount": 2, "users": [
                {"name": "root", "source": source},
                {"name": "ann", "source": {"kind": "Users", "name": "ann", "key": "password"}},
            ]},
        }))
        .unwrap()
    }

    fn says(auth: &Value, user: &str, access: Access<'_>) -> String {
        let caller = if user.is_empty() { Caller::Anonymous } else { Caller::User(user) };
        let Answer { is_yes, why } = answer(&registry(auth), caller, access);
        format!("{is_yes}: {why}")
    }

    #[test]
    fn the_rule_that_decides_is_named() {
        let auth = json!({"token": {
            "teams": [{"name": "red", "users": ["ann"]}],
            "rules": [
                {"anonymous": true, "repositories": ["public/**"], "actions": ["pull"]},
                {"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull", "push"]},
            ],
        }});
        for (user, name, action, said) in [
            (
                "ann",
                "red/app",
                Action::Push,
                "true: ann may push red/app by spec.auth.token.rules[1] (teams: * (ann is in red), repositories: ${team}/**, actions: pull push)",
            ),
            (
                "",
                "public/app",
                Action::Pull,
                "true: somebody without a login may pull public/app by spec.auth.token.rules[0] (anonymous: true, repositories: public/**, actions: pull)",
            ),
            ("ann", "red/app", Action::Delete, "false: no rule of spec.auth.token.rules lets ann delete red/app"),
            ("root", "red/app", Action::Delete, "true: root is the generated admin, who may do everything"),
            ("zoe", "public/app", Action::Pull, "false: zoe cannot log in: status.users has everybody who can"),
        ] {
            assert_eq!(says(&auth, user, Access::Repository(name, action)), said);
        }
        assert_eq!(
            says(&auth, "ann", Access::Catalog),
            "false: no rule of spec.auth.token.rules lets ann list all repositories"
        );
    }

    #[test]
    fn whom_an_issuer_knows_has_what_names_him_or_his_groups() {
        let auth = json!({"token": {
            "issuers": [{"name": "ci", "issuer": "https://ci.example.com", "audience": "here"}],
            "teams": [{"name": "red", "groups": ["ci:acme"]}],
            "rules": [{"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull"]}],
        }});
        for (name, groups, said) in [
            (
                "ci:acme/web",
                &["ci:acme"][..],
                "true: ci:acme/web may pull red/app by spec.auth.token.rules[0] (teams: * (ci:acme/web is in red), repositories: ${team}/**, actions: pull)",
            ),
            ("ci:acme/web", &[], "false: no rule of spec.auth.token.rules lets ci:acme/web pull red/app"),
            (
                "gitlab:x",
                &["ci:acme"],
                "false: gitlab:x cannot log in: no issuer of spec.auth.token.issuers is called gitlab",
            ),
        ] {
            let guest =
                Guest { name: name.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect() };
            let Answer { is_yes, why } =
                answer(&registry(&auth), Caller::Guest(&guest), Access::Repository("red/app", Action::Pull));
            assert_eq!(format!("{is_yes}: {why}"), said);
        }
    }

    #[test]
    fn nobody_deletes_where_the_registry_does_not() {
        let mut fixed = registry(&json!({"none": {}}));
        fixed.spec.config = None;
        let said = answer(&fixed, Caller::Anonymous, Access::Repository("app", Action::Delete));
        assert!(!said.is_yes && said.why.contains("spec.config.allowDeletes"), "{}", said.why);
    }

    #[test]
    fn without_rules_a_login_decides() {
        for (auth, user, said) in [
            (json!({}), "ann", "true: without spec.auth.token whoever has logged in may do everything"),
            (json!({}), "", "false: this registry asks everybody for a login"),
            (json!({"none": {}}), "", "true: spec.auth.none lets everybody do everything"),
        ] {
            assert_eq!(says(&auth, user, Access::Catalog), said);
        }
        let broken = json!({"token": {"rules": [{"users": ["*"], "repositories": ["a**"], "actions": ["pull"]}]}});
        let said = says(&broken, "ann", Access::Repository("ab", Action::Pull));
        assert!(said.contains("rules[0] has \"a**\"") && said.starts_with("false"), "{said}");
    }
}
