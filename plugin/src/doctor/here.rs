//! Checks of this machine: whether it finds the registry, reaches it, and trusts it. Pure.

use private_registry_operator::api::AddressScope;
use private_registry_operator::model::{Host, HostPort};

use super::certificate::is_signed_by;
use super::check::{Check, Group, Verdict};
use super::facts::Facts;
use crate::status;

pub(super) static GROUP: Group<Facts> = Group {
    name: ", from this machine",
    checks: &[
        Check {
            id: "image-host",
            title: "the image's name begins with an address of the registry",
            page: "clients.md#what-clients-need",
            needs: &["registry"],
            judge: image_host,
        },
        Check {
            id: "name-resolves",
            title: "the address is found",
            page: "clients.md#trust-and-names",
            needs: &["registry"],
            judge: resolves,
        },
        Check {
            id: "port-open",
            title: "something answers there",
            page: "clients.md#trust-and-names",
            needs: &["name-resolves"],
            judge: reached,
        },
        Check {
            id: "machine-trusts",
            title: "this machine trusts it",
            page: "clients.md#trust-in-one-command",
            needs: &["registry"],
            judge: trusts,
        },
    ],
};

fn image_host(facts: &Facts) -> Option<Verdict> {
    let image = facts.image.as_ref()?;
    let reference = match &image.reference {
        Ok(reference) => reference,
        Err(why) => return Some(Verdict::failed(format!("{:?} names no image: {why}", image.given), "")),
    };
    let host = image.host.as_deref()?;
    let status = facts.status();
    if status.addresses.iter().any(|known| known.address == host) {
        return Some(Verdict::good(host));
    }
    let known: Vec<_> = status.addresses.iter().map(|known| known.address.as_str()).collect();
    let best = status.address.as_deref().unwrap_or("ADDRESS");
    Some(Verdict::failed(
        format!("it begins with {host}, and the registry is called {}", crate::cluster::listed(known)),
        format!(
            "call the image {best}/{reference}, or put {host} into spec.addresses. Clients compare the name letter by letter, the port too"
        ),
    ))
}

fn resolves(facts: &Facts) -> Option<Verdict> {
    let Some((address, scope)) = facts.address() else {
        return Some(Verdict::failed(
            "it has no address yet",
            format!("kubectl registry status {} says what it waits for", facts.named()),
        ));
    };
    if let Host::Ip(_) = address.host() {
        return Some(Verdict::good(format!("{address}, which is no name")));
    }
    if scope != AddressScope::External {
        return Some(elsewhere(&address, scope));
    }
    Some(match facts.here.resolved.as_ref()? {
        Ok(found) => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            Verdict::good(format!("{address} is at {}", found.join(", ")))
        }
        Err(why) => Verdict::failed(
            format!("{address}: {why}"),
            "give the name an entry in the DNS that this machine asks, or use another address of the registry",
        ),
    })
}

fn reached(facts: &Facts) -> Option<Verdict> {
    let Some((address, scope)) = facts.address() else { return Some(Verdict::skipped("it has no address yet")) };
    if scope != AddressScope::External {
        return Some(elsewhere(&address, scope));
    }
    Some(match &facts.here.reached {
        None => Verdict::skipped("it was not tried"),
        Some(Ok(())) => Verdict::good(address.as_str()),
        Some(Err(why)) => Verdict::failed(
            format!("{address}: {why}"),
            "is there a firewall between, does the load balancer or the node port lead to the Service, and is the port the image name's?",
        ),
    })
}

/// Nobody reaches such an address from outside, and what answers here under it is somebody else: another network may have the same one.
fn elsewhere(address: &HostPort, scope: AddressScope) -> Verdict {
    let from = status::from(scope);
    Verdict::skipped(format!(
        "{address} is reached from {from} only; spec.addresses, spec.route or a Service of another type give the registry an address for others"
    ))
}

fn trusts(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    if let Some(Ok(chain)) = &facts.chain
        && is_signed_by(chain, &facts.here.authorities, facts.now).is_ok()
    {
        return Some(Verdict::good("its certificate is signed by an authority that every program here trusts"));
    }
    let files = match &facts.here.files {
        None => return Some(Verdict::skipped("it was not looked at")),
        Some(Err(why)) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
        Some(Ok(files)) if files.is_empty() => {
            return Some(Verdict::skipped("neither Docker nor containerd nor podman is here"));
        }
        Some(Ok(files)) => files,
    };
    let missing: Vec<_> = files.iter().filter(|file| !file.is_there).map(|file| file.path.as_str()).collect();
    let good = || files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>().join(", ");
    if missing.is_empty() {
        return Some(Verdict::good(good()));
    }
    // Whoever works from a laptop may pull on other machines only.
    Some(Verdict::warning(
        format!("not as it should be: {}", missing.join(", ")),
        format!(
            "sudo kubectl-registry trust {} --kubeconfig ~/.kube/config --install, if anybody pulls on this machine",
            facts.named()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::check::{Missing, Outcome};
    use super::super::facts::{Image, TrustFile, testing};
    use super::*;

    fn of(id: &str, facts: &Facts) -> (Outcome, String) {
        let section = GROUP.look("", facts, &mut Missing::default());
        let looked = section.checks.into_iter().find(|looked| looked.id == id).unwrap();
        (looked.outcome, looked.seen + "\n" + &looked.cure)
    }

    #[test]
    fn each_fault_of_the_way_is_told_with_what_to_do() {
        type Break = fn(&mut Facts);
        let cases: [(Break, &str, Outcome, &str); 9] = [
            (
                |facts| facts.image = Some(Image::parse("registry.example.com/team/app:1")),
                "image-host",
                Outcome::Failed,
                "call the image registry.example.com:5000/team/app:1",
            ),
            (
                |facts| facts.image = Some(Image::parse("registry.example.com:5000/Team")),
                "image-host",
                Outcome::Failed,
                "names no image",
            ),
            (
                |facts| facts.here.resolved = Some(Err("no such host".to_owned())),
                "name-resolves",
                Outcome::Failed,
                "registry.example.com:5000: no such host",
            ),
            (
                |facts| {
                    facts.image = Some(Image::parse("team-a.registries.svc:5000/app"));
                    facts.here.resolved = Some(Err("no such host".to_owned()));
                },
                "name-resolves",
                Outcome::Skipped,
                "reached from pods only",
            ),
            (
                |facts| facts.here.reached = Some(Err("connection refused".to_owned())),
                "port-open",
                Outcome::Failed,
                "registry.example.com:5000: connection refused",
            ),
            (
                |facts| {
                    facts.image = Some(Image::parse("10.96.0.9:5000/app"));
                    facts.here.reached = Some(Ok(()));
                },
                "port-open",
                Outcome::Skipped,
                "reached from nodes and pods only",
            ),
            (
                |facts| facts.here.resolved = Some(Err("no such host".to_owned())),
                "port-open",
                Outcome::Skipped,
                "first this must be so: the address is found",
            ),
            (
                |facts| {
                    let file = TrustFile { path: "/etc/docker/certs.d/b/ca.crt".to_owned(), is_there: false };
                    facts.here.files.as_mut().unwrap().as_mut().unwrap().push(file);
                },
                "machine-trusts",
                Outcome::Warning,
                "not as it should be: /etc/docker/certs.d/b/ca.crt\nsudo kubectl-registry trust team-a --namespace registries",
            ),
            (|facts| facts.here.files = Some(Ok(Vec::new())), "machine-trusts", Outcome::Skipped, "neither Docker"),
        ];
        for id in ["image-host", "name-resolves", "port-open", "machine-trusts"] {
            assert_eq!(of(id, &testing::facts()).0, Outcome::Good, "{id}");
        }
        for (fault, id, outcome, words) in cases {
            let mut broken = testing::facts();
            fault(&mut broken);
            let (how, said) = of(id, &broken);
            assert_eq!(how, outcome, "{id}: {said}");
            assert!(said.contains(words), "{id}: {said}");
        }
    }

    #[test]
    fn a_host_of_another_registry_is_not_called_one_of_this() {
        let mut facts = testing::facts();
        facts.image = Some(Image::parse("elsewhere.example.com/team/app:1"));
        let said = of("image-host", &facts).1;
        assert!(
            said.contains("registry.example.com:5000, 10.96.0.9:5000 and team-a.registries.svc:5000"),
            "all of its names: {said}"
        );
    }
}
