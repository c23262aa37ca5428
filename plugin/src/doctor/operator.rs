//! Checks of what every registry needs: the API server, the definition, the operator. Pure.

use jiff::SignedDuration;

use super::check::{Check, Group, Verdict};
use super::facts::Cluster;

/// How far two clocks may be apart before somebody should know: `Date` has whole seconds, and answers take their time.
const WORTH_KNOWING: SignedDuration = SignedDuration::from_secs(10);
/// Clients and registries refuse what others sign for a minute or five.
const TOO_FAR: SignedDuration = SignedDuration::from_secs(60);

pub(super) static GROUP: Group<Cluster> = Group {
    name: "Operator",
    checks: &[
        Check {
            id: "api-server",
            title: "the API server answers",
            page: "install.md#kubectl-registry",
            needs: &[],
            judge: server,
        },
        Check {
            id: "clock-api-server",
            title: "this machine and the API server have the same time",
            page: "troubleshooting.md#clocks",
            needs: &["api-server"],
            judge: clock,
        },
        Check {
            id: "definition",
            title: "the definition is installed",
            page: "install.md#with-helm",
            needs: &["api-server"],
            judge: definition,
        },
        Check {
            id: "operator-runs",
            title: "the operator runs",
            page: "install.md#is-it-running",
            needs: &["api-server"],
            judge: runs,
        },
        Check {
            id: "operator-version",
            title: "the operator is of this command's version",
            page: "operations.md#upgrade",
            needs: &["operator-runs"],
            judge: version,
        },
    ],
};

/// What it means that another clock is so far ahead of ours, or behind.
pub(super) fn skewed(whose: &str, skew: SignedDuration) -> Verdict {
    let seconds = skew.as_secs();
    let away = skew.abs();
    if away < WORTH_KNOWING {
        return Verdict::good(format!("{} s apart", away.as_secs()));
    }
    let direction = if seconds > 0 { "ahead of" } else { "behind" };
    let why = format!("the clock of {whose} is {} s {direction} that of this machine", away.as_secs());
    let cure = "set both by a time server: timedatectl, chronyc tracking";
    if away < TOO_FAR { Verdict::warning(why, cure) } else { Verdict::failed(why, cure) }
}

fn server(cluster: &Cluster) -> Option<Verdict> {
    Some(match &cluster.server {
        Ok(server) => Verdict::good(server.version.as_str()),
        Err(why) => {
            Verdict::failed(why.as_str(), "kubectl version with the same kubeconfig says whether it is this command's")
        }
    })
}

fn clock(cluster: &Cluster) -> Option<Verdict> {
    let skew = cluster.server.as_ref().ok().and_then(|server| server.skew);
    Some(skew.map_or_else(
        || Verdict::skipped("the API server does not say its time"),
        |skew| skewed("the API server", skew),
    ))
}

fn definition(cluster: &Cluster) -> Option<Verdict> {
    Some(match &cluster.is_defined {
        Ok(true) => Verdict::good("privateregistries.privateregistry.dev, v1alpha1"),
        Ok(false) => Verdict::failed(
            "this cluster has no PrivateRegistries",
            "install the chart private-registry-crds, or kubectl apply --server-side -f crds/",
        ),
        Err(why) => Verdict::skipped(format!("cannot be known: {why}")),
    })
}

fn runs(cluster: &Cluster) -> Option<Verdict> {
    let operators = match &cluster.operators {
        Ok(operators) => operators,
        Err(why) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
    };
    if operators.is_empty() && !cluster.named.is_empty() {
        return Some(Verdict::skipped(format!(
            "registries are looked after by {}, which is no Deployment of this cluster",
            cluster.named.join(", ")
        )));
    }
    if operators.is_empty() {
        return Some(Verdict::failed(
            "there is no Deployment of it",
            "install the chart private-registry-operator. If it runs outside of this cluster, or under another label, this says nothing",
        ));
    }
    let told = |operator: &super::facts::Operator| {
        format!("{}/{}, {} of {} pods ready", operator.namespace, operator.name, operator.ready, operator.wanted)
    };
    let all = || operators.iter().map(told).collect::<Vec<_>>().join("; ");
    let ill = operators.iter().find(|operator| operator.ready < 1);
    Some(match ill {
        None => Verdict::good(all()),
        Some(ill) => Verdict::failed(
            all(),
            format!(
                "kubectl --namespace {} describe deployment {}, and its pods; where it was scaled to zero, registries go on as they are and nothing follows their manifests",
                ill.namespace, ill.name
            ),
        ),
    })
}

fn version(cluster: &Cluster) -> Option<Verdict> {
    let own = cluster.own_version.as_str();
    let operators = cluster.operators.as_deref().unwrap_or_default();
    let versions: Vec<_> = operators.iter().filter_map(|operator| operator.version.as_deref()).collect();
    Some(match versions.iter().find(|version| **version != own) {
        None if versions.is_empty() => Verdict::skipped("neither its image nor its label says a version"),
        None => Verdict::good(own),
        Some(other) => Verdict::warning(
            format!("the operator is {other}, and this command is {own}"),
            "what is newer on one side is not known to the other: install the command of the operator's version, or upgrade the operator",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::{Missing, Outcome};
    use super::super::facts::{Operator, Server};
    use super::*;

    fn cluster() -> Cluster {
        let operator = Operator {
            namespace: "system".to_owned(),
            name: "operator".to_owned(),
            version: Some("0.1.0".to_owned()),
            ready: 1,
            wanted: 1,
        };
        Cluster {
            own_version: "0.1.0".to_owned(),
            server: Ok(Server { version: "v1.37.1".to_owned(), skew: Some(SignedDuration::ZERO) }),
            is_defined: Ok(true),
            operators: Ok(vec![operator]),
            named: Vec::new(),
        }
    }

    /// What is not good, each with all that is said of it.
    fn wrong(cluster: &Cluster) -> Vec<(&'static str, Outcome, String)> {
        let section = GROUP.look("", cluster, &mut Missing::default());
        let wrong = section.checks.into_iter().filter(|looked| looked.outcome != Outcome::Good);
        wrong.map(|looked| (looked.id, looked.outcome, looked.seen + &looked.cure)).collect()
    }

    #[test]
    fn each_fault_is_told_with_what_to_do() {
        type Break = fn(&mut Cluster);
        let cases: [(Break, &str, Outcome, &str); 10] = [
            (
                |cluster| {
                    cluster.operators = Ok(Vec::new());
                    cluster.named = vec!["system/elsewhere".to_owned()];
                },
                "operator-runs",
                Outcome::Skipped,
                "looked after by system/elsewhere",
            ),
            (|cluster| cluster.is_defined = Ok(false), "definition", Outcome::Failed, "private-registry-crds"),
            (
                |cluster| cluster.is_defined = Err("403".to_owned()),
                "definition",
                Outcome::Skipped,
                "cannot be known: 403",
            ),
            (|cluster| cluster.operators = Ok(Vec::new()), "operator-runs", Outcome::Failed, "no Deployment"),
            (
                |cluster| cluster.operators.as_mut().unwrap()[0].ready = 0,
                "operator-runs",
                Outcome::Failed,
                "kubectl --namespace system describe deployment operator",
            ),
            (|cluster| cluster.operators = Err("403".to_owned()), "operator-runs", Outcome::Skipped, "cannot be known"),
            (
                |cluster| cluster.operators.as_mut().unwrap()[0].version = Some("0.2.0".to_owned()),
                "operator-version",
                Outcome::Warning,
                "the operator is 0.2.0, and this command is 0.1.0",
            ),
            (
                |cluster| cluster.operators.as_mut().unwrap()[0].version = None,
                "operator-version",
                Outcome::Skipped,
                "neither its image",
            ),
            (
                |cluster| cluster.server.as_mut().unwrap().skew = Some(SignedDuration::from_secs(-45)),
                "clock-api-server",
                Outcome::Warning,
                "45 s behind",
            ),
            (
                |cluster| cluster.server.as_mut().unwrap().skew = Some(SignedDuration::from_secs(400)),
                "clock-api-server",
                Outcome::Failed,
                "400 s ahead of",
            ),
        ];
        assert_eq!(wrong(&cluster()), []);
        for (fault, id, outcome, words) in cases {
            let mut broken = cluster();
            fault(&mut broken);
            let (found, how, said) = wrong(&broken).swap_remove(0);
            assert_eq!((found, how), (id, outcome), "{said}");
            assert!(said.contains(words), "{id}: {said}");
        }
    }

    #[test]
    fn without_an_api_server_nothing_else_is_said() {
        let mut broken = cluster();
        broken.server = Err("can't be reached: connection refused".to_owned());
        broken.operators = Err("can't be reached".to_owned());
        let wrong = wrong(&broken);
        assert_eq!(wrong[0].1, Outcome::Failed);
        assert_eq!(wrong.len(), GROUP.checks.len());
        assert!(wrong[1..].iter().all(|(_, outcome, _)| *outcome == Outcome::Skipped), "{wrong:?}");
    }
}
