//! What manifests of the tests refer to.

use serde_json::json;

use crate::children::PASSWORDS;
use crate::cluster::Namespace;
use crate::given::company_ca;

impl Namespace {
    /// Every object that a value of a field names.
    pub async fn what_fields_refer_to(&self) {
        let [one, two, three, four] = PASSWORDS;
        self.secret("login-one", &[("password", one), ("other", three)]).await;
        self.secret("login-two", &[("password", two)]).await;
        self.secret("many-one", &[("bob", one)]).await;
        self.secret("many-two", &[("carol", two), ("dave", four)]).await;
        self.own_certificate("own-one", &["registry.example.com"]).await;
        self.own_certificate("own-two", &["registry.example.com", "other.example.com"]).await;
        for name in ["ca-one", "ca-two"] {
            let secret =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": company_ca(|_| {})});
            self.create(secret).await;
        }
        for (name, subject) in [("trust-one", "Trust One"), ("trust-two", "Trust Two")] {
            let authority = company_ca(|params| params.distinguished_name.push(rcgen::DnType::CommonName, subject));
            let data = json!({"ca.crt": authority["tls.crt"]});
            self.create(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})).await;
        }
        self.claim("given-one", "ReadWriteOnce").await;
        self.claim("given-two", "ReadWriteOnce").await;
        self.claim("given-three", "ReadWriteOnce").await;
        let line = |user: &str, password: &str| format!("{user}:{}", bcrypt::hash(password, 5).unwrap());
        self.secret("lines-one", &[("htpasswd", &line("erin", one)), ("other", &line("frank", two))]).await;
        self.secret("lines-two", &[("htpasswd", &line("grace", three))]).await;
        let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"one": "1", "two": "2"}});
        self.create(settings).await;
    }
}
