//! The network and the mounts that all processes of one node share, and that nobody else sees. They exist as long as one process,
//! the holder, lives in them: nothing is bound into the file system, so killing the instance's processes removes them too.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Place, Process, Sandbox};

/// The addresses that Services get in every cluster of the testbed.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";

/// Their second addresses in a dual-stack cluster.
pub const SERVICE_CIDR6: &str = "fd00:10:96::/112";

const HOLDER: &str = include_str!("holder.sh");

/// What processes enter to be inside the node.
#[derive(Debug, Clone)]
pub(super) struct Namespaces {
    holder: u32,
}

impl Namespaces {
    /// Makes them and waits until they are furnished.
    pub(super) fn create(sandbox: &Sandbox, address: Ipv4Addr, address6: Ipv6Addr) -> Result<Self> {
        let ready = sandbox.dir().join("namespaces-ready");
        let mut command = sandbox.command(Place::Host, "unshare");
        command.args(["--net", "--mount", "--propagation", "slave", "sh", "-c", HOLDER, "holder"]);
        command.arg(address.to_string()).arg(SERVICE_CIDR);
        command.arg(address6.to_string()).arg(SERVICE_CIDR6).arg(&ready);
        let holder = sandbox.start("holder", command)?;
        wait_for(&holder, &ready)?;
        Ok(Self { holder: holder.pid() })
    }

    pub(super) fn holder(&self) -> u32 {
        self.holder
    }

    /// The network namespace, as a file to enter it by.
    pub(super) fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder).into()
    }
}

fn wait_for(holder: &Process, ready: &std::path::Path) -> Result<()> {
    for _ in 0..2000 {
        if ready.exists() {
            return fs::remove_file(ready).context("remove the ready mark");
        }
        holder.check().context("make the node's namespaces")?;
        thread::sleep(Duration::from_millis(2));
    }
    bail!("the node's namespaces were not ready after 4 s:\n{}", holder.last_words(15))
}
