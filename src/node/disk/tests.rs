use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::super::orders::testing::{CA, OTHER_CA, data, order, team_a, written};
use super::super::orders::{self, Orders};
use super::super::plan::{clean_up, plan};
use super::super::report::{Entry, State};
use super::*;
use crate::node::trust_files::Owner;

const ME: &str = "system";
const HOST: &str = "team-a.registries.svc:5000";
const HOSTS: &[(&str, &str)] = &[(HOST, "10.96.0.9:5000")];
const NEW: &str = "containerd://2.3.4";
const LITERAL: &str = "etc/containerd/certs.d:/etc/docker/certs.d";

/// A node in a folder.
struct Machine {
    folder: TempDir,
    disk: Disk,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/containerd")).unwrap();
        let homes = BTreeMap::from([(Runtime::Containerd, "/etc/containerd".into())]);
        Self { disk: Disk { root: folder.path().canonicalize().unwrap(), homes }, folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn configured(self) -> Self {
        let text =
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
        self.put("etc/containerd/config.toml", text);
        self
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Everything below `/etc`, in order.
    fn all(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.path("etc")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                found.push(path.strip_prefix(self.folder.path()).unwrap().display().to_string());
            }
        }
        found.sort();
        found
    }

    /// One look of the agent.
    fn look(&self, orders: &Orders) -> (BTreeMap<Owner, Entry>, Vec<Failure>) {
        self.look_as(orders, NEW)
    }

    fn look_as(&self, orders: &Orders, runtime: &str) -> (BTreeMap<Owner, Entry>, Vec<Failure>) {
        let plan = plan(orders, &BTreeMap::new(), &self.disk.look(runtime), ME);
        let failures = self.disk.carry_out(&plan);
        (plan.entries, failures)
    }

    fn writes(&self, orders: &Orders) {
        let (entries, failures) = self.look(orders);
        assert!(failures.is_empty(), "{failures:?}");
        assert!(entries.values().all(|entry| entry.state == State::Written), "{entries:?}");
    }
}

fn ordered(ca: &str) -> Orders {
    Orders::from([(team_a(), orders::read(&team_a(), &data(ca, &written("registries/team-a", HOSTS))))])
}

fn one(registry: &str, hosts: &[(&str, &str)]) -> Orders {
    Orders::from([(Owner::parse(registry).unwrap(), Ok(order(registry, hosts)))])
}

#[test]
fn a_folder_appears_whole_is_readable_by_all_and_goes_without_a_trace() {
    let machine = Machine::new().configured();
    let before = machine.all();
    machine.writes(&ordered(CA));

    let folder = format!("etc/containerd/certs.d/{HOST}");
    assert!(
        machine
            .text(&format!("{folder}/ca.crt"))
            .starts_with("# privateregistry.dev/trust for registries/team-a; the node agent of system ")
    );
    assert!(
        machine
            .text(&format!("{folder}/hosts.toml"))
            .contains("[host.\"https://10.96.0.9:5000\"]\n  ca = \"ca.crt\"\n")
    );
    for (path, mode) in [("etc/containerd/certs.d", 0o755), (&folder, 0o755), (&format!("{folder}/ca.crt"), 0o644)] {
        assert_eq!(fs::metadata(machine.path(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
    let full = machine.all();
    assert!(!full.iter().any(|path| path.contains(".draft")), "{full:?}");

    machine.writes(&Orders::new());
    // The runtime's own folder stays: a package may have brought it.
    assert_eq!(
        machine.all(),
        [&before[..], &["etc/containerd/certs.d".to_owned()]]
            .concat()
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    machine.writes(&ordered(CA));
    assert_eq!(machine.all(), full);
}

#[test]
fn an_unconfigured_containerd_is_met_in_both_folders_and_the_one_that_is_only_ours_goes() {
    let machine = Machine::new();
    machine.writes(&ordered(CA));
    for folder in ["etc/containerd/certs.d", LITERAL] {
        machine.text(&format!("{folder}/{HOST}/hosts.toml"));
    }
    machine.writes(&Orders::new());
    assert_eq!(machine.all(), ["etc/containerd", "etc/containerd/certs.d"]);
}

#[test]
fn a_list_of_which_something_else_is_left_stays() {
    let machine = Machine::new();
    machine.put(&format!("{LITERAL}/foreign.example/ca.crt"), CA);
    let before = machine.all();
    machine.writes(&ordered(CA));
    machine.writes(&Orders::new());
    let mut expected = before;
    expected.push("etc/containerd/certs.d".to_owned());
    expected.sort();
    assert_eq!(machine.all(), expected);
}

#[test]
fn a_bundle_of_two_authorities_takes_the_place_of_one() {
    let machine = Machine::new().configured();
    let at = format!("etc/containerd/certs.d/{HOST}/ca.crt");
    let count = || machine.text(&at).matches("BEGIN CERTIFICATE").count();
    machine.writes(&ordered(CA));
    assert_eq!(count(), 1);
    machine.writes(&ordered(&format!("{OTHER_CA}{CA}")));
    assert_eq!(count(), 2);
    machine.writes(&ordered(OTHER_CA));
    assert!(machine.text(&at).ends_with(&crate::pki::Bundle::read(OTHER_CA).render()));
}

#[test]
fn what_is_deleted_edited_or_half_done_is_put_right_at_the_next_look() {
    let machine = Machine::new().configured();
    machine.writes(&ordered(CA));
    let folder = format!("etc/containerd/certs.d/{HOST}");
    let (whole, text) = (machine.all(), machine.text(&format!("{folder}/ca.crt")));
    for spoil in [
        &(|| fs::remove_file(machine.path(&format!("{folder}/ca.crt"))).unwrap()) as &dyn Fn(),
        &|| fs::remove_dir_all(machine.path(&folder)).unwrap(),
        &|| fs::remove_dir_all(machine.path("etc/containerd/certs.d")).unwrap(),
        &|| machine.put(&format!("{folder}/ca.crt"), &text.replace("BEGIN", "END")),
        // What a process leaves that is killed.
        &|| machine.put(&format!("{folder}/.private-registry-agent.ca.crt.draft"), "# privatereg"),
        &|| {
            machine.put(
                "etc/containerd/certs.d/.private-registry-agent.x.example.draft/.private-registry-agent.ca.crt.draft",
                "",
            );
        },
        &|| {
            fs::create_dir(machine.path(&format!("etc/containerd/certs.d/.private-registry-agent.{HOST}.draft")))
                .unwrap();
        },
    ] {
        spoil();
        machine.writes(&ordered(CA));
        assert_eq!((machine.all(), machine.text(&format!("{folder}/ca.crt"))), (whole.clone(), text.clone()));
    }
}

#[test]
fn no_link_is_followed() {
    let outside = tempfile::tempdir().unwrap();
    for (place, words) in [
        (format!("etc/containerd/certs.d/{HOST}"), "is a link: move it away"),
        ("etc/containerd/certs.d".to_owned(), "is a link, which could lead anywhere"),
        ("etc/containerd/config.toml".to_owned(), "is a link, which could lead anywhere"),
    ] {
        let machine = Machine::new();
        fs::create_dir_all(machine.path(&place).parent().unwrap()).unwrap();
        symlink(outside.path(), machine.path(&place)).unwrap();
        let (entries, failures) = machine.look(&ordered(CA));
        let entry = &entries[&team_a()];
        assert_eq!((entry.state, failures.len()), (State::Refused, 0), "{place}");
        assert!(entry.message.contains(words) && entry.message.contains(&place), "{}", entry.message);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{place}");
    }
    // Nor one that stands where something is made or put aside.
    fs::write(outside.path().join("theirs"), "theirs").unwrap();
    let machine = Machine::new().configured();
    let draft = machine.path(&format!("etc/containerd/certs.d/.private-registry-agent.{HOST}.draft"));
    fs::create_dir_all(draft.parent().unwrap()).unwrap();
    for orders in [ordered(CA), Orders::new()] {
        symlink(outside.path(), &draft).unwrap();
        machine.writes(&orders);
        assert!(outside.path().join("theirs").exists());
        assert!(!draft.is_symlink());
    }
    fs::remove_file(outside.path().join("theirs")).unwrap();
    // A link where containerd does not look any more is no trouble of anybody.
    let machine = Machine::new().configured();
    symlink(outside.path(), machine.path("etc/containerd/certs.d:")).unwrap();
    machine.writes(&ordered(CA));
    let machine = Machine::new();
    fs::remove_dir(machine.path("etc/containerd")).unwrap();
    symlink(outside.path(), machine.path("etc/containerd")).unwrap();
    assert!(machine.look(&ordered(CA)).0[&team_a()].message.contains("/etc/containerd is a link"));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_linked_file_in_our_folder_is_not_written_through() {
    let machine = Machine::new().configured();
    machine.writes(&ordered(CA));
    machine.put("etc/shadow", "secret");
    let file = machine.path(&format!("etc/containerd/certs.d/{HOST}/ca.crt"));
    fs::remove_file(&file).unwrap();
    symlink(machine.path("etc/shadow"), &file).unwrap();
    let (entries, _) = machine.look(&ordered(CA));
    assert!(entries[&team_a()].message.contains("ca.crt was not written by the node agent"), "{entries:?}");
    assert_eq!(machine.text("etc/shadow"), "secret");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_stops_no_other_and_heals() {
    let machine = Machine::new().configured();
    let mut three = ordered(CA);
    three.extend(one("registries/team-b", &[("b.example", "b.example")]));
    three.extend(one("registries/team-c", &[("c.example", "c.example")]));
    // Root may write anywhere, but not a file into a file.
    machine.put("etc/containerd/certs.d/.private-registry-agent.b.example.draft", "in the way");
    let (entries, failures) = machine.look(&three);
    assert_eq!(entries[&team_a()].state, State::Written);
    let [(Some(owner), why)] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!(owner.to_string(), "registries/team-b");
    assert!(why.starts_with("cannot write /etc/containerd/certs.d/b.example: "), "{why}");
    for host in [HOST, "c.example"] {
        machine.text(&format!("etc/containerd/certs.d/{host}/ca.crt"));
    }

    fs::remove_file(machine.path("etc/containerd/certs.d/.private-registry-agent.b.example.draft")).unwrap();
    machine.writes(&three);
}

#[test]
fn what_the_system_refuses_is_told_with_what_to_do() {
    for (kind, words) in [
        (ErrorKind::ReadOnlyFilesystem, "kubectl registry trust --print"),
        (ErrorKind::StorageFull, "free space"),
        (ErrorKind::PermissionDenied, "nodeTrust.seLinuxOptions.type"),
    ] {
        let why = told("write", Path::new("/etc/x"), &kind.into());
        assert!(why.starts_with("cannot write /etc/x: ") && why.contains(words), "{why}");
    }
}

#[test]
fn the_configuration_is_read_with_all_that_it_takes_in() {
    let machine = Machine::new();
    let section = "[plugins.'io.containerd.cri.v1.images'.registry]\n";
    machine.put(
        "etc/containerd/config.toml",
        "version = 3\nimports = ['conf.d/*.toml', '/etc/containerd/more.toml', '/outside/*.toml']\n",
    );
    let places = || machine.disk.look(NEW).shelves[&Runtime::Containerd].clone();
    assert_eq!(places().unwrap().len(), 2, "its default");
    machine.put(
        "etc/containerd/conf.d/10-first.toml",
        &format!("version = 3\n{section}config_path = '/etc/containerd/first'\n"),
    );
    machine.put(
        "etc/containerd/conf.d/ignored.txt",
        &format!("version = 3\n{section}config_path = '/etc/containerd/ignored'\n"),
    );
    assert_eq!(places().unwrap(), [PathBuf::from("/etc/containerd/first")]);
    // Files that take in each other are read once.
    machine.put(
        "etc/containerd/more.toml",
        &format!(
            "version = 3\nimports = ['/etc/containerd/config.toml']\n{section}config_path = '/etc/containerd/more'\n"
        ),
    );
    assert_eq!(places().unwrap(), [PathBuf::from("/etc/containerd/more")]);
    machine.put("etc/containerd/more.toml", "version = \n");
    assert_eq!(places().unwrap_err(), "containerd's /etc/containerd/more.toml is not TOML (line 1): mend it");
}

#[test]
fn a_containerd_that_is_not_restarted_yet_is_looked_after_where_it_looked_before() {
    let machine = Machine::new();
    machine.writes(&ordered(CA));
    let machine = machine.configured();
    machine.writes(&ordered(OTHER_CA));
    for folder in ["etc/containerd/certs.d", LITERAL] {
        let text = machine.text(&format!("{folder}/{HOST}/ca.crt"));
        assert!(text.ends_with(&crate::pki::Bundle::read(OTHER_CA).render()), "{folder}: {text}");
    }
    // Whoever comes later is written where it looks now, and nothing stays of whoever goes.
    machine.writes(&one("registries/team-b", &[("b.example", "b.example")]));
    assert!(machine.path("etc/containerd/certs.d/b.example").exists());
    assert!(!machine.path("etc/containerd/certs.d:").exists());
}

#[test]
fn an_older_containerd_without_config_path_is_told_and_served_once_it_has_one() {
    let machine = Machine::new();
    machine.put("etc/containerd/config.toml", "version = 2\n");
    let (entries, _) = machine.look_as(&ordered(CA), "containerd://1.6.20~ds1");
    let entry = &entries[&team_a()];
    assert_eq!(entry.state, State::Refused);
    assert!(
        entry.message.starts_with("containerd has no config_path: set it to /etc/containerd/certs.d"),
        "{}",
        entry.message
    );
    machine.put(
        "etc/containerd/config.toml",
        "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
    );
    assert_eq!(machine.look_as(&ordered(CA), "containerd://1.6.20~ds1").0[&team_a()].state, State::Written);
}

#[test]
fn a_node_has_the_runtime_of_its_kubelet_and_what_is_installed_beside_it() {
    let mut machine = Machine::new();
    fs::create_dir_all(machine.path("etc/docker/certs.d/left.example")).unwrap();
    machine.put("etc/containers/policy.json", "{}");
    machine.disk.homes.insert(Runtime::Docker, "/etc/docker".into());
    machine.disk.homes.insert(Runtime::Podman, "/etc/containers".into());
    let used = |runtime| machine.disk.look(runtime).used.into_iter().collect::<Vec<_>>();
    assert_eq!(used(NEW), [Runtime::Containerd, Runtime::Podman]);
    assert_eq!(used("cri-o://1.33.0"), [Runtime::Podman]);
    assert_eq!(used("docker://27.0.1"), [Runtime::Docker, Runtime::Podman]);
}

#[test]
fn a_folder_of_somebody_else_that_is_not_there_is_told() {
    let mut machine = Machine::new();
    machine.disk.homes.insert(Runtime::Docker, "/etc/docker".into());
    let found = machine.disk.look(NEW);
    assert!(found.shelves[&Runtime::Docker].as_ref().unwrap_err().contains("nodeTrust.paths.docker"));
    assert!(found.shelves[&Runtime::Containerd].is_ok());
}

#[test]
fn cleaning_up_leaves_what_was_there_before() {
    let machine = Machine::new();
    machine.put("etc/containerd/config.toml", "version = 3\n");
    machine.put("etc/containerd/certs.d/foreign.example/ca.crt", CA);
    machine.put("etc/containerd/certs.d/mixed.example/theirs.crt", OTHER_CA);
    let before = machine.all();
    machine.writes(&ordered(CA));
    let plan = clean_up(&ordered(CA), &machine.disk.look(NEW), ME);
    assert!(machine.disk.carry_out(&plan).is_empty());
    assert_eq!(machine.all(), before);
}
