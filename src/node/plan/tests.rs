use super::super::orders::testing::{CA, OTHER_CA, data, order, team_a, written};
use super::super::orders::{self, Refused};
use super::*;

use proptest::prelude::*;

const ME: &str = "system";
const HOST: &str = "team-a.registries.svc:5000";
const CERTS: &str = "/etc/containerd/certs.d";
const MAPPED: &[(&str, &str)] = &[(HOST, "10.96.0.9:5000")];

fn owner(text: &str) -> Owner {
    Owner::parse(text).unwrap()
}

fn orders(all: Vec<(&str, Result<Order, Refused>)>) -> Orders {
    all.into_iter().map(|(name, order)| (owner(name), order)).collect()
}

fn of(registry: &str, hosts: &[(&str, &str)]) -> Orders {
    orders(vec![(registry, Ok(order(registry, hosts)))])
}

fn by(keeper: Keeper, registry: &str, text: &str) -> String {
    let trust = Trust {
        mark: Mark { owner: owner(registry), keeper },
        host: crate::model::HostPort::parse(HOST).unwrap(),
        endpoint: crate::model::HostPort::parse(HOST).unwrap(),
        authorities: Bundle::default(),
    };
    Runtime::Docker.files(Path::new("/"), &trust)[0].text.clone() + text
}

/// A file of ours, for a registry.
fn ours(registry: &str, text: &str) -> String {
    by(Keeper::Agent(ME.to_owned()), registry, text)
}

/// A node whose containerd looks into one folder, with these files below it.
fn node(files: &[(&str, &str)]) -> Found {
    let mut found = Found::default();
    found.shelves.insert(Runtime::Containerd, Ok(vec![CERTS.into()]));
    found.used.insert(Runtime::Containerd);
    for (path, text) in files {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let place = found.hosts.entry(Path::new(CERTS).join(folder)).or_insert_with(|| Place {
            runtime: Runtime::Containerd,
            top: CERTS.into(),
            content: Content::Folder(BTreeMap::new()),
        });
        let Content::Folder(texts) = &mut place.content else { panic!("{path}") };
        if !name.is_empty() {
            texts.insert(name.to_owned(), Some((*text).to_owned()));
        }
    }
    found
}

/// The node after a plan was carried out.
fn after(mut found: Found, plan: &Plan) -> Found {
    for removal in &plan.removals {
        let Some(place) = found.hosts.get_mut(&removal.folder) else { panic!("{removal:?}") };
        let Content::Folder(texts) = &mut place.content else { panic!("{removal:?}") };
        removal.names.iter().for_each(|name| drop(texts.remove(name).unwrap()));
        if texts.is_empty() && removal.top.is_some() {
            found.hosts.remove(&removal.folder);
        }
    }
    for write in &plan.writes {
        let place = found.hosts.entry(write.folder.clone()).or_insert_with(|| Place {
            runtime: Runtime::Containerd,
            top: CERTS.into(),
            content: Content::Folder(BTreeMap::new()),
        });
        let Content::Folder(texts) = &mut place.content else { panic!("{write:?}") };
        write.files.iter().for_each(|file| drop(texts.insert(name(&file.path).to_owned(), Some(file.text.clone()))));
    }
    found
}

fn made(orders: &Orders, found: &Found) -> Plan {
    plan(orders, &BTreeMap::new(), found, ME)
}

/// Paths below the folder of hosts.
fn written_paths(plan: &Plan) -> Vec<String> {
    let files = plan.writes.iter().flat_map(|write| &write.files);
    files.map(|file| file.path.strip_prefix(CERTS).unwrap().display().to_string()).collect()
}

fn removed_paths(plan: &Plan) -> Vec<String> {
    let below = |step: &Removal| step.folder.strip_prefix(CERTS).unwrap().display().to_string();
    plan.removals.iter().flat_map(|step| step.names.iter().map(move |name| format!("{}/{name}", below(step)))).collect()
}

fn is_written(plan: &Plan, registry: &str) {
    let entry = &plan.entries[&owner(registry)];
    assert_eq!((entry.state, entry.message.as_str()), (State::Written, ""));
}

fn is_refused(plan: &Plan, registry: &str, words: &str) {
    let entry = &plan.entries[&owner(registry)];
    assert_eq!(entry.state, State::Refused, "{}", entry.message);
    assert!(entry.message.contains(words), "{}", entry.message);
}

#[test]
fn what_is_ordered_is_written_once() {
    let orders = of("registries/team-a", MAPPED);
    let first = made(&orders, &node(&[]));
    assert_eq!(written_paths(&first), [format!("{HOST}/ca.crt"), format!("{HOST}/hosts.toml")]);
    is_written(&first, "registries/team-a");

    let found = after(node(&[]), &first);
    let second = made(&orders, &found);
    assert_eq!((second.writes.len(), second.removals.len()), (0, 0));
    assert_eq!(second.entries, first.entries);
}

#[test]
fn an_authority_that_takes_over_is_written_beside_the_former_one_and_then_alone() {
    let with = |ca: &str| {
        orders(vec![("registries/team-a", orders::read(&team_a(), &data(ca, &written("registries/team-a", MAPPED))))])
    };
    let mut found = node(&[]);
    for ca in [CA.to_owned(), format!("{OTHER_CA}{CA}"), OTHER_CA.to_owned()] {
        let plan = made(&with(&ca), &found);
        assert!(written_paths(&plan).contains(&format!("{HOST}/ca.crt")));
        assert!(plan.removals.is_empty());
        found = after(found, &plan);
        let Content::Folder(texts) = &found.hosts[&Path::new(CERTS).join(HOST)].content else { panic!() };
        assert_eq!(Bundle::read(texts["ca.crt"].as_deref().unwrap()), Bundle::read(&ca));
    }
}

#[test]
fn what_was_edited_or_deleted_is_put_right() {
    let orders = of("registries/team-a", MAPPED);
    let found = after(node(&[]), &made(&orders, &node(&[])));
    for change in [Some("edited"), None] {
        let mut changed = found.clone();
        let place = changed.hosts.get_mut(&Path::new(CERTS).join(HOST)).unwrap();
        let Content::Folder(texts) = &mut place.content else { panic!() };
        match change {
            Some(text) => drop(texts.insert("hosts.toml".to_owned(), Some(ours("registries/team-a", text)))),
            None => drop(texts.remove("hosts.toml")),
        }
        let plan = made(&orders, &changed);
        assert_eq!(written_paths(&plan), [format!("{HOST}/hosts.toml")], "{change:?}");
        is_written(&plan, "registries/team-a");
    }
}

#[test]
fn what_is_not_ordered_any_more_goes_with_its_folder() {
    let found = node(&[
        ("gone.example/ca.crt", &ours("registries/gone", "")),
        ("gone.example/hosts.toml", &ours("registries/gone", "")),
        ("kept.example/ca.crt", &by(Keeper::Person, "registries/by-hand", "")),
        ("other.example/ca.crt", &by(Keeper::Agent("elsewhere".to_owned()), "registries/gone", "")),
        ("foreign.example/ca.crt", CA),
        ("mixed.example/ca.crt", &ours("registries/gone", "")),
        ("mixed.example/client.cert", "theirs"),
        (".private-registry-agent.half.example.draft/ca.crt", &ours("registries/half", "")),
        ("whole.example/.private-registry-agent.ca.crt.draft", "# priv"),
        ("empty.example/", ""),
    ]);
    let plan = made(&Orders::new(), &found);
    assert_eq!(
        removed_paths(&plan),
        [
            ".private-registry-agent.half.example.draft/ca.crt",
            "gone.example/hosts.toml",
            "gone.example/ca.crt",
            "mixed.example/ca.crt",
            "whole.example/.private-registry-agent.ca.crt.draft",
        ]
    );
    let left = after(found, &plan);
    let names: Vec<_> = left.hosts.keys().map(|path| name(path)).collect();
    assert_eq!(names, ["empty.example", "foreign.example", "kept.example", "mixed.example", "other.example"]);
    assert_eq!(clean_up(&Orders::new(), &node(&[]), ME), Plan::default());
}

#[test]
fn a_host_that_is_mapped_no_longer_loses_its_file_and_keeps_its_authority() {
    let mapped = of("registries/team-a", &[("a.example:5000", "10.96.0.9:5000")]);
    let plain = of("registries/team-a", &[("a.example:5000", "a.example:5000")]);
    let found = after(node(&[]), &made(&mapped, &node(&[])));
    let plan = made(&plain, &found);
    assert_eq!(removed_paths(&plan), ["a.example:5000/hosts.toml"]);
    assert!(plan.writes.is_empty() && plan.removals[0].top.is_none());
    // And back, as if nothing had been.
    let found = after(found, &plan);
    let back = after(found.clone(), &made(&mapped, &found));
    assert_eq!(back, after(node(&[]), &made(&mapped, &node(&[]))));
}

#[test]
fn files_and_folders_of_others_are_refused_with_the_path_and_left_alone() {
    let orders = of("registries/team-a", MAPPED);
    let at = |name: &str| format!("{HOST}/{name}");
    let theirs = by(Keeper::Agent("elsewhere".to_owned()), "registries/team-b", "");
    for (files, words) in [
        (vec![(at("ca.crt"), OTHER_CA.to_owned())], "/ca.crt was not written by the node agent"),
        (vec![(at("client.cert"), "theirs".to_owned())], "/client.cert was not written by the node agent"),
        (
            vec![(at("ca.crt"), ours("registries/team-a", "")), (at("hosts.toml"), "theirs".to_owned())],
            "/hosts.toml was not",
        ),
        (vec![(at("ca.crt"), theirs)], "is for the registry registries/team-b"),
        (vec![(at("ca.crt"), by(Keeper::Person, "registries/team-b", ""))], "is for the registry registries/team-b"),
        (vec![("team-a.registries.svc_5000_/ca.crt".to_owned(), CA.to_owned())], "containerd reads that one instead"),
    ] {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let plan = made(&orders, &node(&files));
        is_refused(&plan, "registries/team-a", words);
        is_refused(&plan, "registries/team-a", CERTS);
        assert!(plan.writes.is_empty() && plan.removals.is_empty(), "{plan:?}");
    }
    for kind in ["link", "file"] {
        let mut found = node(&[]);
        let place = Place { runtime: Runtime::Containerd, top: CERTS.into(), content: Content::Other(kind) };
        found.hosts.insert(Path::new(CERTS).join(HOST), place);
        let plan = made(&orders, &found);
        is_refused(&plan, "registries/team-a", &format!("is a {kind}: move it away"));
        assert!(plan.writes.is_empty());
    }
}

#[test]
fn what_somebody_wrote_who_trusts_the_same_is_enough() {
    let orders = of("registries/team-a", &[("a.example", "a.example")]);
    let plan = made(&orders, &node(&[("a.example/ca.crt", CA)]));
    is_written(&plan, "registries/team-a");
    assert!(plan.writes.is_empty());
}

#[test]
fn what_a_person_wrote_for_the_same_registry_is_taken_over() {
    let orders = of("registries/team-a", &[("a.example", "a.example")]);
    let found = node(&[("a.example/ca.crt", &by(Keeper::Person, "registries/team-a", CA))]);
    let plan = made(&orders, &found);
    assert_eq!(written_paths(&plan), ["a.example/ca.crt"]);
    is_written(&plan, "registries/team-a");
    let taken = after(found, &plan);
    assert_eq!(removed_paths(&made(&Orders::new(), &taken)), ["a.example/ca.crt"]);
}

#[test]
fn of_two_registries_with_one_host_the_first_has_it_until_it_lets_go() {
    let hosts: &[(&str, &str)] = &[("shared.example", "shared.example")];
    let (a, b) = ("registries/team-a", "registries/team-b");
    let both = || orders(vec![(a, Ok(order(a, hosts))), (b, Ok(order(b, hosts)))]);

    let first = made(&both(), &node(&[]));
    is_written(&first, a);
    is_refused(&first, b, "is for the registry registries/team-a");
    assert_eq!(first.writes.len(), 1);

    // Whoever is there has it, whatever the alphabet says.
    let found = after(node(&[]), &made(&of(b, hosts), &node(&[])));
    let plan = made(&both(), &found);
    is_written(&plan, b);
    is_refused(&plan, a, "is for the registry registries/team-b");
    assert!(plan.writes.is_empty() && plan.removals.is_empty());

    // Once it lets go, the other one has it in the same look.
    let plan = made(&of(a, hosts), &found);
    is_written(&plan, a);
    assert_eq!((plan.removals.len(), plan.writes.len()), (1, 1));
    assert_eq!(plan.removals[0].top, None, "the folder is needed");
    assert_eq!(after(found, &plan), after(node(&[]), &first));
}

#[test]
fn an_order_that_is_not_followed_keeps_what_it_has_and_stops_no_other() {
    let (a, b) = ("registries/team-a", "registries/team-b");
    let found = after(node(&[]), &made(&of(a, &[("a.example", "a.example")]), &node(&[])));
    let tampered = Err(Refused { bundle: "ab12".to_owned(), why: "it names a host that is none".to_owned() });
    let plan = made(&orders(vec![(a, tampered), (b, Ok(order(b, &[("b.example", "b.example")])))]), &found);
    assert!(plan.removals.is_empty());
    is_refused(&plan, a, "a host that is none");
    is_written(&plan, b);
    assert_eq!(written_paths(&plan), ["b.example/ca.crt"]);
}

#[test]
fn a_node_that_is_not_meant_has_nothing() {
    let mut text = written("registries/team-a", MAPPED);
    text["nodes"] = serde_json::json!({"matchLabels": {"pool": "build"}});
    let orders = orders(vec![("registries/team-a", orders::read(&team_a(), &data(CA, &text)))]);
    let labels = |pool: &str| BTreeMap::from([("pool".to_owned(), pool.to_owned())]);

    let plan = super::plan(&orders, &labels("build"), &node(&[]), ME);
    is_written(&plan, "registries/team-a");
    let found = after(node(&[]), &plan);
    let plan = super::plan(&orders, &labels("web"), &found, ME);
    assert_eq!(plan.entries[&team_a()], Entry::new("ab12", State::NotSelected, ""));
    assert!(after(found, &plan).hosts.is_empty());
}

#[test]
fn a_runtime_that_cannot_be_served_keeps_what_is_there_and_is_told() {
    let orders = of("registries/team-a", MAPPED);
    let mut found = after(node(&[("gone.example/ca.crt", &ours("registries/gone", ""))]), &made(&orders, &node(&[])));
    found.shelves.insert(Runtime::Containerd, Err("containerd has no config_path: set it".to_owned()));
    let plan = made(&orders, &found);
    is_refused(&plan, "registries/team-a", "containerd has no config_path: set it");
    assert_eq!(removed_paths(&plan), ["gone.example/ca.crt"], "what nobody ordered goes all the same");
    assert!(plan.writes.is_empty());
}

#[test]
fn runtimes_are_those_that_were_named_or_those_of_the_node() {
    let with = |runtimes: serde_json::Value, hosts: &[(&str, &str)]| {
        let mut text = written("registries/team-a", hosts);
        text["runtimes"] = runtimes;
        orders(vec![("registries/team-a", orders::read(&team_a(), &data(CA, &text)))])
    };
    let plain: &[(&str, &str)] = &[("a.example", "a.example")];
    let mut found = node(&[]);
    found.shelves.insert(Runtime::Podman, Ok(vec!["/etc/containers/certs.d".into()]));
    let folders = |plan: &Plan| plan.writes.iter().map(|write| write.folder.display().to_string()).collect::<Vec<_>>();

    let plan = made(&with(serde_json::json!(["podman"]), plain), &found);
    assert_eq!(folders(&plan), ["/etc/containers/certs.d/a.example"]);
    assert_eq!(folders(&made(&of("registries/team-a", plain), &found)), [format!("{CERTS}/a.example")]);
    is_refused(
        &made(&with(serde_json::json!(["docker"]), plain), &found),
        "registries/team-a",
        "nodeTrust.paths.docker",
    );
    is_refused(
        &made(&with(serde_json::json!(["podman"]), MAPPED), &found),
        "registries/team-a",
        "podman cannot be led to another address",
    );
    found.used.clear();
    is_refused(&made(&of("registries/team-a", plain), &found), "registries/team-a", "none of the runtimes");
}

#[test]
fn cleaning_up_takes_all_that_is_ours_and_nothing_else() {
    let orders = of("registries/team-a", MAPPED);
    let found = node(&[("foreign.example/ca.crt", CA)]);
    let full = after(found.clone(), &made(&orders, &found));
    let plan = clean_up(&orders, &full, ME);
    assert!(plan.writes.is_empty());
    let entry = &plan.entries[&team_a()];
    assert_eq!((entry.state, entry.bundle.as_str()), (State::NotSelected, "ab12"));
    assert!(entry.message.contains("nodeTrust.cleanUp"), "{}", entry.message);
    assert_eq!(after(full, &plan), found);
}

const REGISTRIES: [&str; 3] = ["registries/team-a", "registries/team-b", "registries/gone"];

/// Files as anybody may have left them, some of them ours.
fn any_files() -> impl Strategy<Value = Vec<(String, String)>> {
    let host = prop::sample::select(vec!["a.example", "b.example:5000", "b.example_5000_"]);
    let name =
        prop::sample::select(vec!["ca.crt", "hosts.toml", "client.cert", ".private-registry-agent.ca.crt.draft"]);
    let registry = prop::sample::select(REGISTRIES.to_vec());
    let text = (0..5, registry).prop_map(|(kind, registry)| match kind {
        0 => CA.to_owned(),
        1 => "theirs".to_owned(),
        2 => by(Keeper::Person, registry, CA),
        3 => by(Keeper::Agent("elsewhere".to_owned()), registry, CA),
        _ => ours(registry, "old"),
    });
    prop::collection::vec((host, name, text).prop_map(|(host, name, text)| (format!("{host}/{name}"), text)), 0..8)
}

fn any_orders() -> impl Strategy<Value = Orders> {
    let hosts = prop::collection::btree_set(prop::sample::select(vec!["a.example", "b.example:5000"]), 1..3);
    let one = (hosts, any::<bool>(), 0..4).prop_map(|(hosts, is_mapped, refused)| match refused {
        0 => Err(Refused { bundle: String::new(), why: "refused".to_owned() }),
        _ => {
            let endpoint = |host| if is_mapped { "10.96.0.9:5000" } else { host };
            let hosts: Vec<_> = hosts.into_iter().map(|host| (host, endpoint(host))).collect();
            Ok(order(REGISTRIES[0], &hosts))
        }
    });
    prop::collection::btree_map(prop::sample::select(vec![owner(REGISTRIES[0]), owner(REGISTRIES[1])]), one, 0..3)
}

/// What is not ours to touch.
fn of_others(found: &Found) -> Vec<(PathBuf, String, Option<String>)> {
    let mut others = Vec::new();
    for (path, place) in &found.hosts {
        let Content::Folder(texts) = &place.content else { continue };
        let foreign = texts.iter().filter(|(name, text)| {
            let mark = text.as_deref().and_then(Mark::of);
            // What a person wrote for a registry that has an order may be taken over.
            !is_draft(name)
                && mark.is_none_or(|mark| {
                    mark.owner == owner(REGISTRIES[2]) && mark.keeper != Keeper::Agent(ME.to_owned())
                })
        });
        others.extend(foreign.map(|(name, text)| (path.clone(), name.clone(), text.clone())));
    }
    others
}

proptest! {
    #[test]
    fn after_one_look_nothing_is_left_to_do_and_nothing_of_others_was_touched(files in any_files(), orders in any_orders()) {
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let found = node(&files);
        let first = made(&orders, &found);
        let then = after(found.clone(), &first);
        let second = made(&orders, &then);

        prop_assert!(second.writes.is_empty() && second.removals.is_empty(), "{:?}", second);
        prop_assert_eq!(&second.entries, &first.entries);
        prop_assert_eq!(of_others(&then), of_others(&found));
        for (owner, order) in &orders {
            let is_written = first.entries[owner].state == State::Written;
            prop_assert!(!is_written || order.is_ok());
        }

        let clean = after(then.clone(), &clean_up(&orders, &then, ME));
        prop_assert_eq!(of_others(&clean), of_others(&found));
        let ours = |text: &String| Mark::of(text).is_some_and(|mark| mark.keeper == Keeper::Agent(ME.to_owned()));
        let is_ours = |place: &Place| matches!(&place.content, Content::Folder(texts) if texts.values().flatten().any(ours));
        prop_assert!(!clean.hosts.values().any(is_ours));
    }
}
