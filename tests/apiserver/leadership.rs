//! Of two operators one writes, and never both, whatever happens to the one.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use testbed::control_plane::{Entry, Mark};

use crate::cluster::{Namespace, namespace};
use crate::operator::Operator;
use crate::wait::{PATIENCE, eventually, within};

const TWIN: &str = "twin";

/// Whether a request wrote something that is not about the election or a question of rights.
fn is_work(entry: &Entry) -> bool {
    entry.is_write()
        && entry.code < 400
        && !["leases", "selfsubjectaccessreviews", "selfsubjectrulesreviews"].contains(&entry.resource.as_str())
}

/// Two operators under names of their own, the first of them leading.
struct Pair {
    leader: Operator,
    standby: Operator,
    leaders_name: String,
    standbys_name: String,
}

impl Namespace {
    async fn pair(&self) -> Pair {
        let credentials = self.credentials().await.to_owned();
        let leader = self.operator_as(&credentials, &[], &[]);
        leader.leads().await;
        self.second_account(TWIN).await;
        let standby = self.operator_as(&self.credentials_of(TWIN, 3600).await, &[], &[]);
        let readiness = standby.ready().await;
        assert!(readiness.contains("standby"), "a standby is ready and says what it is: {readiness}");
        assert_eq!(standby.metric("leader").await, 0.0);
        Pair {
            leader,
            standby,
            leaders_name: self.operators_name(),
            standbys_name: format!("system:serviceaccount:{}:{TWIN}", self.name),
        }
    }

    /// Who wrote since `mark`, in order.
    async fn writers_since(&self, mark: Mark) -> Vec<String> {
        let all = self.cluster.plane.audit().await.unwrap().since(mark).await.unwrap();
        let here = |entry: &Entry| entry.user.starts_with(&format!("system:serviceaccount:{}:", self.name));
        all.into_iter().filter(here).filter(is_work).map(|entry| entry.user).collect()
    }
}

impl Operator {
    async fn leads(&self) {
        eventually(PATIENCE, "it leads", async || match self.get("/metrics").await {
            Ok(_) if self.metric("leader").await == 1.0 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

impl Pair {
    /// The standby leads within 20 seconds of `since`.
    async fn standby_takes_over(&self, since: Instant) {
        self.standby.leads().await;
        let took = since.elapsed();
        assert!(took <= within(20), "the takeover took {took:?}");
        eprintln!("the takeover took {took:?}");
    }

    /// The first write of the standby ends those of the leader.
    async fn never_wrote_both(&self, team: &Namespace, mark: Mark) {
        let writers = team.writers_since(mark).await;
        let first = writers.iter().position(|writer| *writer == self.standbys_name).expect("the standby has written");
        assert!(writers[..first].contains(&self.leaders_name), "the leader has written before");
        assert!(!writers[first..].contains(&self.leaders_name), "the leader wrote after the standby had taken over");
    }
}

#[tokio::test]
async fn a_killed_leader_is_replaced_within_twenty_seconds() {
    let Some(team) = namespace("leader-killed").await else { return };
    let pair = team.pair().await;
    let mark = team.mark().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;

    pair.leader.kill();
    let killed = Instant::now();
    registry.service().delete().await;

    pair.standby_takes_over(killed).await;
    registry.service().appears(PATIENCE).await;
    pair.never_wrote_both(&team, mark).await;
}

#[tokio::test]
async fn a_leader_that_stops_hands_over_at_once() {
    let Some(team) = namespace("leader-stopped").await else { return };
    let pair = team.pair().await;
    let mark = team.mark().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;

    let stopped = Instant::now();
    assert!(pair.leader.stop().await.success());
    registry.service().delete().await;

    pair.standby.leads().await;
    let took = stopped.elapsed();
    assert!(took < within(10), "the lease was released, and yet the handover took {took:?}");
    registry.service().appears(PATIENCE).await;
    pair.never_wrote_both(&team, mark).await;
}

#[tokio::test]
async fn a_frozen_leader_writes_nothing_when_it_thaws_after_another_has_taken_over() {
    let Some(team) = namespace("leader-frozen").await else { return };
    let pair = team.pair().await;
    let mark = team.mark().await;
    let registry = team.registry("first", json!({})).await.ready().await;
    // So that it has much to do at the moment when it is frozen.
    for number in 0..12 {
        team.registry(&format!("registry-{number}"), json!({"storage": {"emptyDir": {}}})).await;
    }
    pair.leader.process.signal(Signal::SIGSTOP).unwrap();
    let frozen = Instant::now();

    pair.standby_takes_over(frozen).await;
    for number in 0..12 {
        crate::registry::Registry::named(&team, &format!("registry-{number}")).ready().await;
    }
    pair.leader.process.signal(Signal::SIGCONT).unwrap();
    registry.service().delete().await;

    let exit = pair.leader.ended(within(10)).await;
    assert_eq!(exit.code(), Some(3), "a lost lease ends the process");
    registry.service().appears(PATIENCE).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    pair.never_wrote_both(&team, mark).await;
    let log = pair.leader.log();
    assert!(log.contains("the lease could not be renewed"), "it says why it ends: {log}");
}
