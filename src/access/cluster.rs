//! Who logs in with a token of the cluster, and what its RBAC is asked: may he do `pull`, `push` or `delete` with `repositories.privateregistry.dev` of this
//! name, in the registry's namespace? Listing all repositories is `list`.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use serde::{Deserialize, Serialize};

use super::{Access, Action};
use crate::api::GROUP;
use crate::secret::Sensitive;

/// What roles name.
const RESOURCE: &str = "repositories";
/// The questions about tokens and rights, which an administrator lets a registry ask: groups and resources.
pub const REVIEWS: [(&str, &str); 2] =
    [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")];
/// Bytes of a user's groups and the like, which stand in each of his tokens: a head has 16 KiB.
const LARGEST: usize = 4 << 10;
/// How a registry trusts the cluster's tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterLogins {
    /// Whom a token must be for.
    pub audience: String,
    /// Where roles are looked for: the registry's namespace.
    pub namespace: String,
}

/// Somebody whom the cluster knows, with all that its RBAC asks about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterUser {
    /// For instance `system:serviceaccount:shop:builder`.
    pub name: String,
    /// Another one for each that had this name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Names of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What else the cluster says, for instance the pod that a token is of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl ClusterUser {
    /// A ServiceAccount, as the cluster describes it
    /// (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>).
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ];
        let name = format!("system:serviceaccount:{namespace}:{name}");
        Self { name, groups: groups.to_vec(), ..Self::default() }
    }

    /// The question whether he may have something that roles speak of.
    #[must_use]
    pub fn may(&self, resource: ResourceAttributes) -> SubjectAccessReview {
        let spec = SubjectAccessReviewSpec {
            user: Some(self.name.clone()),
            uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(self.groups.clone()),
            extra: Some(self.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        SubjectAccessReview { spec, ..SubjectAccessReview::default() }
    }
}

impl ClusterLogins {
    /// The question whose token it is.
    #[must_use]
    pub fn who(&self, token: &Sensitive<Vec<u8>>) -> TokenReview {
        let token = String::from_utf8_lossy(token.expose()).into_owned();
        let spec = TokenReviewSpec { token, audiences: Some(vec![self.audience.clone()]) };
        TokenReview { spec, ..TokenReview::default() }
    }

    /// The question whether `user` may have this access.
    #[must_use]
    pub fn may(&self, user: &ClusterUser, access: Access<'_>) -> SubjectAccessReview {
        let (verb, name) = match access {
            Access::Repository(name, action) => (verb(action), Some(name.to_owned())),
            Access::Catalog => (verb(Action::Catalog), None),
        };
        let resource = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            group: Some(GROUP.to_owned()),
            resource: Some(RESOURCE.to_owned()),
            verb: Some(verb.to_owned()),
            name,
            ..ResourceAttributes::default()
        };
        user.may(resource)
    }

    /// Whose token it is, by the cluster's answer.
    ///
    /// # Errors
    /// It is nobody's, or not for this registry; why, in words for who came with it.
    pub fn user(&self, review: TokenReview) -> Result<ClusterUser, String> {
        let status = review.status.unwrap_or_default();
        // A server that does not know about audiences leaves them out.
        let is_ours = status.audiences.unwrap_or_default().contains(&self.audience);
        if status.authenticated != Some(true) || !is_ours {
            let why = status.error.map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!(
                "the cluster does not accept this token; it must be for the audience {}{why}",
                self.audience
            ));
        }
        let UserInfo { username, uid, groups, extra } = status.user.unwrap_or_default();
        let name = username.filter(|name| !name.is_empty()).ok_or("the cluster does not say whose token this is")?;
        let (uid, groups) = (uid.unwrap_or_default(), groups.unwrap_or_default());
        let user = ClusterUser { name, uid, groups, extra: extra.unwrap_or_default() };
        let size = serde_json::to_vec(&user).map_or(usize::MAX, |text| text.len());
        if size > LARGEST {
            return Err(format!(
                "{} has groups of {size} bytes, of {LARGEST} that there is room for in a token",
                user.name
            ));
        }
        Ok(user)
    }
}

/// What an administrator does, so that a registry may ask the cluster about tokens and rights.
#[must_use]
pub fn binding(namespace: &str, name: &str) -> String {
    format!(
        "kubectl create clusterrolebinding registry-{namespace}-{name} --clusterrole=system:auth-delegator --serviceaccount={namespace}:{name}"
    )
}

/// As roles say it.
#[must_use]
pub fn verb(action: Action) -> &'static str {
    match action {
        Action::Pull => "pull",
        Action::Push => "push",
        Action::Delete => "delete",
        Action::Catalog => "list",
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenReviewStatus;
    use serde_json::json;

    use super::*;

    fn logins() -> ClusterLogins {
        ClusterLogins { audience: "company.registries.svc".to_owned(), namespace: "registries".to_owned() }
    }

    fn builder() -> ClusterUser {
        ClusterUser {
            name: "system:serviceaccount:shop:builder".to_owned(),
            uid: "1-2-3".to_owned(),
            groups: vec!["system:serviceaccounts".to_owned()],
            extra: [("authentication.kubernetes.io/pod-name".to_owned(), vec!["p".to_owned()])].into(),
        }
    }

    fn review(status: TokenReviewStatus) -> TokenReview {
        TokenReview { status: Some(status), ..TokenReview::default() }
    }

    fn accepted() -> TokenReviewStatus {
        let ClusterUser { name, uid, groups, extra } = builder();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["company.registries.svc".to_owned()]),
            user: Some(UserInfo { username: Some(name), uid: Some(uid), groups: Some(groups), extra: Some(extra) }),
            error: None,
        }
    }

    #[test]
    fn the_cluster_is_asked_about_everything_that_it_said_itself() {
        let asked = |access| serde_json::to_value(logins().may(&builder(), access)).unwrap()["spec"].clone();
        let mut wanted = json!({
            "user": "system:serviceaccount:shop:builder", "uid": "1-2-3", "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-name": ["p"]},
            "resourceAttributes": {
                "namespace": "registries", "group": "privateregistry.dev", "resource": "repositories", "verb": "push", "name": "shop/web",
            },
        });
        assert_eq!(asked(Access::Repository("shop/web", Action::Push)), wanted);
        wanted["resourceAttributes"] = json!({"namespace": "registries", "group": "privateregistry.dev", "resource": "repositories", "verb": "list"});
        assert_eq!(asked(Access::Catalog), wanted);
        let who = serde_json::to_value(logins().who(&b"a-token".to_vec().into())).unwrap()["spec"].clone();
        assert_eq!(who, json!({"token": "a-token", "audiences": ["company.registries.svc"]}));
    }

    #[test]
    fn a_token_counts_only_for_this_audience_and_with_a_name() {
        assert_eq!(logins().user(review(accepted())), Ok(builder()));
        let nobody = UserInfo { username: Some(String::new()), ..UserInfo::default() };
        let many =
            UserInfo { username: Some("u".into()), groups: Some(vec!["g".repeat(40); 100]), ..UserInfo::default() };
        for (status, why) in [
            (TokenReviewStatus { authenticated: Some(false), ..accepted() }, "company.registries.svc"),
            (TokenReviewStatus { authenticated: None, error: Some("it ended".into()), ..accepted() }, ": it ended"),
            (TokenReviewStatus { audiences: None, ..accepted() }, "does not accept"),
            (
                TokenReviewStatus { audiences: Some(vec!["https://kubernetes.default.svc".into()]), ..accepted() },
                "accept",
            ),
            (TokenReviewStatus { user: None, ..accepted() }, "whose token"),
            (TokenReviewStatus { user: Some(nobody), ..accepted() }, "whose token"),
            (TokenReviewStatus { user: Some(many), ..accepted() }, "of 4096"),
        ] {
            let refusal = logins().user(review(status)).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
        assert!(logins().user(TokenReview::default()).is_err());
    }
}
