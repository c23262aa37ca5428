//! A cluster that somebody names by a kubeconfig, instead of one that is started here. Says what such a cluster must have; what is done with it
//! is decided elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use testbed::Family;

/// What is built for it: clients, and a program to put into an image. Nothing that a cluster is made of.
pub(crate) const FAMILIES: &[Family] = &[Family::Pause, Family::Crane];

/// Where it is, and values for the operator's chart there, as Helm takes them.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    /// Absolute.
    pub(crate) kubeconfig: PathBuf,
    pub(crate) set: Vec<String>,
}

impl Given {
    /// Fails when nobody says where the cluster gets the operator's image.
    pub(crate) fn new(kubeconfig: &Path, set: &[String]) -> Result<Self> {
        if !set.iter().any(|value| value.starts_with("image.repository=")) {
            bail!(
                "the nodes of the cluster of {} must be able to pull the operator's image. Make it with `cargo xtask image`, push it where they pull from, \
                 and name it: --set image.repository=registry.example.com/private-registry-operator. (A cluster that is started here needs none of this: \
                 it is used without --kubeconfig, and for the demo without KUBECONFIG.)",
                kubeconfig.display()
            );
        }
        let kubeconfig = std::path::absolute(kubeconfig).context("find the kubeconfig")?;
        Ok(Self { kubeconfig, set: set.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_must_be_said_where_the_nodes_get_the_operators_image() {
        let given = |set: &[&str]| {
            let set: Vec<_> = set.iter().map(ToString::to_string).collect();
            Given::new(Path::new("some/kubeconfig"), &set)
        };
        let words = given(&["registry.image=x", "image.tag=1"]).unwrap_err().to_string();
        for expected in ["some/kubeconfig", "cargo xtask image", "--set image.repository="] {
            assert!(words.contains(expected), "{words}");
        }
        let given = given(&["image.repository=registry.example.com/operator"]).unwrap();
        assert!(given.kubeconfig.is_absolute(), "programs run in other folders");
    }
}
