//! Free TCP ports on 127.0.0.1. Only from below the range that the kernel gives to clients: a client that keeps calling a stopped server
//! there would sooner or later be given the server's own port, and be connected with itself.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};

use crate::sandbox::Sandbox;

/// Between the ports that services like to have and those of NodePorts (30000 and up) and clients (32768 and up).
const RANGE: Range<u16> = 11_000..29_000;

const ATTEMPTS: u32 = 4;

/// Ports of one control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) etcd: u16,
    pub(super) etcd_peer: u16,
    pub(super) apiserver: u16,
}

/// A network of its own has nothing else in it.
const IN_A_NODE: Ports = Ports { etcd: 2379, etcd_peer: 2380, apiserver: 6443 };

/// Starts something, again with other ports when somebody else has taken one of them meanwhile.
pub(super) async fn on_free_ports<T>(sandbox: &Sandbox, start: impl AsyncFn(Ports) -> Result<T>) -> Result<T> {
    if sandbox.holder().is_some() {
        return start(IN_A_NODE).await;
    }
    let mut attempt = 1;
    loop {
        let [etcd, etcd_peer, apiserver] = free()?;
        match start(Ports { etcd, etcd_peer, apiserver }).await {
            Err(error) if attempt < ATTEMPTS && format!("{error:#}").contains("address already in use") => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// Ports that nobody listens on now, different for every call of this process.
pub(super) fn free<const N: usize>() -> Result<[u16; N]> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let size = u32::from(RANGE.end - RANGE.start);
    // Neighbouring process ids begin far from each other.
    let start = std::process::id().wrapping_mul(7919) % size;
    let mut found = [0; N];
    for port in &mut found {
        let mut candidates = (0..size).map(|_| {
            let offset = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % size;
            RANGE.start + u16::try_from(offset).unwrap_or_default()
        });
        let is_free = |candidate: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *candidate)).is_ok();
        *port = candidates.find(is_free).context("no free TCP port on 127.0.0.1")?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_outside_the_range_of_clients() {
        let ports = [free::<3>().unwrap(), free::<3>().unwrap()].concat();
        let different: std::collections::BTreeSet<_> = ports.iter().collect();
        assert_eq!(different.len(), 6);
        assert!(ports.iter().all(|port| RANGE.contains(port)), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_not_given() {
        let [port] = free().unwrap();
        let _held: Vec<_> = (port + 1..port + 4).map(|next| TcpListener::bind((Ipv4Addr::LOCALHOST, next))).collect();
        assert!(!(port + 1..port + 4).contains(&free::<1>().unwrap()[0]));
    }
}
