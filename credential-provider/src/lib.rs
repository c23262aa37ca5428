//! The kubelet's question and the answer to it
//! (<https://kubernetes.io/docs/reference/config-api/kubelet-credentialprovider.v1/>).

use serde::Deserialize;
use serde_json::json;

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// The registry looks at the token and not at this.
const USER: &str = "serviceaccount";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    service_account_token: String,
}

/// Answers one question, both as JSON. The answer holds the token, and no error does.
///
/// # Errors
/// It is no question of this version, it has no image or no token; what to do.
pub fn answer(question: &[u8]) -> Result<String, String> {
    // Not the parser's own words: they may repeat what they stumbled over.
    let question: Question = serde_json::from_slice(question).map_err(|error| {
        format!(
            "what the kubelet asks is no CredentialProviderRequest (line {}, column {})",
            error.line(),
            error.column()
        )
    })?;
    if question.api_version != VERSION {
        return Err(format!("the kubelet's configuration must say apiVersion: {VERSION} for this provider"));
    }
    let registry = question.image.split_once('/').map(|(registry, _)| registry).filter(|registry| !registry.is_empty());
    let registry = registry.ok_or("the kubelet asks about an image without a registry in its name")?;
    if question.service_account_token.is_empty() {
        return Err("the kubelet sends no token: the provider's configuration needs tokenAttributes with serviceAccountTokenAudience, cacheType: Token and requireServiceAccount: true".to_owned());
    }
    let login = json!({"username": USER, "password": question.service_account_token});
    let answer = json!({
        "apiVersion": VERSION, "kind": "CredentialProviderResponse",
        // The token is good for the whole registry; the kubelet keeps each ServiceAccount's answers apart.
        "cacheKeyType": "Registry", "auth": {registry: login},
    });
    Ok(answer.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn question(image: &str, token: &str) -> String {
        json!({
            "apiVersion": VERSION, "kind": "CredentialProviderRequest", "image": image, "serviceAccountToken": token,
            "serviceAccountAnnotations": {"a": "b"},
        })
        .to_string()
    }

    #[test]
    fn the_token_is_the_password_of_the_images_registry() {
        for (image, registry) in [
            ("company.registries.svc:5000/shop/web:1", "company.registries.svc:5000"),
            ("registry.example.com/web@sha256:0", "registry.example.com"),
            ("[fd00::1]:5000/web", "[fd00::1]:5000"),
        ] {
            let answer: Value = serde_json::from_str(&answer(question(image, "a-token").as_bytes()).unwrap()).unwrap();
            let login = json!({"username": "serviceaccount", "password": "a-token"});
            assert_eq!(answer["auth"], json!({registry: login}), "{image}");
            assert_eq!(
                (&answer["kind"], &answer["cacheKeyType"]),
                (&json!("CredentialProviderResponse"), &json!("Registry"))
            );
        }
    }

    #[test]
    fn a_question_that_cannot_be_answered_says_why_and_repeats_no_token() {
        let other = question("r/a", "planted").replace("/v1", "/v1beta1");
        for (question, why) in [
            (question("r/a", ""), "tokenAttributes"),
            (question("web", "planted"), "without a registry"),
            (question("/web", "planted"), "without a registry"),
            (other, "apiVersion"),
            ("{\"serviceAccountToken\": \"planted\", \"image\": 1}".to_owned(), "no CredentialProviderRequest"),
            ("planted".to_owned(), "no CredentialProviderRequest"),
            (String::new(), "no CredentialProviderRequest"),
        ] {
            let error = answer(question.as_bytes()).unwrap_err();
            assert!(error.contains(why) && !error.contains("planted"), "{error}");
        }
    }
}
