//! Who may log in, and as whom pods pull: by what the manifest says, on the API server.

use serde_json::json;

use crate::cluster::namespace;
use crate::wait::PATIENCE;

#[tokio::test]
async fn users_of_an_htpasswd_file_keep_their_passwords_and_a_flawed_line_stops_nobody_else() {
    let Some(team) = namespace("logins-lines").await else { return };
    let _operator = team.operator().await;
    let hash = bcrypt::hash_with_result("correct horse", 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    team.secret("old", &[("auth", &format!("# old server\nann:{hash}\nben:$apr1$planted$secret\n"))]).await;
    let spec = json!({"auth": {"usersFrom": [{"htpasswdSecretRef": {"name": "old"}}]}});
    let registry = team.registry("team-a", spec).await;

    registry.lets_in("ann", "correct horse").await;
    let words = registry.says("UsersReady", "False", "HtpasswdHashUnsupported").await;
    assert!(words.contains("line 3") && words.contains("ben") && !words.contains("planted"), "{words}");
    assert!(registry.htpasswd().decoded("htpasswd").await.contains(&format!("ann:{hash}\n")), "the line as it was");

    team.secret("old", &[("auth", &format!("ann:{hash}\n"))]).await;
    let words = registry.says("UsersReady", "True", "Written").await;
    assert!(words.contains("spec.pullSecrets"), "there is no login for pods, and it is said: {words}");
    let user = registry.object.at("/status/users/0").await;
    assert_eq!(user["source"], json!({"kind": "UsersFrom", "name": "old", "key": "auth"}));
}

#[tokio::test]
async fn a_table_of_users_is_taken_for_no_password_and_a_basic_auth_secret_for_no_table() {
    let Some(team) = namespace("logins-refused").await else { return };
    let _operator = team.operator().await;
    team.secret("lines", &[("auth", "ann:$apr1$planted$secretsecretsecret")]).await;
    let basic = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "basic"}, "type": "kubernetes.io/basic-auth",
        "stringData": {"username": "alice-the-user", "password": "correct horse"},
    });
    team.create(basic).await;
    let from = |secret: &str| json!({"auth": {"usersFrom": [{"secretRef": {"name": secret}}]}});

    let registry = team.registry("team-a", from("lines")).await;
    let words = registry.says("UsersReady", "False", "PasswordIsHtpasswd").await;
    assert!(words.contains("htpasswdSecretRef") && !words.contains("planted"), "{words}");

    registry.apply(from("basic")).await.unwrap();
    let words = registry.says("UsersReady", "False", "SecretTypeRefused").await;
    assert!(words.contains("passwordSecretRef"), "{words}");
    assert!(!registry.knows("username", "alice-the-user").await && !registry.knows("password", "correct horse").await);
}

#[tokio::test]
async fn pods_pull_as_who_is_named_and_as_nobody_else() {
    let Some(team) = namespace("logins-pull").await else { return };
    let _operator = team.operator().await;
    team.secret("many", &[("build", "may push all"), ("cluster", "pulls for pods")]).await;
    let users = json!({"usersFrom": [{"secretRef": {"name": "many"}}]});
    let registry = team.registry("team-a", json!({"auth": users})).await.ready().await;
    let pull = registry.child("Secret", "-pull");
    assert!(pull.find().await.is_none(), "nobody said who pods are, and the first user may push");

    let named =
        |user: &str| json!({"auth": users, "pullSecrets": [{"user": user}], "addresses": ["registry.example.com"]});
    registry.apply(named("cluster")).await.unwrap();
    pull.appears(PATIENCE).await;
    let login = pull.decoded(".dockerconfigjson").await;
    assert!(login.contains("pulls for pods") && !login.contains("may push all"), "{login}");
    for host in ["registry.example.com", "team-a:5000", "team-a.logins-pull:5000"] {
        assert!(login.contains(&format!("\"{host}\":")), "{host}: {login}");
    }
    assert!(!login.contains("registry.example.com:"), "{login}");

    registry.apply(named("nobody")).await.unwrap();
    let words = registry.says("UsersReady", "False", "PullUserUnknown").await;
    assert!(words.contains("nobody"), "{words}");
    pull.disappears(PATIENCE).await;
    registry.lets_in("build", "may push all").await;
}

#[tokio::test]
async fn a_label_for_all_is_on_every_child_and_in_no_selector() {
    let Some(team) = namespace("logins-labels").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({"commonLabels": {"cost-center": "4711"}})).await.ready().await;
    let children = registry.children().await;
    assert!(children.len() > 8, "{}", children.len());
    for child in children {
        assert_eq!(child.at("/metadata/labels/cost-center").await, "4711", "{}", child.name);
    }
    let deployment = registry.deployment();
    assert_eq!(deployment.at("/spec/template/metadata/labels/cost-center").await, "4711");
    assert!(deployment.at("/spec/selector/matchLabels/cost-center").await.is_null());
}

/// Lines of an htpasswd file with these users, all with the same hash.
fn crowd(users: std::ops::Range<u32>) -> String {
    let hash = bcrypt::hash_with_result("correct horse", 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    users.map(|number| format!("somebody-{number:05}@example.com:{hash}\n")).collect()
}

#[tokio::test]
async fn a_user_who_is_removed_is_out_also_where_others_find_no_room() {
    let Some(team) = namespace("logins-crowd").await else { return };
    let _operator = team.operator().await;
    team.secret("early", &[("htpasswd", &crowd(0..4_000))]).await;
    team.secret("late", &[("htpasswd", &crowd(4_000..8_000))]).await;
    team.secret("ann", &[("password", "correct horse")]).await;
    let ann = json!([{"name": "ann", "passwordSecretRef": {"name": "ann"}}]);
    let from =
        |secrets: &[&str]| secrets.iter().map(|name| json!({"htpasswdSecretRef": {"name": name}})).collect::<Vec<_>>();
    let registry = team.registry("team-a", json!({"auth": {"users": ann, "usersFrom": from(&["early"])}})).await;
    registry.lets_in("ann", "correct horse").await;

    registry.apply(json!({"auth": {"usersFrom": from(&["late", "early"])}})).await.unwrap();
    let words = registry.says("UsersReady", "False", "TooManyUsers").await;
    assert!(words.contains("user somebody-0") && words.contains("others are not in the table"), "{words}");
    let table = registry.htpasswd().decoded("htpasswd").await;
    assert!(!table.contains("ann:"), "whoever is removed is out");
    let has = |number: u32| table.contains(&format!("somebody-{number:05}@"));
    assert!((0..4_000).all(has) && has(4_000) && !has(7_999), "whoever was in stays in; of the others as many as fit");
    team.settles().await;

    registry.apply(json!({"auth": {"usersFrom": from(&["late"])}})).await.unwrap();
    let words = registry.says("UsersReady", "True", "Written").await;
    assert!(words.starts_with("4000 users"), "{words}");
}

#[tokio::test]
async fn each_pull_secret_has_its_name_and_its_user_and_goes_with_its_entry() {
    let Some(team) = namespace("logins-pulls").await else { return };
    let _operator = team.operator().await;
    team.secret("many", &[("build", "builds and pushes"), ("cluster", "pulls for pods")]).await;
    let theirs = team.secret("theirs", &[("key", "value")]).await;
    let with = |pulls: serde_json::Value| json!({"auth": {"usersFrom": [{"secretRef": {"name": "many"}}]}, "pullSecrets": pulls});
    let two = json!([{"user": "cluster"}, {"name": "for-builds", "user": "build"}]);
    let registry = team.registry("team-a", with(two)).await.ready().await;
    let (pull, builds) = (registry.child("Secret", "-pull"), team.object("Secret", "for-builds"));
    assert!(pull.decoded(".dockerconfigjson").await.contains("pulls for pods"));
    assert!(builds.decoded(".dockerconfigjson").await.contains("builds and pushes"));

    registry.apply(with(json!([{"name": "for-builds", "user": "cluster"}]))).await.unwrap();
    pull.disappears(PATIENCE).await;
    registry.says("UsersReady", "True", "Written").await;
    assert!(builds.decoded(".dockerconfigjson").await.contains("pulls for pods"));

    for (name, reason) in [("theirs", "NotOurs"), ("many", "InvalidManifest"), ("team-a-tls", "InvalidManifest")] {
        registry
            .apply(with(json!([{"name": "for-builds", "user": "build"}, {"name": name, "user": "build"}])))
            .await
            .unwrap();
        let words = registry.says("UsersReady", "False", reason).await;
        assert!(words.contains(name), "{words}");
        assert!(builds.decoded(".dockerconfigjson").await.contains("builds and pushes"), "the other goes on");
    }
    assert_eq!(theirs.decoded("key").await, "value");

    registry.apply(with(json!([]))).await.unwrap();
    builds.disappears(PATIENCE).await;
    assert!(registry.tls().find().await.is_some());
}

#[tokio::test]
async fn secrets_that_are_too_large_together_stop_only_the_users_in_them() {
    let Some(team) = namespace("logins-huge").await else { return };
    let _operator = team.operator().await;
    let filling = format!("# {}\n", "x".repeat(900 << 10));
    let huge = ["huge-0", "huge-1", "huge-2"];
    for name in huge {
        team.secret(name, &[("htpasswd", &filling)]).await;
    }
    team.secret("small", &[("carl", "one two three")]).await;
    team.secret("ann", &[("password", "correct horse")]).await;
    let users = json!([{"name": "ann", "passwordSecretRef": {"name": "ann"}}]);
    let mut from: Vec<_> = huge.iter().map(|name| json!({"htpasswdSecretRef": {"name": name}})).collect();
    from.push(json!({"secretRef": {"name": "small"}}));
    let registry = team.registry("team-a", json!({"auth": {"users": users, "usersFrom": from}})).await;

    let words = registry.says("UsersReady", "False", "SecretsTooLarge").await;
    assert!(words.contains("Secret huge-2") && !words.contains("Secret small"), "{words}");
    registry.lets_in("ann", "correct horse").await;
    registry.lets_in("carl", "one two three").await;
}
