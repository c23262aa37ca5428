//! Checks of the registry itself, which is asked through the cluster at one of its pods: whether it answers, lets somebody in, and has the image. Pure.

use private_registry_operator::access::{Access, Action, Caller};

use super::check::{Check, Found, Group, Trouble, Verdict};
use super::facts::{Answered, Facts, Has};
use super::operator::skewed;
use crate::can_i;

/// Tags that are named where one is missing.
const NAMED: usize = 10;

pub(super) static GROUP: Group<Facts> = Group {
    name: ", asked through the cluster",
    checks: &[
        Check {
            id: "pod-ready",
            title: "a pod of it is ready",
            page: "conditions.md#when-pods-do-not-come-up",
            needs: &["registry"],
            judge: pod,
        },
        Check {
            id: "service",
            title: "its Service leads to a pod that is ready",
            page: "conditions.md#available",
            needs: &["registry"],
            judge: service,
        },
        Check {
            id: "answers",
            title: "it answers, with a certificate that the published authority signed",
            page: "clients.md#what-goes-wrong-in-the-words-that-you-will-see",
            needs: &["pod-ready"],
            judge: answers,
        },
        Check {
            id: "rate",
            title: "it takes requests",
            page: "tokens.md#wrong-logins",
            needs: &["answers"],
            judge: rate,
        },
        Check {
            id: "login",
            title: "the login works",
            page: "clients.md#logins",
            needs: &["answers", "rate"],
            judge: login,
        },
        Check {
            id: "clock-registry",
            title: "this machine and the registry have the same time",
            page: "troubleshooting.md#clocks",
            needs: &["answers"],
            judge: clock,
        },
        Check {
            id: "may-pull",
            title: "whoever logs in may pull the image",
            page: "tokens.md#rules",
            needs: &["login"],
            judge: may_pull,
        },
        Check {
            id: "image",
            title: "the registry has the image",
            page: "clients.md#pulling",
            needs: &["login"],
            judge: image,
        },
        Check {
            id: "pull-secret",
            title: "pods find a login for the address",
            page: "clients.md#pods",
            needs: &["registry"],
            judge: pull_secret,
        },
    ],
};

fn unknown<T>(found: &Found<T>) -> Option<Verdict> {
    found.as_ref().err().map(|why| Verdict::skipped(format!("cannot be known: {why}")))
}

fn pod(facts: &Facts) -> Option<Verdict> {
    Some(match &facts.pod {
        Ok(name) => Verdict::good(name.as_str()),
        Err(why) => Verdict::failed(why.as_str(), format!("kubectl registry events {} --warnings", facts.named())),
    })
}

fn service(facts: &Facts) -> Option<Verdict> {
    Some(match &facts.endpoints {
        Ok(0) => Verdict::failed(
            "nobody who goes to its Service gets anywhere: no pod behind it is ready",
            format!("kubectl registry status {}", facts.named()),
        ),
        Ok(count) => Verdict::good(format!("{count} {}", if *count == 1 { "pod" } else { "pods" })),
        Err(_) => unknown(&facts.endpoints)?,
    })
}

fn answers(facts: &Facts) -> Option<Verdict> {
    Some(match &facts.answer {
        None => Verdict::skipped("it was not asked"),
        Some(Err(why)) => Verdict::failed(
            why.as_str(),
            format!("kubectl registry logs {}, with --container frontend where there is a front end", facts.named()),
        ),
        Some(Ok(answer)) if answer.status >= 500 => Verdict::Failed(
            Trouble::new(
                format!("it answers {}{}", answer.status, answer.words),
                format!(
                    "kubectl registry logs {} says why; 503 is said by a front end whose registry does not run",
                    facts.named()
                ),
            )
            .on("frontend.md#when-something-is-wrong"),
        ),
        Some(Ok(answer)) => Verdict::good(format!("{} to GET /v2/", answer.status)),
    })
}

/// All answers that were got.
fn answered(facts: &Facts) -> impl Iterator<Item = &Answered> {
    let of_image = match &facts.has {
        Some(Ok(Has::Refused(answer))) => Some(answer),
        _ => None,
    };
    facts.answer.iter().flatten().chain(of_image)
}

fn rate(facts: &Facts) -> Option<Verdict> {
    Some(match answered(facts).find(|answer| answer.status == 429) {
        None => Verdict::good("not too many at once"),
        Some(answer) => {
            let after =
                answer.retry_after.as_ref().map_or(String::new(), |after| format!(", and wants {after} s of peace"));
            Verdict::failed(
                format!("it answers 429 Too Many Requests{after}"),
                "somebody tries an old password again and again, or many clients share one address: the front end's log has both",
            )
        }
    })
}

fn login(facts: &Facts) -> Option<Verdict> {
    let is_open =
        facts.registry.as_ref().is_ok_and(|found| found.spec.auth.as_ref().is_some_and(|auth| auth.none.is_some()));
    let user = match &facts.user {
        Ok(Some(user)) => user.as_str(),
        Ok(None) if is_open => return Some(Verdict::good("nobody needs one")),
        Ok(None) => return Some(Verdict::skipped("it has no generated admin: give one of its users with --user")),
        Err(why) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
    };
    let answer = match &facts.answer {
        Some(Ok(answer)) => answer,
        _ => return Some(Verdict::skipped("it was not asked")),
    };
    Some(match answer.status {
        200..300 => Verdict::good(user),
        401 => Verdict::failed(
            format!("the registry refuses {user}"),
            "the password is another one, or its pods have not been told of it yet, which takes two minutes at most",
        ),
        403 => Verdict::Failed(
            Trouble::new(
                format!("the registry lets {user} in nowhere{}", answer.words),
                "where it asks for certificates of clients (spec.tls.clientCASecretRef), this command has none to show",
            )
            .on("clients.md#trust-and-names"),
        ),
        429 => Verdict::skipped("it takes no requests at the moment"),
        other => Verdict::failed(format!("it answers {other}{}", answer.words), ""),
    })
}

fn clock(facts: &Facts) -> Option<Verdict> {
    let skew = facts.answer.as_ref()?.as_ref().ok().and_then(|answer| answer.skew);
    Some(
        skew.map_or_else(
            || Verdict::skipped("the registry does not say its time"),
            |skew| skewed("the registry", skew),
        ),
    )
}

fn may_pull(facts: &Facts) -> Option<Verdict> {
    let reference = facts.image.as_ref()?.reference.as_ref().ok()?;
    let Ok(registry) = &facts.registry else { return Some(Verdict::skipped("there is no registry")) };
    let user = facts.user.as_ref().ok().and_then(Option::as_deref);
    let caller = user.map_or(Caller::Anonymous, Caller::User);
    let repository = reference.repository.as_str();
    let answer = can_i::answer(registry, caller, Access::Repository(repository, Action::Pull));
    Some(match answer.is_yes {
        true => Verdict::good(answer.why),
        false => Verdict::failed(
            answer.why,
            format!("give a rule of spec.auth.token.rules the repository {repository}, or log in as somebody else"),
        ),
    })
}

fn image(facts: &Facts) -> Option<Verdict> {
    let reference = facts.image.as_ref()?.reference.as_ref().ok()?;
    let named = facts.named();
    Some(match &facts.has {
        None => Verdict::skipped("it was not asked"),
        Some(Err(why)) => Verdict::failed(why.as_str(), ""),
        Some(Ok(Has::Image { digest, platforms })) => {
            let platforms =
                if platforms.is_empty() { String::new() } else { format!(", for {}", platforms.join(", ")) };
            Verdict::good(format!("{reference} is {digest}{platforms}"))
        }
        Some(Ok(Has::Nothing(None))) => Verdict::failed(
            format!("it has no repository {}", reference.repository),
            format!("push it, or correct the name: kubectl registry repos {named} shows what there is"),
        ),
        Some(Ok(Has::Nothing(Some(tags)))) => {
            let first: Vec<_> = tags.iter().take(NAMED).map(String::as_str).collect();
            let more = if tags.len() > NAMED { format!(" and {} more", tags.len() - NAMED) } else { String::new() };
            let known =
                if tags.is_empty() { "no tag at all".to_owned() } else { format!("{}{more}", first.join(", ")) };
            Verdict::failed(
                format!("it has no {reference}; of {} there is {known}", reference.repository),
                format!(
                    "push it, or correct the name: kubectl registry tags {} {} --namespace {}",
                    facts.name, reference.repository, facts.namespace
                ),
            )
        }
        Some(Ok(Has::Refused(answer))) if answer.status == 429 => {
            Verdict::skipped("it takes no requests at the moment")
        }
        Some(Ok(Has::Refused(answer))) => Verdict::failed(format!("it answers {}{}", answer.status, answer.words), ""),
    })
}

fn pull_secret(facts: &Facts) -> Option<Verdict> {
    let Ok(registry) = &facts.registry else { return Some(Verdict::skipped("there is no registry")) };
    if registry.spec.auth.as_ref().is_some_and(|auth| auth.none.is_some()) {
        return None;
    }
    let Some((address, _)) = facts.address() else { return Some(Verdict::skipped("the registry has no address yet")) };
    let hosts = match &facts.pull_secret {
        Err(_) => return unknown(&facts.pull_secret),
        Ok(None) => {
            return Some(Verdict::warning(
                format!("there is no Secret {}-pull", facts.name),
                "name a user in spec.pullSecrets; or give pods a Secret of your own, of which this says nothing",
            ));
        }
        Ok(Some(hosts)) => hosts,
    };
    Some(match hosts.iter().any(|host| host == address.as_str()) {
        true => Verdict::good(format!("Secret {}-pull of namespace {}, for {address}", facts.name, facts.namespace)),
        false => Verdict::failed(
            format!("Secret {}-pull has no login for {address}, but for {}", facts.name, crate::cluster::listed(hosts)),
            "the operator writes one for each address of the registry: see UsersReady",
        ),
    })
}

#[cfg(test)]
mod tests {
    use private_registry_operator::api::PrivateRegistry;
    use serde_json::{Value, json};

    use super::super::check::{Missing, Outcome};
    use super::super::facts::testing::{answered, facts, registry};
    use super::*;

    fn looked(facts: &Facts) -> Vec<(&'static str, Outcome, String)> {
        let section = GROUP.look("", facts, &mut Missing::default());
        section
            .checks
            .into_iter()
            .map(|looked| (looked.id, looked.outcome, looked.seen + "\n" + &looked.cure))
            .collect()
    }

    fn with(spec: &Value) -> PrivateRegistry {
        let admin =
            json!({"name": "admin", "source": {"kind": "GeneratedAdmin", "name": "team-a-admin", "key": "password"}});
        let ann = json!({"name": "ann", "source": {"kind": "Users", "name": "ann", "key": "password"}});
        registry(spec, &json!({"users": [admin, ann], "userCount": 2}))
    }

    #[test]
    fn each_fault_of_the_registry_is_told_with_what_to_do() {
        type Break = fn(&mut Facts);
        fn refused(status: u16, after: Option<&str>) -> Answered {
            Answered { retry_after: after.map(str::to_owned), words: ": DENIED: no".to_owned(), ..answered(status) }
        }
        let cases: [(Break, &str, Outcome, &str); 18] = [
            (
                |facts| facts.pod = Err("no pod is ready".to_owned()),
                "pod-ready",
                Outcome::Failed,
                "no pod is ready\nkubectl registry events team-a",
            ),
            (
                |facts| facts.pod = Err("no pod is ready".to_owned()),
                "answers",
                Outcome::Skipped,
                "a pod of it is ready",
            ),
            (|facts| facts.endpoints = Ok(0), "service", Outcome::Failed, "no pod behind it is ready"),
            (|facts| facts.endpoints = Err("403".to_owned()), "service", Outcome::Skipped, "cannot be known: 403"),
            (|facts| facts.answer = Some(Err("TLS: no".to_owned())), "answers", Outcome::Failed, "TLS: no"),
            (
                |facts| facts.answer = Some(Ok(refused(503, None))),
                "answers",
                Outcome::Failed,
                "it answers 503: DENIED: no",
            ),
            (
                |facts| facts.answer = Some(Ok(refused(429, Some("30")))),
                "rate",
                Outcome::Failed,
                "429 Too Many Requests, and wants 30 s",
            ),
            (
                |facts| facts.answer = Some(Ok(refused(429, None))),
                "login",
                Outcome::Skipped,
                "first this must be so: it takes requests",
            ),
            (
                |facts| facts.answer = Some(Ok(refused(401, None))),
                "login",
                Outcome::Failed,
                "the registry refuses admin",
            ),
            (
                |facts| facts.answer = Some(Ok(refused(403, None))),
                "login",
                Outcome::Failed,
                "spec.tls.clientCASecretRef",
            ),
            (|facts| facts.user = Ok(None), "login", Outcome::Skipped, "--user"),
            (
                |facts| facts.user = Err("403".to_owned()),
                "image",
                Outcome::Skipped,
                "first this must be so: the login works",
            ),
            (
                |facts| facts.has = Some(Ok(Has::Nothing(None))),
                "image",
                Outcome::Failed,
                "kubectl registry repos team-a --namespace registries",
            ),
            (
                |facts| facts.has = Some(Ok(Has::Nothing(Some((1..=12).map(|tag| tag.to_string()).collect())))),
                "image",
                Outcome::Failed,
                "it has no team/app:1; of team/app there is 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more",
            ),
            (
                |facts| facts.has = Some(Ok(Has::Refused(refused(403, None)))),
                "image",
                Outcome::Failed,
                "it answers 403: DENIED: no",
            ),
            (|facts| facts.has = Some(Ok(Has::Refused(refused(429, None)))), "rate", Outcome::Failed, "429"),
            (|facts| facts.pull_secret = Ok(None), "pull-secret", Outcome::Warning, "no Secret team-a-pull"),
            (
                |facts| facts.pull_secret = Ok(Some(vec!["registry.example.com".to_owned()])),
                "pull-secret",
                Outcome::Failed,
                "no login for registry.example.com:5000, but for registry.example.com\n",
            ),
        ];
        let good = looked(&Facts { registry: Ok(with(&json!({}))), ..facts() });
        assert!(
            good.len() == GROUP.checks.len() && good.iter().all(|(_, outcome, _)| *outcome == Outcome::Good),
            "{good:?}"
        );
        for (fault, id, outcome, words) in cases {
            let mut broken = Facts { registry: Ok(with(&json!({}))), ..facts() };
            fault(&mut broken);
            let looked = looked(&broken);
            let (_, how, said) = looked.iter().find(|(found, ..)| *found == id).unwrap();
            assert_eq!(*how, outcome, "{id}: {said}");
            assert!(said.contains(words), "{id}: {said}");
        }
    }

    #[test]
    fn whoever_no_rule_lets_pull_is_told_by_the_operators_own_rules() {
        let rules = json!({"auth": {"token": {"rules": [{"users": ["ann"], "repositories": ["shop/**"], "actions": ["pull"]}]}}});
        let as_user = |user: &str| {
            let facts = Facts { registry: Ok(with(&rules)), user: Ok(Some(user.to_owned())), ..facts() };
            looked(&facts).into_iter().find(|(id, ..)| *id == "may-pull").unwrap()
        };
        let (_, outcome, said) = as_user("ann");
        assert!(
            outcome == Outcome::Failed && said.contains("no rule of spec.auth.token.rules lets ann pull team/app"),
            "{said}"
        );
        assert_eq!(as_user("admin").1, Outcome::Good, "who may do everything");
    }

    #[test]
    fn an_open_registry_asks_for_no_login() {
        let facts = Facts { registry: Ok(with(&json!({"auth": {"none": {}}}))), user: Ok(None), ..facts() };
        let looked = looked(&facts);
        assert!(looked.iter().all(|(_, outcome, _)| *outcome == Outcome::Good), "{looked:?}");
        assert!(!looked.iter().any(|(id, ..)| *id == "pull-secret"));
    }
}
