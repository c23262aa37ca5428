//! An operator that is killed at any moment leaves nothing that the next one can't bring to its end, and no trust is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::registry::Registry;

const REGISTRIES: usize = 10;
const KILLS: usize = 20;
const SEED: u64 = 20_260_723;

/// A row of numbers that look random and are the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// What clients may trust by now: the bundle of each registry that has one.
async fn published(team: &Namespace) -> BTreeMap<String, Value> {
    let mut bundles = BTreeMap::new();
    for name in team.names("ConfigMap").await.into_iter().filter(|name| name.ends_with("-ca-bundle")) {
        let bundle = team.object("ConfigMap", &name).at("/data/ca.crt").await;
        bundles.insert(name, bundle);
    }
    bundles
}

fn spec(number: usize) -> Value {
    match number % 3 {
        0 => json!({}),
        1 => json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}}),
        _ => {
            json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}}})
        }
    }
}

/// Kinds and suffixes of a registry's children.
async fn shape(registry: &Registry<'_>) -> BTreeSet<(String, String)> {
    let suffix = |name: &str| name.strip_prefix(&registry.name).unwrap_or(name).to_owned();
    registry.children().await.iter().map(|child| (child.kind.clone(), suffix(&child.name))).collect()
}

#[tokio::test]
async fn an_operator_killed_at_random_moments_converges_and_changes_no_authority_once_published() {
    let Some(team) = namespace("crashes").await else { return };
    let credentials = team.credentials().await.to_owned();
    let mut dice = Dice(SEED);
    let mut names = Vec::new();
    let mut trusted = BTreeMap::new();
    for kill in 0..KILLS {
        // Without an election: the next one need not wait until the lease of the one before has run out.
        let operator = team.operator_as(&credentials, &["--leader-elect=false"], &[]);
        if names.len() < REGISTRIES {
            let name = format!("registry-{}", names.len());
            team.registry(&name, spec(names.len())).await;
            names.push(name);
        }
        operator.ready().await;
        tokio::time::sleep(Duration::from_millis(dice.below(if kill < REGISTRIES { 400 } else { 150 }))).await;
        operator.kill();
        for (name, bundle) in published(&team).await {
            let before = trusted.entry(name.clone()).or_insert_with(|| bundle.clone()).clone();
            assert_eq!(bundle, before, "{name} after kill {kill}: what was published must stay");
        }
    }

    let _operator = team.operator_as(&credentials, &["--leader-elect=false"], &[]);
    let mut shapes: BTreeMap<usize, BTreeSet<_>> = BTreeMap::new();
    for (number, name) in names.iter().enumerate() {
        let registry = Registry::named(&team, name).ready().await;
        shapes.entry(number % 3).or_default().insert(shape(&registry).await);
        let authority = registry.ca().decoded("tls.crt").await;
        assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), authority.trim());
        assert_eq!(registry.tls().decoded("ca.crt").await.trim(), authority.trim());
        let password = registry.admin().decoded("password").await;
        registry.lets_in("admin", &password).await;
    }
    assert!(shapes.values().all(|same| same.len() == 1), "registries of one spec differ: {shapes:#?}");
    for (name, bundle) in published(&team).await {
        assert!(trusted.get(&name).is_none_or(|before| *before == bundle), "{name}: another authority in the end");
    }
    team.settles().await;
}
