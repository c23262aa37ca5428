//! `doctor`: follows an image from this machine, from a pod and from a node to a registry, and says at each step what is wrong and what to do.
//!
//! What there is to know is asked for first ([`gather`]), and judged then by what was found alone: `operator`, `registry`, `here`, `certificate`, `pod` and `node`
//! have a check in a few lines each.

mod certificate;
mod check;
mod facts;
mod gather;
mod here;
mod node;
mod operator;
mod pod;
mod print;
mod registry;
mod words;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt as _, stream};
use operator_engine::process::flag_values::{self, duration};
use private_registry_operator::credentials::UserName;
use private_registry_operator::model::RegistryName;
use serde_json::Value;

use self::check::{Check, Found, Group, Missing, Section, Verdict, is_well};
use self::facts::{Facts, Image};
use self::gather::Question;
pub(crate) use self::gather::{OPERATOR, USUAL, limited};
use self::print::value;
use crate::access;
use crate::cluster::{self, Connected, Place};
use crate::shell;

/// How often everything is asked again, with `--wait`.
const EVERY: Duration = Duration::from_secs(2);
/// Registries that are asked at once.
const AT_ONCE: usize = 4;

/// Options of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry [default: all of the namespace]
    #[arg(value_parser = cluster::name)]
    name: Option<RegistryName>,
    /// The image to follow, as pods name it
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// The node that pulls
    #[arg(long, value_name = "NAME", value_parser = flag_values::name)]
    node: Option<String>,
    /// Log in as this user, whose password is asked for, instead of as the generated admin
    #[arg(short, long, value_name = "NAME", value_parser = access::user, requires = "name")]
    user: Option<UserName>,
    /// Read the password of --user from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// The authority that signs there, in PEM, instead of those that the cluster knows
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Look again until nothing fails, for this long at most
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// How to print it
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: print::Form,
    #[command(flatten)]
    place: Place,
}

/// Whether nothing failed.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let login = match (&options.user, &options.name) {
        (Some(user), Some(name)) => Some(access::given(user, options.password_stdin, name.as_str())?),
        _ => None,
    };
    let question = Question {
        image: options.image.as_deref().map(Image::parse),
        node: options.node.clone(),
        login,
        ca: options.ca.clone(),
    };
    cluster::within_limits(async {
        let cluster = options.place.connect().await?;
        let until = Instant::now() + options.wait.unwrap_or_default();
        loop {
            let sections = look(&cluster, options.name.as_ref(), &question).await;
            let left = until.saturating_duration_since(Instant::now());
            if is_well(&sections) || left.is_zero() {
                shell::print(&print::text(&sections, options.output)?);
                return Ok(is_well(&sections));
            }
            tokio::time::sleep(EVERY.min(left)).await;
        }
    })
}

/// The same for a report: one registry, or all of a namespace, and nothing in particular.
pub(crate) async fn all(cluster: &Connected, name: Option<&RegistryName>) -> Value {
    value(&look(cluster, name, &Question { image: None, node: None, login: None, ca: None }).await)
}

/// Looks once.
async fn look(cluster: &Connected, name: Option<&RegistryName>, question: &Question) -> Vec<Section> {
    let server = gather::server(&cluster.client).await;
    let unreachable = server.as_ref().err().cloned();
    let names = match (name, &unreachable) {
        (Some(name), _) => Ok(vec![name.clone()]),
        (None, Some(why)) => Err(why.clone()),
        (None, None) => named(cluster, question).await,
    };
    let asked = names.iter().flatten().map(async |name| {
        let registry = cluster.registry(name);
        match &unreachable {
            Some(why) => gather::nothing(&registry, question, why),
            None => gather::registry(&registry, question).await,
        }
    });
    let all: Vec<Facts> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let operators: BTreeSet<_> = all.iter().filter_map(|facts| facts.status().operator).collect();
    let mut missing = Missing::default();
    let facts = gather::cluster(&cluster.client, server, &operators).await;
    let mut sections = vec![operator::GROUP.look("", &facts, &mut missing)];
    if name.is_none() {
        let listed =
            Listed { namespace: cluster.namespace.clone(), count: names.as_ref().map(Vec::len).map_err(Clone::clone) };
        sections.push(LISTED.look("", &listed, &mut missing));
    }
    sections.extend(all.iter().flat_map(|facts| judged(facts, &missing)));
    sections
}

/// Everything that is judged of one registry.
fn judged(facts: &Facts, missing: &Missing) -> Vec<Section> {
    // What one registry lacks keeps nothing from another.
    let mut missing = missing.clone();
    let title = format!("PrivateRegistry {}/{}", facts.namespace, facts.name);
    let groups = [&registry::GROUP, &here::GROUP, &certificate::GROUP, &pod::GROUP, &node::GROUP];
    let sections = groups.map(|group| group.look(&title, facts, &mut missing));
    sections.into_iter().filter(|section| !section.checks.is_empty()).collect()
}

/// The registries of a namespace; with an image, those that have its host for an address.
async fn named(cluster: &Connected, question: &Question) -> Found<Vec<RegistryName>> {
    let found = limited(cluster.registries(false)).await?;
    let host = question.image.as_ref().and_then(|image| image.host.as_deref());
    let has_it = |object: &&Value| {
        let addresses = object["status"]["addresses"].as_array();
        host.is_none_or(|host| addresses.into_iter().flatten().any(|known| known["address"] == host))
    };
    let names = found.objects.iter().filter(has_it).filter_map(|object| object["metadata"]["name"].as_str());
    let names: Vec<_> = names.filter_map(|name| RegistryName::parse(name).ok()).collect();
    match host {
        Some(host) if names.is_empty() => {
            Err(format!("no registry of namespace {} has the address {host}", cluster.namespace))
        }
        _ => Ok(names),
    }
}

/// The registries of a namespace.
struct Listed {
    namespace: String,
    count: Found<usize>,
}

static LISTED: Group<Listed> = Group {
    name: "Registries",
    checks: &[Check {
        id: "registries",
        title: "registries of the namespace are found",
        page: "troubleshooting.md#what-is-looked-at",
        needs: &["api-server", "definition"],
        judge: |listed| {
            Some(match &listed.count {
                Ok(0) => Verdict::good(format!("there are none in {}; -n names another one", listed.namespace)),
                Ok(count) => Verdict::good(format!("{count} in {}", listed.namespace)),
                Err(why) => Verdict::failed(
                    why.as_str(),
                    "kubectl registry list --all-namespaces shows all with their addresses; -n and NAME say which one is meant",
                ),
            })
        },
    }],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::check::Outcome;
    use super::facts::testing;
    use super::*;

    /// Identifier and page of every check, and what each needs.
    fn all() -> Vec<(&'static str, &'static str, &'static [&'static str])> {
        fn of<F>(group: &Group<F>) -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])> {
            group.checks.iter().map(|check| (check.id, check.page, check.needs))
        }
        let registry = [&registry::GROUP, &here::GROUP, &certificate::GROUP, &pod::GROUP, &node::GROUP];
        let first = of(&operator::GROUP).chain(of(&LISTED));
        first.chain(registry.into_iter().flat_map(of)).collect()
    }

    fn docs() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
    }

    /// As the pages' own tables of contents have it.
    fn anchor(title: &str) -> String {
        let kept = title.to_lowercase();
        kept.chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
            .collect::<String>()
            .replace(' ', "-")
    }

    fn is_there(page: &str) -> bool {
        let (file, section) = page.split_once('#').unwrap_or((page, ""));
        let text = fs::read_to_string(docs().join(file)).unwrap_or_default();
        let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
        !text.is_empty() && (section.is_empty() || titles.map(anchor).any(|title| title == section))
    }

    #[test]
    fn every_page_that_is_named_exists_with_its_section() {
        let known = words::KNOWN.iter().map(|known| known.page);
        let others = ["frontend.md#when-something-is-wrong", "trust-on-nodes.md#messages"];
        for page in all().into_iter().map(|(_, page, _)| page).chain(known).chain(others) {
            assert!(is_there(page), "docs/{page}");
        }
        assert!(!is_there("clients.md#nothing") && !is_there("nothing.md"));
    }

    #[test]
    fn every_word_that_is_known_stands_in_the_documentation() {
        let text = fs::read_to_string(docs().join("clients.md")).unwrap();
        for words in words::KNOWN.iter().map(|known| known.words[0]) {
            assert!(text.contains(words), "{words}");
        }
    }

    #[test]
    fn every_check_has_a_name_of_its_own_is_documented_and_needs_what_comes_before() {
        let text = fs::read_to_string(docs().join("troubleshooting.md")).unwrap();
        let mut seen = BTreeMap::new();
        for (id, _, needs) in all() {
            assert!(text.contains(&format!("`{id}`")), "{id} is not in docs/troubleshooting.md");
            for need in needs {
                assert!(seen.contains_key(need), "{id} needs {need}, which does not come before");
            }
            assert!(seen.insert(id, ()).is_none(), "{id} is there twice");
        }
    }

    #[test]
    fn of_a_registry_that_is_not_there_nothing_else_is_a_fault() {
        let facts = Facts { registry: Err("there is no such registry".to_owned()), ..testing::facts() };
        let sections = judged(&facts, &Missing::default());
        assert_eq!(check::count(&sections, Outcome::Failed), 1, "{sections:#?}");
        assert_eq!(check::count(&sections, Outcome::Good), 0, "{sections:#?}");
    }
}
