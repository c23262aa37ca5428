//! People push and pull.

use serde_json::json;

use crate::client::Person;
use crate::cluster::cluster;
use crate::registry::Registry;

#[tokio::test]
async fn an_image_pushed_over_tls_with_the_generated_login_can_be_pulled() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("pushing", "team-a", json!({})).await.ready().await;

    takes_and_gives_images(&registry).await;
}

#[tokio::test]
async fn without_a_login_it_is_401_and_without_the_authority_x509() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("strangers", "team-a", json!({})).await.ready().await;

    refuses_strangers(&registry).await;
}

#[tokio::test]
async fn without_authentication_everybody_who_trusts_it_may_push_and_pull() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("everybody", "open", json!({"auth": {"none": {}}})).await.ready().await;
    let stranger = registry.stranger().await;

    let pushed = stranger.pushes("team/app:1", "open").await;

    assert_eq!(stranger.pulls("team/app:1").await, pushed);
}

/// What every registry does for its owner.
pub(crate) async fn takes_and_gives_images(registry: &Registry) {
    let admin = registry.admin().await;

    let pushed = admin.pushes("team/app:1", "first").await;

    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

/// What every registry does to others.
pub(crate) async fn refuses_strangers(registry: &Registry) {
    let stranger = registry.stranger().await;
    assert_eq!(stranger.sees("/v2/").await, "401");
    let refusal = stranger.tries_to_pull("team/app:1").await.unwrap_err();
    assert!(refusal.contains("UNAUTHORIZED") || refusal.contains("401"), "{refusal}");

    let login = registry.secret(&format!("{}-admin", registry.name)).await;
    let guesser = registry.user("admin", &format!("not {}", login["password"])).await;
    assert_eq!(guesser.sees("/v2/").await, "401");
    assert_eq!(registry.admin().await.sees("/v2/").await, "200");

    let distrustful = Person::new(registry).logged_in("admin", &login["password"]);
    let refusal = distrustful.tries_to_pull("team/app:1").await.unwrap_err();
    assert!(refusal.contains("x509: certificate signed by unknown authority"), "{refusal}");

    let other = rcgen::generate_simple_self_signed([registry.host()]).unwrap().cert.pem();
    let mistaken = Person::new(registry).trusting(&other).logged_in("admin", &login["password"]);
    let refusal = mistaken.tries_to_pull("team/app:1").await.unwrap_err();
    assert!(refusal.contains("x509: certificate signed by unknown authority"), "{refusal}");
}
