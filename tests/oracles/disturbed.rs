//! Requests are refused, bodies never end, watches close, events are lost, the API server lags behind. The registry ends as it would without that, nothing
//! is made twice, and nothing that lives is deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::children::{self, Children, PASSWORDS, comparable, differences};
use crate::cluster::namespace;
use crate::known;
use crate::life::{Behind, LIMIT, Step, kept};
use crate::proxy::{Done, Fault};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

/// How often somebody looks at a registry that does not become ready.
const LOOK: Duration = Duration::from_secs(30);

/// The life that each registry of these tests has.
const LIFE: [Step; 4] = [Step::Create, Step::Update, Step::ChangePassword, Step::Renew];

impl Registry<'_> {
    /// Waits until a step has come to its end.
    async fn has_taken(&self, step: Step, leaf_before: &str) {
        match step {
            Step::ChangePassword => {
                eventually(LIMIT, "the new password counts", async || {
                    if self.knows("alice", PASSWORDS[1]).await { Ok(()) } else { Err("the old one".to_owned()) }
                })
                .await;
            }
            Step::Renew => {
                eventually(LIMIT, "another certificate is there", async || {
                    let leaf = self.tls().decoded("tls.crt").await;
                    if leaf == leaf_before { Err("the old one".to_owned()) } else { Ok(()) }
                })
                .await;
            }
            _ => {}
        }
        // What fails again and again is tried after pauses that grow to minutes: somebody looks at the registry, which ends them.
        let looks = async {
            for look in 1_u32.. {
                tokio::time::sleep(LOOK).await;
                self.object.annotate("example.com/look", look.to_string()).await;
            }
        };
        tokio::select! {
            _ = self.says_within(LIMIT, "Ready", "True", "") => {}
            () = looks => {}
        }
    }

    async fn lives(&self) {
        for step in LIFE {
            let leaf = if step == Step::Create { String::new() } else { self.tls().decoded("tls.crt").await };
            self.takes(step).await;
            self.has_taken(step, &leaf).await;
        }
    }
}

/// What was made and deleted: writing again what is there already is no fault.
fn lasting(done: &BTreeMap<String, Done>) -> BTreeMap<String, (usize, usize)> {
    done.iter().map(|(title, done)| (title.clone(), (done.made, done.deleted))).collect()
}

/// The children in the end, and what was made and deleted on the way.
async fn life(behind: &Behind<'_>, name: &str, fault: Fault) -> (Children, BTreeMap<String, (usize, usize)>) {
    behind.team.login(name).await;
    let registry = Registry::named(behind.team, name);
    behind.proxy.forget();
    behind.proxy.does(fault.clone());
    registry.lives().await;
    let occasions = behind.proxy.occasions();
    behind.proxy.does(Fault::None);
    assert!(
        fault == Fault::None || matches!(fault, Fault::CloseWatches { .. }) || occasions > 20,
        "{occasions} occasions"
    );
    // What failed last is tried again after a pause that may be long; a look at the registry ends it.
    registry.object.annotate("example.com/look", "again").await;
    // What was refused is tried again after a second; until then what was said before looks like the end.
    behind.proxy.is_quiet_within(LIMIT, Duration::from_secs(2)).await;
    registry.is_done(&behind.proxy).await;
    let children = comparable(name, &children::of(behind.team, name).await);
    (children, lasting(&behind.proxy.done(name)))
}

async fn lives_through(purpose: &str, fault: Fault) {
    let Some(team) = namespace(purpose).await else { return };
    let behind = Behind::start(&team).await;
    let started = Instant::now();
    let (wanted, done) = life(&behind, "calm-00", Fault::None).await;
    let calm = started.elapsed();
    let (found, did) = life(&behind, "hurt-01", fault).await;
    eprintln!("{purpose}: {calm:?} without, {:?} with", started.elapsed() - calm);
    let mut complaints = Vec::new();
    let differs = differences(&wanted, &found);
    if !differs.is_empty() {
        complaints.push(("state".to_owned(), differs.join("; ")));
    }
    if did != done {
        complaints.push(("made and deleted".to_owned(), format!("{did:?} instead of {done:?}")));
    }
    known::judge(purpose, &complaints);
}

#[tokio::test]
async fn conflicts_at_one_write_in_three() {
    lives_through("refused-409", Fault::Refuse { code: 409, every: 3 }).await;
}

#[tokio::test]
async fn too_many_requests_at_one_request_in_three() {
    lives_through("refused-429", Fault::Refuse { code: 429, every: 3 }).await;
}

#[tokio::test]
async fn server_errors_at_one_request_in_six() {
    lives_through("refused-500", Fault::Refuse { code: 500, every: 6 }).await;
}

#[tokio::test]
async fn unavailability_at_one_request_in_three() {
    lives_through("refused-503", Fault::Refuse { code: 503, every: 3 }).await;
}

#[tokio::test]
async fn watches_that_close_all_the_time() {
    lives_through("closing", Fault::CloseWatches { after: Duration::from_millis(300) }).await;
}

#[tokio::test]
async fn bodies_that_never_end() {
    let Some(team) = namespace("stalling").await else { return };
    let behind = Behind::start(&team).await;
    let calm = {
        team.login("calm-00").await;
        let registry = Registry::named(&team, "calm-00");
        registry.takes(Step::Create).await;
        registry.is_done(&behind.proxy).await;
        comparable("calm-00", &children::of(&team, "calm-00").await)
    };
    let done = lasting(&behind.proxy.done("calm-00"));
    team.login("hurt-01").await;
    let registry = Registry::named(&team, "hurt-01");
    let started = Instant::now();
    behind.proxy.does(Fault::Stall { every: 12 });
    registry.takes(Step::Create).await;
    registry.says_within(LIMIT, "Ready", "True", "").await;
    let occasions = behind.proxy.occasions();
    behind.proxy.does(Fault::None);
    eprintln!("stalling: {occasions} requests in {:?}", started.elapsed());
    assert!(occasions >= 12, "{occasions} requests: too few to be stalled");
    registry.is_done(&behind.proxy).await;
    let found = comparable("hurt-01", &children::of(&team, "hurt-01").await);
    let mut complaints = Vec::new();
    let differs = differences(&calm, &found);
    if !differs.is_empty() {
        complaints.push(("state".to_owned(), differs.join("; ")));
    }
    let did = lasting(&behind.proxy.done("hurt-01"));
    if did != done {
        complaints.push(("made and deleted".to_owned(), format!("{did:?} instead of {done:?}")));
    }
    known::judge("stalling", &complaints);
}

/// What happens while nothing is heard is seen only in its end: a manifest that went and came back, a registry deleted and made again, a child that
/// somebody made anew.
#[tokio::test]
async fn changes_that_nobody_heard_of() {
    let Some(team) = namespace("blind").await else { return };
    let behind = Behind::start(&team).await;
    let names = ["toggled", "replaced", "undone"];
    for name in names {
        team.login(name).await;
        Registry::named(&team, name).takes(Step::Create).await;
    }
    for name in names {
        Registry::named(&team, name).is_done(&behind.proxy).await;
    }
    let [toggled, replaced, undone] = names.map(|name| Registry::named(&team, name));
    let before: Vec<_> = {
        let all = children::all(&team).await;
        names.iter().map(|name| comparable(name, &all[*name])).collect()
    };
    let kept_before =
        [kept(&toggled, Step::Update).await, kept(&replaced, Step::Update).await, kept(&undone, Step::Update).await];
    behind.proxy.forget();

    behind.proxy.does(Fault::Blind);
    toggled.takes(Step::Update).await;
    toggled.takes(Step::Create).await;
    replaced.delete().await;
    replaced.takes(Step::Create).await;
    undone.service().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    undone.tls().delete().await;
    undone.deployment().edit(json!({"spec": {"replicas": 0}})).await;
    eventually(PATIENCE, "events were not heard", async || {
        let lost = behind.proxy.occasions();
        if lost >= 6 { Ok(()) } else { Err(lost.to_string()) }
    })
    .await;
    behind.proxy.does(Fault::None);

    let mut complaints = Vec::new();
    for ((registry, before), kept_before) in [&toggled, &replaced, &undone].into_iter().zip(before).zip(kept_before) {
        registry.says_within(LIMIT, "Ready", "True", "").await;
        let mut differs = Vec::new();
        let started = Instant::now();
        // The garbage collector may still be at work on what belonged to the former one.
        while started.elapsed() < Duration::from_secs(60) {
            differs = differences(&before, &comparable(&registry.name, &children::of(&team, &registry.name).await));
            if differs.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        if !differs.is_empty() {
            complaints.push((registry.name.clone(), differs.join("; ")));
        }
        if kept(registry, Step::Update).await != kept_before {
            complaints.push((registry.name.clone(), "what is kept has changed".to_owned()));
        }
        let deleted: Vec<_> =
            behind.proxy.done(&registry.name).into_iter().filter(|(_, done)| done.deleted > 0).collect();
        if !deleted.is_empty() {
            complaints.push((registry.name.clone(), format!("deleted {deleted:?}")));
        }
    }
    known::judge("blind", &complaints);
}

/// An operator that starts anew and is shown the past: a registry that is gone and was made again under its name, children of an older manifest.
#[tokio::test]
async fn an_api_server_that_lags_behind_gets_nothing_deleted_that_lives() {
    let Some(team) = namespace("lagging").await else { return };
    let mut behind = Behind::start(&team).await;
    let (replaced, changed) = (Registry::named(&team, "replaced"), Registry::named(&team, "changed"));
    for registry in [&replaced, &changed] {
        team.login(&registry.name).await;
        registry.takes(Step::Create).await;
    }
    for registry in [&replaced, &changed] {
        registry.is_done(&behind.proxy).await;
    }
    // What a newly started operator lists now is what it will be shown later.
    behind.kill();
    behind.starts().await;
    behind.proxy.is_quiet().await;
    behind.proxy.remember_lists();

    changed.takes(Step::Update).await;
    replaced.delete().await;
    replaced.takes(Step::Create).await;
    for registry in [&replaced, &changed] {
        registry.is_done(&behind.proxy).await;
    }
    behind.proxy.is_quiet_within(LIMIT, Duration::from_secs(2)).await;
    behind.kill();
    let before = children::all(&team).await;
    behind.proxy.forget();

    behind.proxy.does(Fault::Lag);
    behind.starts().await;
    eventually(PATIENCE, "it was shown the past", async || {
        let shown = behind.proxy.occasions();
        if shown >= 5 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    behind.proxy.is_quiet_within(LIMIT, Duration::from_secs(3)).await;
    let while_lagging: Vec<_> = ["replaced", "changed"].map(|name| behind.proxy.done(name)).into();
    behind.proxy.does(Fault::None);
    for _ in 0..2 {
        // What was said while it lagged may look like the end.
        behind.proxy.is_quiet_within(LIMIT, Duration::from_secs(2)).await;
        for registry in [&replaced, &changed] {
            registry.says_within(LIMIT, "Ready", "True", "").await;
        }
    }

    let after = children::all(&team).await;
    let mut complaints = Vec::new();
    for (name, lagging) in ["replaced", "changed"].into_iter().zip(while_lagging) {
        let differs = differences(&comparable(name, &before[name]), &comparable(name, &after[name]));
        if !differs.is_empty() {
            complaints.push((name.to_owned(), format!("another state in the end: {}", differs.join("; "))));
        }
        let deleted = |done: &BTreeMap<String, Done>| -> Vec<String> {
            done.iter()
                .filter(|(_, done)| done.deleted > 0 || done.made > 0)
                .map(|(title, done)| format!("{title} {done:?}"))
                .collect()
        };
        let (during, all) = (deleted(&lagging), deleted(&behind.proxy.done(name)));
        if !all.is_empty() {
            complaints.push((
                name.to_owned(),
                format!("made or deleted while it was shown the past {during:?}, and all in all {all:?}"),
            ));
        }
    }
    known::judge("lagging", &complaints);
}

/// Reading ahead saves requests and is no condition of anything: a page that ends in its middle makes nothing look as if it were gone.
#[tokio::test]
async fn a_page_that_stops_in_its_middle_while_a_round_reads_ahead_makes_nobody_miss_a_child() {
    let Some(team) = namespace("half-a-page").await else { return };
    let mut behind = Behind::start(&team).await;
    let names = ["calm", "drifted", "robbed"];
    for name in names {
        team.login(name).await;
        Registry::named(&team, name).takes(Step::Create).await;
    }
    for name in names {
        Registry::named(&team, name).is_done(&behind.proxy).await;
    }
    let [calm, drifted, robbed] = names.map(|name| Registry::named(&team, name));
    let before = children::all(&team).await;
    let kept_before =
        [kept(&calm, Step::Update).await, kept(&drifted, Step::Update).await, kept(&robbed, Step::Update).await];
    for of in ["secrets", "services"] {
        behind.kill();
        drifted.service().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
        let uid = robbed.service().uid().await;
        robbed.service().delete().await;
        behind.proxy.forget();
        behind.proxy.does(Fault::StallLists { of });
        behind.starts().await;
        robbed.service().is_made_again(&uid, LIMIT).await;
        let repaired =
            |live: &serde_json::Value| live["metadata"]["labels"]["app.kubernetes.io/name"] == "private-registry";
        drifted.service().becomes(LIMIT, "is repaired", repaired).await;
        eventually(LIMIT, "the round ends", async || {
            if behind.process().log().contains("looked at all") { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        behind.proxy.is_quiet_within(LIMIT, Duration::from_secs(2)).await;
        let stopped = behind.proxy.occasions();
        assert!(stopped > 0, "no list of {of} was stopped");
        behind.proxy.does(Fault::None);
        for name in names {
            let done = lasting(&behind.proxy.done(name));
            let lasts: Vec<_> = done.iter().filter(|(_, did)| **did != (0, 0)).collect();
            let wanted = usize::from(name == "robbed");
            let made: usize = lasts.iter().map(|(_, (made, _))| made).sum();
            let deleted: usize = lasts.iter().map(|(_, (_, deleted))| deleted).sum();
            assert_eq!((made, deleted), (wanted, 0), "{name}, {of}: {lasts:?}");
        }
    }
    let after = children::all(&team).await;
    for name in names {
        let differs = differences(&comparable(name, &before[name]), &comparable(name, &after[name]));
        assert!(differs.is_empty(), "{name}: {}", differs.join("; "));
    }
    assert!(
        kept_before
            == [kept(&calm, Step::Update).await, kept(&drifted, Step::Update).await, kept(&robbed, Step::Update).await],
        "what is kept has changed"
    );
}
