//! The operator is killed before and after each of its writes. The next one brings every registry to the state that it would have without that, and does
//! nothing a second time.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::children::{self, comparable, differences};
use crate::cluster::namespace;
use crate::known;
use crate::life::{Behind, Step, kept};
use crate::proxy::{Done, Fault, Seen};
use crate::registry::Registry;

/// No step has so many writes.
const MOST: usize = 40;

/// When the operator is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// The API server never hears of the write.
    Before,
    /// The operator never hears that it was done.
    After,
}

impl When {
    fn fault(self, registry: &str, write: usize) -> Fault {
        let registry = registry.to_owned();
        match self {
            Self::Before => Fault::KillBefore { registry, write },
            Self::After => Fault::KillAfter { registry, write },
        }
    }
}

/// What a step leads to.
struct Outcome {
    children: children::Children,
    done: BTreeMap<String, Done>,
    kept: Vec<(String, Value)>,
}

impl Behind<'_> {
    /// Does everything that comes before this step for registries of these names, all at once.
    async fn prepare(&self, names: &[String], step: Step) {
        futures::future::join_all(names.iter().map(|name| self.team.login(name))).await;
        for before in step.before() {
            for name in names {
                Registry::named(self.team, name).takes(*before).await;
            }
            for name in names {
                Registry::named(self.team, name).is_done(&self.proxy).await;
            }
        }
        self.proxy.forget();
    }

    async fn outcome(&self, registry: &Registry<'_>, step: Step) -> Outcome {
        registry.is_done(&self.proxy).await;
        let children = comparable(&registry.name, &children::of(self.team, &registry.name).await);
        Outcome { children, done: self.proxy.done(&registry.name), kept: kept(registry, step).await }
    }
}

async fn killed_at_each_write(step: Step, when: When) {
    let purpose = format!("killed-{step:?}-{when:?}").to_lowercase();
    let Some(team) = namespace(&purpose).await else { return };
    let started = Instant::now();
    let mut behind = Behind::start(&team).await;
    let mut complaints = Vec::new();

    let calm = Registry::named(&team, "calm-00");
    behind.prepare(std::slice::from_ref(&calm.name), step).await;
    calm.takes(step).await;
    let wanted = behind.outcome(&calm, step).await;
    let writes = behind.proxy.seen("calm-00").iter().filter(|seen| seen.is_write()).count();
    assert!((1..MOST).contains(&writes), "{writes} writes: {:?}", wanted.done);

    let names: Vec<_> = (1..=writes).map(|write| format!("hurt-{write:02}")).collect();
    behind.prepare(&names, step).await;
    let mut kills = 0;
    for (name, write) in names.iter().zip(1..) {
        let registry = Registry::named(&team, name);
        let kept_before =
            if [Step::Create, Step::Enroll].contains(&step) { None } else { Some(kept(&registry, step).await) };
        behind.proxy.does(when.fault(name, write));
        registry.takes(step).await;
        let hit = behind.proxy.kills().await;
        behind.proxy.does(Fault::None);
        if !hit {
            // Two changes of the status may have become one.
            continue;
        }
        kills += 1;
        behind.starts().await;

        let found = behind.outcome(&registry, step).await;
        let case = format!("write {write} of {writes}");
        let differs = differences(&wanted.children, &found.children);
        if !differs.is_empty() {
            complaints.push((case.clone(), format!("another state in the end: {}", differs.join("; "))));
        }
        if found.done != wanted.done {
            let line = |seen: Seen| format!("{} {} {} {}", seen.verb, seen.resource, seen.name, seen.code);
            let seen: Vec<_> = behind.proxy.seen(name).into_iter().filter(Seen::is_write).map(line).collect();
            complaints.push((case.clone(), format!("done {:?} instead of {:?}: {seen:?}", found.done, wanted.done)));
        }
        if kept_before.is_some_and(|before| before != found.kept) {
            complaints.push((case, "what is kept has changed".to_owned()));
        }
    }
    eprintln!("{purpose}: {kills} kills at {writes} writes in {:?}", started.elapsed());
    assert!(kills * 2 >= writes, "of {writes} writes only {kills} were hit");
    known::judge(&purpose, &complaints);
}

#[tokio::test]
async fn killed_before_each_write_while_a_registry_is_made() {
    killed_at_each_write(Step::Create, When::Before).await;
}

#[tokio::test]
async fn killed_after_each_write_while_a_registry_is_made() {
    killed_at_each_write(Step::Create, When::After).await;
}

#[tokio::test]
async fn killed_before_each_write_while_a_manifest_changes() {
    killed_at_each_write(Step::Update, When::Before).await;
}

#[tokio::test]
async fn killed_after_each_write_while_a_manifest_changes() {
    killed_at_each_write(Step::Update, When::After).await;
}

#[tokio::test]
async fn killed_before_each_write_while_a_certificate_is_renewed() {
    killed_at_each_write(Step::Renew, When::Before).await;
}

#[tokio::test]
async fn killed_after_each_write_while_a_certificate_is_renewed() {
    killed_at_each_write(Step::Renew, When::After).await;
}

#[tokio::test]
async fn killed_before_each_write_while_one_authority_takes_over_from_another() {
    killed_at_each_write(Step::Rotate, When::Before).await;
}

#[tokio::test]
async fn killed_after_each_write_while_one_authority_takes_over_from_another() {
    killed_at_each_write(Step::Rotate, When::After).await;
}

#[tokio::test]
async fn killed_before_and_after_each_write_while_a_password_changes() {
    killed_at_each_write(Step::ChangePassword, When::Before).await;
    killed_at_each_write(Step::ChangePassword, When::After).await;
}

#[tokio::test]
async fn killed_before_and_after_each_write_while_one_login_takes_over_from_another() {
    killed_at_each_write(Step::Enroll, When::Before).await;
    killed_at_each_write(Step::TakeTurns, When::Before).await;
    killed_at_each_write(Step::TakeTurns, When::After).await;
}

#[tokio::test]
async fn killed_before_and_after_each_write_while_kept_children_are_released() {
    killed_at_each_write(Step::Release, When::Before).await;
    killed_at_each_write(Step::Release, When::After).await;
}

#[tokio::test]
async fn killed_before_and_after_each_write_while_somebody_is_asked_to_sign() {
    killed_at_each_write(Step::Ask, When::Before).await;
    killed_at_each_write(Step::Ask, When::After).await;
}

#[tokio::test]
async fn killed_before_and_after_each_write_while_what_somebody_signed_is_taken() {
    killed_at_each_write(Step::Answer, When::Before).await;
    killed_at_each_write(Step::Answer, When::After).await;
}
