//! The rules: who may do what with which repositories. Allow only: what no rule says is not allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::RepositoryGlob;
use super::cluster::ClusterLogins;
use super::issuer::{Guest, Issuer};

/// Everybody who has logged in, or every team.
pub const ALL: &str = "*";

const ANY_REPOSITORY: &str = "**";

/// What somebody may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, strum::Display, strum::EnumString,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Action {
    /// Read a repository.
    Pull,
    /// Write to a repository.
    Push,
    /// Delete from a repository.
    Delete,
    /// List the names of all repositories.
    Catalog,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller<'a> {
    /// Nobody in particular.
    Anonymous,
    /// Somebody who has logged in.
    User(&'a str),
    /// Somebody whom an issuer knows. `*` does not stand for him: everybody in the world may have a token of a public issuer.
    Guest(&'a Guest),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access<'a> {
    /// Something with a repository.
    Repository(&'a str, Action),
    /// Listing all repositories.
    Catalog,
}

/// A team: a name for several users, or groups.
pub type Team = BTreeSet<String>;

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Users by name, or `*`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users: BTreeSet<String>,
    /// Teams by name, or `*`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub teams: BTreeSet<String>,
    /// Whether it is also for who has not logged in.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Which repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<RepositoryGlob>,
    /// What may be done.
    pub actions: BTreeSet<Action>,
}

/// Who may do what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Users who may do everything.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub administrators: BTreeSet<String>,
    /// Who is in which team.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub teams: BTreeMap<String, Team>,
    /// Which groups of issuers are in which team.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Team>,
    /// The rules, as they stand in the manifest. `None` where one could not be followed: it allows nothing.
    pub rules: Vec<Option<Rule>>,
}

/// What the sidecar is told beside the table of users.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessFile {
    /// Whom tokens are for, and who gives them.
    pub service: String,
    /// Who may do what.
    pub policy: Policy,
    /// How the cluster's tokens count; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterLogins>,
    /// Who else says who somebody is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<Issuer>,
    /// Lines of the table that are a second password of a user, each with the user's name. Whoever comes by the name of such a line is that user, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub second_lines: BTreeMap<String, String>,
}

impl AccessFile {
    /// Its text, JSON.
    #[must_use]
    pub fn render(&self) -> String {
        serde_json::to_string(self).expect("rules are JSON")
    }
}

/// Why something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Who asks may do everything.
    Administrator,
    /// The rule with this number, counted from 0.
    Rule(usize),
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Administrator => f.write_str("administrator"),
            Self::Rule(number) => write!(f, "rules[{number}]"),
        }
    }
}

impl Policy {
    /// Whoever has logged in may do everything.
    #[must_use]
    pub fn everything() -> Self {
        let all = || BTreeSet::from([ALL.to_owned()]);
        let patterns = vec![RepositoryGlob::parse(ANY_REPOSITORY).expect("a pattern")];
        let actions = [Action::Pull, Action::Push, Action::Delete].into();
        let repositories = Rule { users: all(), repositories: patterns, actions, ..Rule::default() };
        let catalog = Rule { users: all(), actions: [Action::Catalog].into(), ..Rule::default() };
        Self { rules: vec![Some(repositories), Some(catalog)], ..Self::default() }
    }

    /// The first rule that allows it, or `None`.
    #[must_use]
    pub fn allows(&self, caller: Caller<'_>, access: Access<'_>) -> Option<Grant> {
        if matches!(caller, Caller::User(name) if self.administrators.contains(name)) {
            return Some(Grant::Administrator);
        }
        let allows = |rule: &Option<Rule>| rule.as_ref().is_some_and(|rule| self.rule_allows(rule, caller, access));
        self.rules.iter().position(allows).map(Grant::Rule)
    }

    /// Those of `wanted` that some rule allows.
    #[must_use]
    pub fn allowed<'a>(&self, caller: Caller<'_>, wanted: &BTreeSet<Access<'a>>) -> BTreeSet<Access<'a>> {
        wanted.iter().copied().filter(|access| self.allows(caller, *access).is_some()).collect()
    }

    /// Whether there is anything for who has not logged in.
    #[must_use]
    pub fn has_anonymous(&self) -> bool {
        self.rules.iter().flatten().any(|rule| rule.anonymous)
    }

    fn rule_allows(&self, rule: &Rule, caller: Caller<'_>, access: Access<'_>) -> bool {
        let (user, is_known) = match caller {
            Caller::Anonymous => (None, false),
            Caller::User(name) => (Some(name), true),
            Caller::Guest(guest) => (Some(guest.name.as_str()), false),
        };
        let is_named = user.is_some_and(|name| rule.users.contains(name)) || (is_known && rule.users.contains(ALL));
        let is_for_all = rule.anonymous || is_named;
        let is_it = |team: Option<&str>| match access {
            Access::Catalog => rule.actions.contains(&Action::Catalog),
            Access::Repository(name, action) => {
                action != Action::Catalog
                    && rule.actions.contains(&action)
                    && rule.repositories.iter().any(|pattern| pattern.matches(name, user, team))
            }
        };
        // By a team, a repository may be the team's.
        let by_team = || {
            let mut of_rule =
                self.teams_of(caller).filter(|name| rule.teams.contains(*name) || rule.teams.contains(ALL));
            of_rule.any(|name| is_it(Some(name)))
        };
        (is_for_all && is_it(None)) || by_team()
    }

    /// The teams that somebody is in, by his own name or by a group's.
    pub fn teams_of(&self, caller: Caller<'_>) -> impl Iterator<Item = &str> {
        let (name, groups): (_, &[String]) = match caller {
            Caller::Anonymous => (None, &[]),
            Caller::User(name) => (Some(name), &[]),
            Caller::Guest(guest) => (Some(guest.name.as_str()), &guest.groups),
        };
        let by_name = self.teams.iter().filter(move |(_, team)| name.is_some_and(|name| team.contains(name)));
        let by_group = self.groups.iter().filter(move |(_, team)| groups.iter().any(|group| team.contains(group)));
        by_name.chain(by_group).map(|(team, _)| team.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn policy(value: &Value) -> Policy {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn company() -> Policy {
        policy(&json!({
            "administrators": ["root"],
            "teams": {"red": ["ann", "ben"], "blue": ["ben"], "empty": []},
            "rules": [
                {"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull", "push"]},
                {"users": ["*"], "repositories": ["users/${user}/**"], "actions": ["pull", "push", "delete"]},
                {"anonymous": true, "repositories": ["public/**"], "actions": ["pull"]},
                null,
                {"users": ["robot"], "repositories": ["**"], "actions": ["pull"]},
                {"users": ["robot"], "teams": ["blue"], "actions": ["catalog"]},
                {"teams": ["red"], "repositories": ["shared/app"], "actions": ["delete"]},
            ],
        }))
    }

    #[test]
    fn each_rule_allows_what_it_says_and_nothing_else() {
        use Action::{Delete, Pull, Push};
        let policy = company();
        for (user, name, action, grant) in [
            ("ann", "red/app", Push, Some(0)),
            ("ann", "red/a/b", Pull, Some(0)),
            ("ann", "red/app", Delete, None),
            ("ann", "blue/app", Pull, None),
            ("ben", "blue/app", Pull, Some(0)),
            ("ben", "empty/app", Pull, None),
            ("ann", "users/ann/app", Delete, Some(1)),
            ("ann", "users/ben/app", Pull, None),
            ("", "public/app", Pull, Some(2)),
            ("", "public/app", Push, None),
            ("ann", "public/app", Pull, Some(2)),
            ("", "users//app", Pull, None),
            ("", "red/app", Pull, None),
            ("robot", "red/app", Pull, Some(4)),
            ("robot", "red/app", Push, None),
            ("ann", "shared/app", Delete, Some(6)),
            ("ann", "shared/app", Pull, None),
            ("stranger", "red/app", Pull, None),
        ] {
            let caller = if user.is_empty() { Caller::Anonymous } else { Caller::User(user) };
            let found = policy.allows(caller, Access::Repository(name, action));
            assert_eq!(found, grant.map(Grant::Rule), "{user} {name} {action}");
        }
        for (user, grant) in [("robot", Some(5)), ("ben", Some(5)), ("ann", None)] {
            assert_eq!(policy.allows(Caller::User(user), Access::Catalog), grant.map(Grant::Rule), "{user}");
        }
        assert_eq!(policy.allows(Caller::User("root"), Access::Catalog), Some(Grant::Administrator));
        assert!(policy.has_anonymous() && !Policy::default().has_anonymous());
    }

    #[test]
    fn a_guest_has_what_names_him_or_his_groups_and_nothing_of_everybody() {
        use Action::{Pull, Push};
        let mut policy = company();
        policy.groups = [("red".to_owned(), Team::from(["ci:acme".to_owned()]))].into();
        policy.teams.get_mut("blue").unwrap().insert("ci:acme/web".to_owned());
        let rule = json!({"users": ["ci:robot"], "repositories": ["${user}/x", "one"], "actions": ["pull"]});
        policy.rules.push(serde_json::from_value(rule).unwrap());
        let guest = |name: &str, groups: &[&str]| Guest {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let (web, robot, nobody) =
            (guest("ci:acme/web", &["ci:acme"]), guest("ci:robot", &[]), guest("ci:x", &["ci:y", "red"]));
        for (who, name, action, grant) in [
            (&web, "red/app", Push, Some(0)),
            (&web, "blue/app", Pull, Some(0)),
            (&web, "empty/app", Pull, None),
            (&web, "public/app", Pull, Some(2)),
            (&web, "one", Pull, None),
            (&robot, "one", Pull, Some(7)),
            (&robot, "ci:robot/x", Pull, None),
            (&nobody, "red/app", Pull, None),
            (&nobody, "users/ci:x/app", Pull, None),
            // `*` is everybody of the table.
            (&guest("ann", &[]), "users/ann/app", Pull, None),
        ] {
            let found = policy.allows(Caller::Guest(who), Access::Repository(name, action));
            assert_eq!(found, grant.map(Grant::Rule), "{who:?} {name} {action}");
        }
        assert_eq!(
            policy.allows(Caller::Guest(&guest("root", &[])), Access::Catalog),
            None,
            "an administrator is of the table"
        );
    }

    #[test]
    fn without_rules_whoever_has_logged_in_may_do_everything() {
        let policy = Policy::everything();
        for access in
            [Access::Catalog, Access::Repository("a/b", Action::Delete), Access::Repository("a", Action::Push)]
        {
            assert!(policy.allows(Caller::User("ann"), access).is_some());
            assert_eq!(policy.allows(Caller::Anonymous, access), None);
        }
    }

    #[test]
    fn catalog_is_nothing_of_a_repository() {
        let policy = policy(&json!({"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["catalog"]}]}));
        assert_eq!(policy.allows(Caller::User("ann"), Access::Repository("app", Action::Catalog)), None);
    }

    #[test]
    fn a_file_with_what_this_program_does_not_know_is_refused() {
        for value in [
            json!({"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"], "unless": "night"}]}),
            json!({"rules": [], "deny": []}),
            json!({"rules": [{"users": ["*"], "repositories": ["a//b"], "actions": ["pull"]}]}),
            json!({"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["own"]}]}),
        ] {
            assert!(serde_json::from_value::<Policy>(value.clone()).is_err(), "{value}");
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
    }

    fn action() -> impl Strategy<Value = Action> {
        prop::sample::select(vec![Action::Pull, Action::Push, Action::Delete, Action::Catalog])
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let some = || prop::collection::btree_set(name(), 0..3);
        let pattern = prop::sample::select(vec!["a", "a/*", "b/**", "${user}/*", "${team}/*", "**/c"]);
        let patterns = prop::collection::vec(pattern.prop_map(|text| RepositoryGlob::parse(text).unwrap()), 0..3);
        (some(), some(), any::<bool>(), patterns, prop::collection::btree_set(action(), 0..3)).prop_map(
            |(users, teams, anonymous, repositories, actions)| Rule { users, teams, anonymous, repositories, actions },
        )
    }

    proptest! {
        #[test]
        fn nothing_is_allowed_that_no_rule_says_by_itself(
            rules in prop::collection::vec(rule(), 0..4),
            teams in prop::collection::btree_map(name(), prop::collection::btree_set(name(), 0..3), 0..3),
            user in prop::option::of(name()),
            repository in "[abc](/[abc]){0,2}",
            action in action(),
        ) {
            let policy = Policy { rules: rules.into_iter().map(Some).collect(), teams, ..Policy::default() };
            let caller = user.as_deref().map_or(Caller::Anonymous, Caller::User);
            let access = Access::Repository(&repository, action);
            let Some(Grant::Rule(number)) = policy.allows(caller, access) else { return Ok(()) };
            let rule = policy.rules[number].clone().unwrap();
            prop_assert!(rule.actions.contains(&action));
            let is_member = |team: &String| user.as_ref().is_some_and(|user| policy.teams.get(team).is_some_and(|all| all.contains(user)));
            prop_assert!(rule.anonymous || user.as_ref().is_some_and(|user| rule.users.contains(user)) || rule.teams.iter().any(is_member));
            let alone = Policy { rules: vec![Some(rule.clone())], ..policy.clone() };
            prop_assert_eq!(alone.allows(caller, access), Some(Grant::Rule(0)));
            // Without who, without which and without what it allows nothing.
            for less in [
                Rule { users: BTreeSet::new(), teams: BTreeSet::new(), anonymous: false, ..rule.clone() },
                Rule { repositories: Vec::new(), ..rule.clone() },
                Rule { actions: BTreeSet::new(), ..rule },
            ] {
                let less = Policy { rules: vec![Some(less)], ..policy.clone() };
                prop_assert_eq!(less.allows(caller, access), None);
            }
        }
    }
}
