use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use serde_json::json;

use super::super::{Authority, Rollout, Serves, settle};
use super::*;
use crate::model::{Child, SecretContent};
use crate::parts::testing::{resolved, stored_secret};
use crate::status::Problem;

const SIGNER: &str = "example.com/registries";

/// An authority that somebody else runs.
struct Company(CertifiedIssuer<'static, KeyPair>);

impl Company {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn root(&self) -> String {
        self.0.pem().replace("\r\n", "\n")
    }

    /// Signs what is asked for, for so many days, changed like this.
    fn signs_with(&self, request: &str, days: i64, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let date = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap();
        request.params.not_before = date(Timestamp::now() - SignedDuration::from_mins(5));
        request.params.not_after = date(Timestamp::now() + SignedDuration::from_hours(24 * days));
        change(&mut request.params);
        request.signed_by(&self.0).unwrap().pem()
    }

    fn signs(&self, request: &str) -> String {
        self.signs_with(request, 90, |_| {}) + &self.root()
    }
}

/// What lies there of a registry's certificate.
#[derive(Default, Clone)]
struct Shelf {
    leaf: Option<Live>,
    authority: Option<Live>,
    request: Option<Live>,
    /// When a signer may be asked again.
    asks_at: Option<Timestamp>,
}

/// What a pass came to.
struct Came {
    shelf: Shelf,
    problem: Option<Problem>,
    note: String,
    bundle: String,
    asked: Option<Asked>,
    handled: Option<String>,
    look_again: Option<Timestamp>,
}

impl Shelf {
    fn pass_at(&self, registry: &Resolved, answer: Answer, observed: &Observed, now: Timestamp) -> Came {
        let authority = self.authority.clone().map_or(Authority::Absent, Authority::Stored);
        let stored = Stored {
            leaf: self.leaf.as_ref(),
            published: None,
            authority,
            request: self.request.as_ref(),
            answer,
            asks_at: self.asks_at,
        };
        // All pods serve what is stored.
        let serves = self.leaf.as_ref().and_then(leaf_of).map_or(Serves::Nothing, |leaf| Serves::Only(checksum(&leaf)));
        let moment = Moment { now, rollout: Rollout { is_pending: false, serves }, handled: None };
        let settled = settle(registry, &stored, observed, Some(&json!({})), &moment).unwrap();
        let (report, bundle) = (settled.report.clone(), settled.bundle.clone());
        let (asked, look_again) = (settled.asked.clone(), settled.look_again);
        let material = desired::Material {
            certificate: settled.serving,
            authority: settled.authority,
            request: settled.request,
            bundle: settled.bundle,
            ..desired::Material::without_secrets(String::new().into())
        };
        let plan = desired::plan(registry, &material, &desired::Run::default());
        let live = |child| stored_secret(registry, &plan, child);
        let shelf = Shelf {
            leaf: live(Child::Tls),
            // Kept, and never pruned.
            authority: live(Child::Ca).or_else(|| self.authority.clone()),
            request: live(Child::Csr),
            asks_at: None,
        };
        Came {
            shelf,
            problem: report.problem,
            note: report.note.unwrap_or_default(),
            bundle: bundle.unwrap_or_default(),
            asked,
            handled: report.handled_request,
            look_again,
        }
    }

    fn pass(&self, registry: &Resolved, answer: Answer) -> Came {
        self.pass_at(registry, answer, &Observed::default(), Timestamp::now())
    }

    fn chain(&self) -> Option<String> {
        text(self.leaf.as_ref()?, "tls.crt")
    }

    /// The request, PEM.
    fn asks(&self) -> String {
        text(self.request.as_ref().unwrap(), "tls.csr").unwrap()
    }

    fn facts(&self) -> CertificateFacts {
        CertificateFacts::of_pem(&self.chain().unwrap()).unwrap()
    }
}

impl Came {
    fn refusal(&self) -> (&str, &str) {
        self.problem.as_ref().map(|problem| (problem.reason.as_str(), problem.message.as_str())).unwrap_or_default()
    }
}

fn asking_a_signer() -> Resolved {
    resolved(&json!({"tls": {"certificateSigningRequest": {"signerName": SIGNER}}}), &json!({}))
}

fn asking_a_person(addresses: &[&str]) -> Resolved {
    resolved(&json!({"addresses": addresses, "tls": {"certificateSigningRequest": {}}}), &json!({}))
}

fn private() -> Resolved {
    resolved(&json!({}), &json!({}))
}

/// What a person left as the answer.
fn brought(chain: &str) -> Observed {
    secret("team-a-signed", "tls.crt", chain)
}

fn secret(name: &str, key: &str, text: &str) -> Observed {
    let content = SecretContent {
        uid: "1".to_owned(),
        kind: "Opaque".to_owned(),
        resource_version: "1".to_owned(),
        data: [(key.to_owned(), text.as_bytes().to_vec().into())].into(),
    };
    Observed { secrets: [(name.to_owned(), Some(content))].into(), ..Observed::default() }
}

fn signed_by(chain: String) -> Answer {
    Answer::Signed { chain: chain.into_bytes(), authority: None, again_at: None }
}

#[test]
fn what_a_signer_says_is_told_with_the_next_action_and_a_good_answer_is_served() {
    let registry = asking_a_signer();
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let asked = first.asked.clone().unwrap();
    assert!(asked.is_missing && asked.object.name().starts_with("private-registry.registries.team-a."), "{asked:?}");
    assert!(first.shelf.leaf.is_none());
    let (reason, words) = first.refusal();
    assert!(
        reason == "WaitingForSignature"
            && words.contains(&format!("kubectl certificate approve {}", asked.object.name())),
        "{words}"
    );

    let company = Company::new("Company");
    let request = first.shelf.asks();
    for (answer, reason, words) in [
        (Answer::Pending, "WaitingForSignature", "kubectl certificate approve"),
        (Answer::Approved(String::new()), "WaitingForSignature", "waits for example.com/registries to sign it"),
        (
            Answer::Denied("Policy: no".to_owned()),
            "RequestDenied",
            "was denied (Policy: no); for a new try: kubectl delete csr",
        ),
        (
            Answer::Failed { why: "Broken: x".to_owned(), again_at: None },
            "RequestFailed",
            "could not be signed by example.com/registries (Broken: x)",
        ),
        (Answer::Foreign, "NotOurs", "asks for something else"),
        (signed_by("rubbish".to_owned()), "CertificateUnreadable", "kubectl delete csr"),
        (
            signed_by(company.signs(&Shelf::default().pass(&registry, Answer::Nothing).shelf.asks())),
            "OtherRequest",
            "older request",
        ),
        (signed_by(company.signs_with(&request, -1, |_| {})), "CertificateExpired", "is not served"),
        (
            signed_by(company.signs_with(&request, 1, |params| params.subject_alt_names.clear())),
            "NoSubjectAltName",
            "is not served",
        ),
    ] {
        let came = first.shelf.pass(&registry, answer);
        assert_eq!(came.refusal().0, reason, "{words}: {:?}", came.problem);
        assert!(came.refusal().1.contains(words), "{words}: {}", came.refusal().1);
        assert!(came.shelf.leaf.is_none(), "{words}");
        assert_eq!(came.shelf.asks(), request, "the key survives until the answer comes");
        assert_eq!(came.asked.unwrap(), Asked { is_missing: false, ..asked.clone() }, "{words}");
    }

    // Somebody has removed it, and it may not be made again yet.
    let at = "2999-01-01T00:00:00Z".parse().unwrap();
    let removed = Shelf { asks_at: Some(at), ..first.shelf.clone() }.pass(&registry, Answer::Nothing);
    assert!(removed.refusal().1.contains("is made again at 2999-01-01T00:00:00Z"), "{:?}", removed.problem);

    let came = first.shelf.pass(&registry, signed_by(company.signs(&request)));
    assert_eq!((came.problem, came.asked), (None, None));
    assert_eq!(came.bundle.trim(), company.root().trim());
    assert_eq!(came.shelf.facts().issuer, "CN=Company");
    let quiet = came.shelf.pass(&registry, Answer::Nothing);
    assert_eq!((quiet.problem, quiet.asked, quiet.bundle), (None, None, came.bundle));
    assert_eq!(quiet.shelf.chain(), came.shelf.chain());
}

#[test]
fn a_person_is_told_how_to_fetch_the_request_and_an_older_answer_is_named() {
    let registry = asking_a_person(&["registry.example.com"]);
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let (reason, words) = first.refusal();
    assert_eq!((reason, &first.asked), ("WaitingForSignature", &None));
    assert!(
        words.contains("kubectl registry csr team-a -n registries")
            && words.contains("kubectl registry set-certificate team-a"),
        "{words}"
    );

    let company = Company::new("Company");
    let other = Shelf::default().pass(&registry, Answer::Nothing).shelf.asks();
    let bring =
        |shelf: &Shelf, chain: &str| shelf.pass_at(&registry, Answer::Nothing, &brought(chain), Timestamp::now());
    let older = bring(&first.shelf, &company.signs(&other));
    assert!(
        older.refusal().0 == "OtherRequest" && older.refusal().1.contains("answers an older request"),
        "{:?}",
        older.problem
    );
    let without = company.signs_with(&first.shelf.asks(), 9, |params| {
        params
            .subject_alt_names
            .retain(|name| !matches!(name, rcgen::SanType::DnsName(name) if name.as_str() == "registry.example.com"));
    });
    let narrow = bring(&first.shelf, &without);
    assert!(
        narrow.refusal().0 == "NamesMissing" && narrow.refusal().1.contains("registry.example.com"),
        "{:?}",
        narrow.problem
    );

    // The cluster's own names are not asked of a company's authority.
    let outside = company.signs_with(&first.shelf.asks(), 9, |params| {
        params
            .subject_alt_names
            .retain(|name| matches!(name, rcgen::SanType::DnsName(name) if name.as_str() == "registry.example.com"));
    });
    let came = bring(&first.shelf, &outside);
    assert!(came.problem.is_none() && came.note.contains("left out"), "{:?} {}", came.problem, came.note);
    let chain = came.shelf.chain();
    // Signed a second time, with the intermediates or names that were missing.
    let again = bring(&came.shelf, &company.signs(&first.shelf.asks()));
    assert!(again.problem.is_none() && again.shelf.chain() != chain, "{:?}", again.problem);
    // Nothing is lost with the request.
    let lost = bring(&Shelf { request: None, ..again.shelf.clone() }, &company.signs(&first.shelf.asks()));
    assert_eq!(lost.problem, None);
}

#[test]
fn a_request_that_is_lost_is_made_again_for_the_key_that_is_served() {
    let registry = asking_a_person(&[]);
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let signed = Company::new("Company").signs(&first.shelf.asks());
    let served = first.shelf.pass_at(&registry, Answer::Nothing, &brought(&signed), Timestamp::now()).shelf;
    let came = Shelf { request: None, ..served.clone() }.pass(&registry, Answer::Nothing);
    assert_eq!((came.problem, came.shelf.chain()), (None, served.chain()));
    let key = |shelf: &Shelf| text(shelf.request.as_ref().unwrap(), "tls.key");
    assert_eq!(key(&came.shelf), key(&served));
}

#[test]
fn a_renewal_waits_beside_what_is_served_until_that_ends_and_not_a_second_longer() {
    let registry = asking_a_person(&[]);
    let company = Company::new("Company");
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let signed = company.signs(&first.shelf.asks());
    let served = first.shelf.pass_at(&registry, Answer::Nothing, &brought(&signed), Timestamp::now());
    let due = policy::renew_at(&served.shelf.facts(), &registry.uid);
    assert_eq!(served.look_again, Some(due));

    let at = |shelf: &Shelf, now| shelf.pass_at(&registry, Answer::Nothing, &brought(&signed), now);
    let before = at(&served.shelf, due - SignedDuration::from_secs(1));
    assert_eq!(before.shelf.asks(), first.shelf.asks());
    let renewing = at(&served.shelf, due);
    assert_ne!(renewing.shelf.asks(), first.shelf.asks(), "a new key");
    assert_eq!((&renewing.problem, renewing.shelf.chain()), (&None, served.shelf.chain()));
    assert!(renewing.note.contains("the next one is asked for"), "{}", renewing.note);
    let end = served.shelf.facts().not_after;
    let last = at(&renewing.shelf, end - SignedDuration::from_secs(1));
    assert_eq!((&last.problem, last.shelf.asks()), (&None, renewing.shelf.asks()));
    assert_eq!(last.look_again, Some(end));
    let ended = at(&last.shelf, end);
    assert_eq!(ended.refusal().0, "WaitingForSignature");
    assert_eq!(ended.shelf.chain(), served.shelf.chain(), "it goes on being served: some clients have no clock");

    let next = company.signs(&ended.shelf.asks());
    let renewed = ended.shelf.pass_at(&registry, Answer::Nothing, &brought(&next), Timestamp::now());
    assert!(renewed.problem.is_none() && renewed.shelf.chain() != served.shelf.chain(), "{:?}", renewed.problem);
}

#[test]
fn a_refused_renewal_is_told_and_replaces_nothing() {
    let registry = asking_a_signer();
    let company = Company::new("Company");
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let served = first.shelf.pass(&registry, signed_by(company.signs(&first.shelf.asks()))).shelf;
    let wishing = resolved(
        &json!({"tls": {"certificateSigningRequest": {"signerName": SIGNER}}}),
        &json!({"privateregistry.dev/renew": "leaf-1"}),
    );
    let renewing = served.pass(&wishing, Answer::Nothing);
    assert!(
        renewing.handled.as_deref() == Some("leaf-1") && renewing.asked.as_ref().is_some_and(|asked| asked.is_missing)
    );
    let stranger = Company::new("Stranger");
    for answer in [
        Answer::Denied(String::new()),
        Answer::Failed { why: String::new(), again_at: None },
        signed_by(company.signs(&first.shelf.asks())),
        signed_by(stranger.signs_with(&renewing.shelf.asks(), -1, |_| {})),
    ] {
        let came = renewing.shelf.pass(&wishing, answer.clone());
        assert_eq!(came.shelf.chain(), served.chain(), "{answer:?}");
        // What is served already is no answer, and no fault either.
        let is_old = answer == signed_by(company.signs(&first.shelf.asks()));
        assert!(
            is_old || came.problem.is_some() && came.refusal().1.contains("the last good one is still served"),
            "{:?}",
            came.problem
        );
    }
    let once = renewing.shelf.pass(&wishing, Answer::Pending);
    assert_eq!((once.shelf.asks(), once.handled.as_deref()), (renewing.shelf.asks(), Some("leaf-1")));
}

#[test]
fn from_one_signer_to_another_and_back_no_authority_leaves_the_bundle_before_its_time() {
    let hours = SignedDuration::from_hours;
    let now = Timestamp::now();
    let company = Company::new("Company");
    let at = |shelf: &Shelf, registry: &Resolved, observed: &Observed, now| {
        shelf.pass_at(registry, Answer::Nothing, observed, now)
    };
    let nobody = Observed::default();
    let own = at(&Shelf::default(), &private(), &nobody, now);
    let own_root = own.bundle.clone();

    // S → S': the own certificate goes on while the request waits.
    let asking = asking_a_person(&[]);
    let waiting = at(&own.shelf, &asking, &nobody, now);
    assert_eq!((&waiting.problem, waiting.shelf.chain(), &waiting.bundle), (&None, own.shelf.chain(), &own_root));
    let answer = brought(&company.signs(&waiting.shelf.asks()));
    let answered = at(&waiting.shelf, &asking, &answer, now);
    assert_eq!(answered.shelf.facts().issuer, "CN=Company");
    let both = company.root() + &own_root;
    assert_eq!(answered.bundle, both, "pods may still serve the former one");
    let later = at(&answered.shelf, &asking, &answer, now + hours(23));
    assert_eq!(later.bundle, both);
    let alone = at(&later.shelf, &asking, &answer, now + hours(25));
    assert_eq!(alone.bundle, company.root());
    assert_eq!(at(&alone.shelf, &asking, &answer, now + hours(26)).bundle, company.root());

    // S' → S, from both stages: the own authority is the one that was there, and is published before it signs.
    for (from, begins) in [(&answered, now), (&alone, now + hours(26))] {
        let back = at(&from.shelf, &private(), &nobody, begins);
        assert_eq!(
            back.shelf.chain(),
            from.shelf.chain(),
            "clients have to learn of the own authority first: {}",
            back.note
        );
        assert!(back.bundle.contains(own_root.trim()) && back.bundle.contains(company.root().trim()));
        assert!(back.shelf.request.is_none());
        let own_again = at(&back.shelf, &private(), &nobody, begins + hours(25));
        assert_eq!(own_again.shelf.facts().issuer, "CN=team-a registry CA");
        assert!(own_again.bundle.contains(company.root().trim()), "pods may still serve the former one");
        let settled = at(&own_again.shelf, &private(), &nobody, begins + hours(50));
        assert_eq!((&settled.bundle, &settled.problem), (&own_root, &None), "as if nothing had been");
    }
}

#[test]
fn a_registry_that_never_had_an_authority_of_its_own_gets_one_and_publishes_it_first() {
    let asking = asking_a_person(&[]);
    let first = Shelf::default().pass(&asking, Answer::Nothing);
    let company = Company::new("Company");
    let answer = brought(&company.signs(&first.shelf.asks()));
    let served = first.shelf.pass_at(&asking, Answer::Nothing, &answer, Timestamp::now()).shelf;
    let own = served.pass(&private(), Answer::Nothing);
    assert!(own.problem.is_none() && own.shelf.authority.is_some(), "{:?}", own.problem);
    assert_eq!(own.shelf.chain(), served.chain());
    assert!(
        own.bundle.contains(company.root().trim()) && Bundle::read(&own.bundle).facts().len() == 2,
        "{}",
        own.bundle
    );
}

#[test]
fn authorities_of_a_secret_are_published_before_they_sign_and_decide_what_is_accepted() {
    let spec =
        json!({"tls": {"certificateSigningRequest": {"signerName": SIGNER, "caBundleSecretRef": {"name": "trust"}}}});
    let registry = resolved(&spec, &json!({}));
    let (company, stranger) = (Company::new("Company"), Company::new("Stranger"));
    let trust = secret("trust", "ca.crt", &company.root());
    let now = Timestamp::now();
    let missing = Shelf::default().pass(&registry, Answer::Nothing);
    assert_eq!(missing.refusal().0, "WaitingForSecret");
    let broken = missing.shelf.pass_at(&registry, Answer::Pending, &secret("trust", "ca.crt", "x"), now);
    assert_eq!(broken.refusal().0, "CertificateUnreadable");
    let first = missing.shelf.pass_at(&registry, Answer::Pending, &trust, now);
    assert_eq!((first.bundle.as_str(), first.refusal().0), (company.root().as_str(), "WaitingForSignature"));

    let leaf = |of: &Company| of.signs_with(&first.shelf.asks(), 90, |_| {});
    let refused = first.shelf.pass_at(&registry, signed_by(leaf(&stranger)), &trust, now);
    assert_eq!((refused.refusal().0, refused.shelf.chain()), ("ChainBroken", None));
    let came = first.shelf.pass_at(&registry, signed_by(leaf(&company)), &trust, now);
    assert_eq!((&came.problem, came.bundle.as_str()), (&None, company.root().as_str()));
    // The next authority is announced there; what is served stays trusted when the former one is taken out too early.
    let announced = secret("trust", "ca.crt", &(company.root() + &stranger.root()));
    let ready = came.shelf.pass_at(&registry, Answer::Nothing, &announced, now);
    assert!(ready.problem.is_none() && ready.bundle.contains(stranger.root().trim()) && ready.asked.is_none());
    let only_next = secret("trust", "ca.crt", &stranger.root());
    let early = ready.shelf.pass_at(&registry, Answer::Nothing, &only_next, now);
    assert!(early.bundle.contains(company.root().trim()) && early.asked.is_some(), "{}", early.bundle);
    assert_eq!(early.shelf.chain(), came.shelf.chain());
}

#[test]
fn a_name_that_is_added_while_a_request_waits_is_asked_for_with_the_same_key() {
    let first = Shelf::default().pass(&asking_a_person(&[]), Answer::Nothing);
    let wider = asking_a_person(&["registry.example.com"]);
    let second = first.shelf.pass(&wider, Answer::Nothing);
    assert_ne!(second.shelf.asks(), first.shelf.asks());
    let key = |came: &Came| text(came.shelf.request.as_ref().unwrap(), "tls.key");
    assert_eq!(key(&first), key(&second));
    let old = brought(&Company::new("Company").signs(&first.shelf.asks()));
    let refused = second.shelf.pass_at(&wider, Answer::Nothing, &old, Timestamp::now());
    assert_eq!(refused.refusal().0, "NamesMissing");
}

#[test]
fn what_is_changed_and_changed_back_before_anybody_signed_asks_nobody() {
    let company = Company::new("Company");
    let first = Shelf::default().pass(&asking_a_person(&[]), Answer::Nothing);
    let signed = brought(&company.signs(&first.shelf.asks()));
    let at = |shelf: &Shelf, registry: &Resolved| shelf.pass_at(registry, Answer::Nothing, &signed, Timestamp::now());
    let served = at(&first.shelf, &asking_a_person(&[])).shelf;
    let other_key = resolved(
        &json!({"tls": {"certificateSigningRequest": {}, "certificate": {"keyAlgorithm": "Ed25519"}}}),
        &json!({}),
    );
    for other in [asking_a_person(&["registry.example.com"]), other_key, asking_a_signer()] {
        let asks = at(&served, &other);
        assert!(asks.note.contains("the next one is asked for"), "{}", asks.note);
        assert_ne!(asks.shelf.asks(), served.asks());
        let still = at(&asks.shelf, &other);
        assert_eq!(still.shelf.asks(), asks.shelf.asks());
        let back = at(&still.shelf, &asking_a_person(&[]));
        assert_eq!((&back.problem, back.note.as_str(), &back.asked), (&None, "", &None));
        assert_eq!(back.shelf.chain(), served.chain());
        let key = |shelf: &Shelf| text(shelf.request.as_ref().unwrap(), "tls.key");
        assert_eq!(key(&back.shelf), key(&served));
    }
}

#[test]
fn no_message_shows_a_key() {
    let first = Shelf::default().pass(&asking_a_person(&[]), Answer::Nothing);
    let secret = STANDARD.encode(text(first.shelf.request.as_ref().unwrap(), "tls.key").unwrap());
    let words = format!("{:?} {} {:?}", first.problem, first.note, first.asked);
    assert!(!words.contains(&secret) && !words.contains("PRIVATE KEY"));
}

fn asking_an_issuer() -> Resolved {
    resolved(
        &json!({"addresses": ["registry.example.com"], "tls": {"certManager": {"issuerRef": {"name": "company"}}}}),
        &json!({}),
    )
}

/// What an issuer of cert-manager says that gives its authority beside the chain.
fn issued_by(company: &Company, request: &str, again_at: Option<Timestamp>) -> Answer {
    let chain = company.signs_with(request, 90, |_| {}).into_bytes();
    Answer::Signed { chain, authority: Some(company.root().into_bytes()), again_at }
}

#[test]
fn what_an_issuer_says_is_told_with_the_next_action_and_its_authority_is_published_with_its_answer() {
    let registry = asking_an_issuer();
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let asked = first.asked.clone().unwrap();
    assert!(asked.is_missing && matches!(asked.object, Question::Issuer(_)), "{asked:?}");
    let (reason, words) = first.refusal();
    assert!(reason == "WaitingForSignature" && words.contains("then Issuer company signs it"), "{words}");

    let look = "kubectl describe certificaterequest team-a-csr -n registries";
    let delete = "kubectl delete certificaterequest team-a-csr -n registries";
    for (answer, reason, words) in [
        (Answer::Pending, "WaitingForSignature", look),
        (
            Answer::Approved("no such issuer".to_owned()),
            "WaitingForSignature",
            "Issuer company to sign it (no such issuer)",
        ),
        (Answer::Denied("policy".to_owned()), "RequestDenied", delete),
        (Answer::Failed { why: "sealed".to_owned(), again_at: None }, "RequestFailed", "by Issuer company (sealed)"),
    ] {
        let came = first.shelf.pass(&registry, answer);
        let told = came.refusal();
        assert!(told.0 == reason && told.1.contains(words), "{told:?}");
        assert_eq!(came.asked.unwrap(), Asked { is_missing: false, ..asked.clone() }, "{words}");
    }

    // Its chain ends below the root, which comes beside it.
    let company = Company::new("Company");
    let came = first.shelf.pass(&registry, issued_by(&company, &first.shelf.asks(), None));
    assert_eq!((&came.problem, &came.asked), (&None, &None));
    assert_eq!(came.bundle, company.root());
    let quiet = came.shelf.pass(&registry, Answer::Nothing);
    assert_eq!((quiet.problem, quiet.asked, quiet.bundle), (None, None, company.root()));

    // Another issuer is another signer.
    let other = resolved(
        &json!({"addresses": ["registry.example.com"], "tls": {"certManager": {"issuerRef": {"name": "company", "kind": "ClusterIssuer"}}}}),
        &json!({}),
    );
    let changed = came.shelf.pass(&other, Answer::Nothing);
    assert!(changed.asked.is_some_and(|asked| asked.is_missing));
    assert_eq!(changed.shelf.chain(), came.shelf.chain(), "the former goes on being served");
}

#[test]
fn an_answer_that_is_of_no_use_is_given_up_after_a_while() {
    let registry = asking_an_issuer();
    let first = Shelf::default().pass(&registry, Answer::Nothing);
    let company = Company::new("Company");
    let now = Timestamp::now();
    let (soon, past) = (now + SignedDuration::from_mins(1), now - SignedDuration::from_mins(1));
    let elsewhere = Shelf::default().pass(&registry, Answer::Nothing).shelf.asks();
    let failed = |at| Answer::Failed { why: String::new(), again_at: Some(at) };
    let wrong = |at| issued_by(&company, &elsewhere, Some(at));
    for (waits, is_over) in [(failed(soon), failed(past)), (wrong(soon), wrong(past))] {
        let came = first.shelf.pass_at(&registry, waits, &Observed::default(), now);
        assert!(came.asked.is_some() && came.look_again == Some(soon), "{:?} {:?}", came.asked, came.look_again);
        assert!(came.refusal().1.contains(&format!("it is made again at {soon}")), "{}", came.refusal().1);
        let came = first.shelf.pass_at(&registry, is_over, &Observed::default(), now);
        assert!(came.asked.is_none() && came.problem.is_some(), "{:?}", came.asked);
        assert!(came.look_again.is_some_and(|at| at < soon), "nobody would ask again: {:?}", came.look_again);
        assert_eq!(came.shelf.asks(), first.shelf.asks(), "the key stays");
    }
    // What is served is no reason to ask again.
    let came =
        first.shelf.pass_at(&registry, issued_by(&company, &first.shelf.asks(), Some(past)), &Observed::default(), now);
    assert_eq!((came.problem, came.asked), (None, None));
}
