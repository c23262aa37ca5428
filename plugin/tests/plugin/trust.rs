//! `trust`, below a root of its own and with an authority from a file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use private_registry_operator::pki::issue::issue_authority;
use private_registry_operator::pki::{AuthorityProfile, Bundle, KeyAlgorithm};
use serde_json::Value;

use crate::{Answer, ask};

const HOST: &str = "registry.example.com:5000";
const DOCKER: &str = "etc/docker/certs.d/registry.example.com:5000";

/// A machine, and beside it an authority with its key.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.root()).unwrap();
        machine.issue();
        machine
    }

    /// Makes a new authority, in place of the last one.
    fn issue(&self) {
        let profile = AuthorityProfile {
            common_name: "team-a CA".to_owned(),
            duration: AuthorityProfile::DEFAULT_DURATION,
            key_algorithm: KeyAlgorithm::EcdsaP256,
        };
        let authority = issue_authority(&profile, Timestamp::now()).unwrap();
        fs::write(self.authority(), authority.key_pem.expose().to_owned() + &authority.certificate_pem).unwrap();
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// `trust team-a` with these arguments.
    fn trust(&self, arguments: &[&str]) -> Answer {
        let (root, authority) = (self.root(), self.authority());
        let mut all = vec!["trust", "team-a", "--root", root.to_str().unwrap()];
        if !arguments.contains(&"--uninstall") {
            all.extend(["--ca", authority.to_str().unwrap()]);
        }
        if !arguments.contains(&"--address") && !arguments.contains(&"--uninstall") {
            all.extend(["--address", HOST]);
        }
        all.extend(arguments);
        ask(&all)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Every file below the root.
    fn files(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read_to_string(&path).unwrap());
                }
            }
        }
        found
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn without_being_told_it_only_says_what_it_would_do() {
    let machine = Machine::new();
    let answer = machine.trust(&["--docker"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.starts_with("authority  CN=team-a CA, until "), "{}", answer.out);
    assert!(answer.out.contains(&format!("\nwrite      /{DOCKER}/ca.crt\n")), "{}", answer.out);
    assert!(answer.out.ends_with("Nothing was done; --install does it.\n"), "{}", answer.out);
    assert_eq!(machine.files(), BTreeMap::new());
}

#[test]
fn what_is_installed_is_whole_readable_and_gone_again_when_it_is_uninstalled() {
    let machine = Machine::new();
    machine.put("etc/docker/daemon.json", "{}");
    let before = machine.files();

    let answer = machine.trust(&["--docker", "--containerd", "--podman", "--install", "--yes"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.ends_with("4 files written.\n"), "{}", answer.out);
    let files = machine.files();
    for folder in ["docker", "containerd", "containers"] {
        let text = &files[&format!("etc/{folder}/certs.d/{HOST}/ca.crt")];
        assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("KEY"), "{text}");
    }
    assert_eq!(files.len(), before.len() + 4, "{:?}", files.keys());
    assert_eq!((mode(&machine.root().join(DOCKER)), mode(&machine.root().join(DOCKER).join("ca.crt"))), (0o755, 0o644));

    let answer = machine.trust(&["--docker", "--containerd", "--podman", "--install"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "nothing to ask about");
    assert!(answer.out.ends_with("0 files written.\n"), "{}", answer.out);

    let answer = machine.trust(&["--uninstall", "--yes"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.ends_with("4 files removed.\n"), "{}", answer.out);
    assert_eq!(machine.files(), before);
    assert!(!machine.root().join(DOCKER).exists(), "an empty folder means something to podman");
    assert!(machine.trust(&["--uninstall"]).out.starts_with("Nothing was written for team-a here"));
}

#[test]
fn nobody_to_ask_means_no() {
    let machine = Machine::new();
    let answer = machine.trust(&["--docker", "--install"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("Trust team-a on this machine?") && answer.err.contains("--yes"), "{}", answer.err);
    assert_eq!(machine.files(), BTreeMap::new());

    machine.trust(&["--docker", "--install", "--yes"]);
    let installed = machine.files();
    assert_eq!(machine.trust(&["--uninstall"]).code, Some(1));
    assert_eq!(machine.files(), installed);
}

#[test]
fn a_new_authority_takes_the_place_of_the_old_one() {
    let machine = Machine::new();
    machine.trust(&["--containerd", "--install", "--yes"]);
    let before = machine.files();
    machine.issue();
    let answer = machine.trust(&["--containerd", "--install", "--yes"]);
    assert!(answer.out.contains("update     /etc/containerd/certs.d/"), "{}", answer.out);
    assert!(answer.out.ends_with("2 files written.\n"), "{}", answer.out);
    let after = machine.files();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "nothing half-written is left");
    let authority = Bundle::read(&fs::read_to_string(machine.authority()).unwrap());
    let ca = &after[&format!("etc/containerd/certs.d/{HOST}/ca.crt")];
    assert_eq!(Bundle::read(ca), authority);
}

#[test]
fn what_is_ours_and_wanted_no_more_goes() {
    let machine = Machine::new();
    machine.trust(&["--containerd", "--install", "--yes"]);
    let installed = machine.files();
    let (ca, text) = installed.iter().next().unwrap();
    let mark = text.lines().next().unwrap();
    let folder = Path::new(ca).parent().unwrap().to_str().unwrap();
    machine.put(&format!("{folder}/hosts.toml"), &format!("{mark}\nserver = \"https://elsewhere.example\"\n"));
    fs::remove_file(machine.root().join(ca)).unwrap();
    let answer = machine.trust(&["--containerd", "--install", "--yes"]);
    assert!(answer.out.contains(&format!("remove     /{folder}/hosts.toml")), "{}", answer.out);
    assert_eq!(machine.files(), installed);
}

#[test]
fn what_others_made_is_refused_and_stays_and_the_rest_is_done() {
    for foreign in ["ca.crt", "client.cert", "hosts.toml"] {
        let machine = Machine::new();
        machine.put(&format!("{DOCKER}/{foreign}"), "by hand");
        let answer = machine.trust(&["--docker", "--podman", "--install", "--yes"]);
        assert_eq!(answer.code, Some(1), "{foreign}");
        assert!(answer.out.contains(&format!("refuse     /{DOCKER}/ca.crt: it")), "{foreign}: {}", answer.out);
        let files = machine.files();
        assert_eq!(files[&format!("{DOCKER}/{foreign}")], "by hand");
        assert_eq!(files.len(), 2, "podman's was written: {:?}", files.keys());
        machine.trust(&["--uninstall", "--yes"]);
        assert_eq!(machine.files().len(), 1);
    }
}

#[test]
fn what_somebody_added_to_our_folder_stays_there() {
    let machine = Machine::new();
    machine.trust(&["--docker", "--install", "--yes"]);
    machine.put(&format!("{DOCKER}/client.cert"), "by hand");
    assert_eq!(machine.trust(&["--docker", "--install", "--yes"]).code, Some(0));
    machine.trust(&["--uninstall", "--yes"]);
    assert_eq!(machine.files().into_keys().collect::<Vec<_>>(), [format!("{DOCKER}/client.cert")]);
}

#[test]
fn the_same_trust_by_hand_is_enough() {
    let machine = Machine::new();
    let authority = Bundle::read(&fs::read_to_string(machine.authority()).unwrap()).render();
    machine.put(&format!("{DOCKER}/ca.crt"), &format!("subject=team-a CA\n{authority}"));
    let before = machine.files();
    let answer = machine.trust(&["--docker", "--install"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    assert!(answer.out.contains("somebody else's, and says the same"), "{}", answer.out);
    assert_eq!(machine.files(), before);
}

#[test]
fn a_host_belongs_to_the_registry_that_came_first() {
    let machine = Machine::new();
    machine.trust(&["--docker", "--install", "--yes", "--namespace", "first"]);
    let before = machine.files();
    let answer = machine.trust(&["--docker", "--install", "--yes", "--namespace", "second"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.out.contains("kubectl registry trust team-a --namespace first --uninstall"), "{}", answer.out);
    let answer = machine.trust(&["--uninstall", "--yes", "--namespace", "second"]);
    assert!(answer.out.contains("there is something for first/team-a: give its namespace"), "{}", answer.out);
    assert_eq!(machine.files(), before);
    machine.trust(&["--uninstall", "--yes", "--namespace", "first"]);
    assert_eq!(machine.files(), BTreeMap::new());
}

#[test]
fn one_host_of_several_can_be_taken_back() {
    let machine = Machine::new();
    let other = "[2001:db8::1]:5000";
    machine.trust(&["--docker", "--install", "--yes", "--address", HOST, "--address", other]);
    assert_eq!(machine.files().len(), 2);
    machine.trust(&["--uninstall", "--yes", "--address", HOST]);
    assert_eq!(machine.files().into_keys().collect::<Vec<_>>(), [format!("etc/docker/certs.d/{other}/ca.crt")]);
}

#[test]
fn no_link_leads_out_of_another_root() {
    let machine = Machine::new();
    let outside = machine.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(machine.root().join("etc")).unwrap();
    symlink(&outside, machine.root().join("etc/docker")).unwrap();
    let answer = machine.trust(&["--docker", "--install", "--yes"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("is a link, which could lead out of "), "{}", answer.err);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn what_is_installed_on_the_machine_is_served_and_nothing_else() {
    let machine = Machine::new();
    let answer = machine.trust(&[]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("neither Docker nor containerd nor podman was found"), "{}", answer.err);
    machine.put("usr/bin/podman", "");
    machine.put(
        "etc/containerd/config.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/cri/hosts'\n",
    );
    let out = machine.trust(&[]).out;
    let written: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("write      ")).collect();
    assert_eq!(
        written,
        ["/etc/cri/hosts", "/etc/containers/certs.d"].map(|folder| format!("{folder}/{HOST}/ca.crt")),
        "{out}"
    );
    assert!(!out.contains("note: "), "{out}");
}

#[test]
fn who_cannot_be_served_as_written_is_told_so() {
    let machine = Machine::new();
    let out = machine.trust(&["--containerd"]).out;
    assert!(out.contains("note: containerd before 2.2 reads neither folder"), "{out}");
    machine.put("etc/containerd/certs.d/registry.example.com_5000_/hosts.toml", "");
    let out = machine.trust(&["--containerd"]).out;
    assert!(out.contains("registry.example.com_5000_ exists, and containerd reads that one instead"), "{out}");
    let answer = machine.trust(&["--system"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("install the package ca-certificates"), "{}", answer.err);
}

#[test]
fn the_systems_own_store_gets_a_file_of_its_own() {
    let machine = Machine::new();
    for (command, folder) in [
        ("usr/sbin/update-ca-certificates", "usr/local/share/ca-certificates"),
        ("usr/bin/update-ca-trust", "etc/pki/ca-trust/source/anchors"),
    ] {
        machine.put(command, "");
        let out = machine.trust(&["--system", "--namespace", "registries"]).out;
        assert!(out.contains(&format!("write      /{folder}/private-registry.registries.team-a.")), "{out}");
        fs::remove_file(machine.root().join(command)).unwrap();
    }
}

#[test]
fn what_is_no_authority_is_trusted_by_nobody() {
    let machine = Machine::new();
    let key_alone = fs::read_to_string(machine.authority()).unwrap();
    let key_alone = key_alone.split("-----BEGIN CERTIFICATE").next().unwrap().to_owned();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src/pki/testdata");
    let leaf = fs::read_to_string(folder.join("rsa-leaf.crt")).unwrap();
    for (text, words) in
        [(key_alone.as_str(), "holds no certificate"), ("", "holds no certificate"), (leaf.as_str(), "no authority")]
    {
        fs::write(machine.authority(), text).unwrap();
        let answer = machine.trust(&["--docker", "--install", "--yes"]);
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""));
        assert!(answer.err.contains(words) && !answer.err.contains("PRIVATE"), "{}", answer.err);
    }
    assert_eq!(machine.files(), BTreeMap::new());
}

#[test]
fn every_platform_gets_its_own_form_with_the_host_and_the_authority_and_no_key() {
    let machine = Machine::new();
    let authority = Bundle::read(&fs::read_to_string(machine.authority()).unwrap());
    let print = |form: &str| {
        let answer = machine.trust(&["--namespace", "registries", "--print", form]);
        assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""), "{form}");
        assert!(
            answer.out.contains("registry.example.com") && !answer.out.contains("PRIVATE"),
            "{form}: {}",
            answer.out
        );
        answer.out
    };
    let documents = |text: &str| serde_saphyr::from_multiple::<Value>(text).unwrap();
    let is_authority = |text: &Value| assert_eq!(Bundle::read(text.as_str().unwrap()), authority);

    let [talos] = &documents(&print("talos"))[..] else { panic!("one document for one host") };
    assert_eq!((&talos["kind"], &talos["name"]), (&"RegistryTLSConfig".into(), &HOST.into()));
    is_authority(&talos["ca"]);

    let openshift = &documents(&print("openshift"))[0];
    assert_eq!(openshift["metadata"]["namespace"], "openshift-config");
    is_authority(&openshift["data"]["registry.example.com..5000"]);

    let cloud = &documents(&print("cloud-init"))[0];
    let files = cloud["write_files"].as_array().unwrap();
    assert_eq!(files[0]["path"], format!("/etc/containerd/certs.d/{HOST}/ca.crt"));
    is_authority(&files[0]["content"]);

    for (form, folder) in [("k3s", "/etc/rancher/k3s"), ("rke2", "/etc/rancher/rke2")] {
        let text = print(form);
        let (first, second) = text.split_once("# 2.").unwrap();
        assert_eq!(Bundle::read(first), authority);
        let yaml = &documents(&format!("# {second}"))[0];
        let file = format!("{folder}/private-registry.registries.team-a.crt");
        assert_eq!(yaml["configs"][HOST]["tls"]["ca_file"], file);
        assert!(first.contains(&file));
    }

    let gke = &documents(&print("gke"))[0]["privateRegistryAccessConfig"];
    let domains = &gke["certificateAuthorityDomainConfig"][0];
    assert_eq!((&gke["enabled"], &domains["fqdns"][0]), (&true.into(), &HOST.into()));

    for form in ["files", "macos", "windows"] {
        assert!(print(form).contains(&authority.render()), "{form}");
    }
}
