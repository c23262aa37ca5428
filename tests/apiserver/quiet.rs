//! A settled registry costs nothing: no read and no write, whatever makes the operator look at it again.

use std::time::Duration;

use serde_json::json;

use crate::cluster::{Namespace, namespace};
use crate::operator::Operator;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

impl Namespace {
    /// Waits until the operator has asked nothing of the API server for a while.
    pub async fn settles(&self) {
        eventually(PATIENCE, "the operator asks nothing more", async || {
            let mark = self.mark().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let asked = self.asked_since(mark).await;
            if asked.is_empty() { Ok(()) } else { Err(format!("{asked:#?}")) }
        })
        .await;
    }
}

/// Makes the operator look at the registry once more although nothing is to be done.
async fn look_again(operator: &Operator, registry: &Registry<'_>, round: usize) {
    let before = operator.passes().await;
    registry.object.annotate("example.com/round", round.to_string()).await;
    eventually(PATIENCE, "another pass", async || {
        let now = operator.passes().await;
        if now > before { Ok(()) } else { Err(format!("{now} passes")) }
    })
    .await;
}

#[tokio::test]
async fn a_quiet_pass_reads_and_writes_nothing() {
    let team = namespace("quiet").await;
    let operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    team.settles().await;

    let mark = team.mark().await;
    for round in 0..5 {
        look_again(&operator, &registry, round).await;
    }

    assert_eq!(team.asked_since(mark).await, []);
}
