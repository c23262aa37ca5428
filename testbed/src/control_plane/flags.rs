//! The command lines of the control plane's programs. Pure.

use std::{net::Ipv4Addr, path::Path};

use crate::{
    pki::Pki,
    sandbox::{SERVICE_CIDR, SERVICE_CIDR6},
};

/// Of all programs: memory is there, processors are what tests wait for, so garbage is collected half as often.
pub(super) const ENVIRONMENT: [(&str, &str); 1] = [("GOGC", "200")];

/// The data is thrown away with the instance, so it need not survive a power cut.
pub(super) fn etcd(dir: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (local("http", port), local("http", peer_port));
    flags([
        ("unsafe-no-fsync", "true"),
        ("data-dir", &text(&dir.join("etcd"))),
        ("listen-client-urls", &client),
        ("advertise-client-urls", &client),
        ("listen-peer-urls", &peer),
        ("initial-advertise-peer-urls", &peer),
        ("initial-cluster", &format!("default={peer}")),
        ("log-level", "warn"),
    ])
}

/// `node_address`: the API server is reached by pods at that address; without one it listens on 127.0.0.1 only.
pub(super) fn apiserver(pki: &Pki, etcd: u16, port: u16, node_address: Option<Ipv4Addr>) -> Vec<String> {
    let (serving, kubelet, front_proxy) =
        (pki.pair("apiserver"), pki.pair("apiserver-kubelet"), pki.pair("front-proxy"));
    let ca = text(&pki.ca());
    let bind = if node_address.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    // Endpoints can't hold a loopback address; this one is reserved for documentation and nobody calls it.
    let advertise = node_address.unwrap_or(Ipv4Addr::new(198, 51, 100, 254));
    flags([
        ("etcd-servers", &local("http", etcd)),
        ("bind-address", &bind.to_string()),
        ("secure-port", &port.to_string()),
        ("advertise-address", &advertise.to_string()),
        ("service-cluster-ip-range", SERVICE_CIDR),
        ("allow-privileged", "true"),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("client-ca-file", &ca),
        ("tls-cert-file", &text(&serving.certificate)),
        ("tls-private-key-file", &text(&serving.key)),
        ("kubelet-client-certificate", &text(&kubelet.certificate)),
        ("kubelet-client-key", &text(&kubelet.key)),
        ("kubelet-certificate-authority", &ca),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        ("service-account-key-file", &text(&pki.file("sa.pub"))),
        ("service-account-signing-key-file", &text(&pki.file("sa.key"))),
        ("requestheader-client-ca-file", &ca),
        ("requestheader-allowed-names", "front-proxy"),
        ("requestheader-username-headers", "X-Remote-User"),
        ("requestheader-group-headers", "X-Remote-Group"),
        ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        ("proxy-client-cert-file", &text(&front_proxy.certificate)),
        ("proxy-client-key-file", &text(&front_proxy.key)),
        ("profiling", "false"),
        ("shutdown-delay-duration", "0s"),
    ])
}

/// Services that ask for it get an address of each family. Of a flag that is given twice the last one counts.
pub(super) fn dual_stack() -> Vec<String> {
    flags([("service-cluster-ip-range", &format!("{SERVICE_CIDR},{SERVICE_CIDR6}"))])
}

/// Who read and wrote what, one line per request.
pub(super) fn audit(policy: &Path, log: &Path) -> Vec<String> {
    flags([
        ("audit-policy-file", &text(policy)),
        ("audit-log-path", &text(log)),
        ("audit-log-mode", "blocking"),
        ("audit-log-maxsize", "100000"),
    ])
}

/// Without the high request rate the first service account comes five seconds later.
pub(super) fn controller_manager(pki: &Pki, kubeconfig: &Path) -> Vec<String> {
    let ca = pki.pair("ca");
    let mut all = component(kubeconfig);
    all.extend(flags([
        ("use-service-account-credentials", "true"),
        ("service-account-private-key-file", &text(&pki.file("sa.key"))),
        ("root-ca-file", &text(&ca.certificate)),
        ("cluster-signing-cert-file", &text(&ca.certificate)),
        ("cluster-signing-key-file", &text(&ca.key)),
        ("kube-api-qps", "1000"),
        ("kube-api-burst", "2000"),
    ]));
    all
}

pub(super) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    component(kubeconfig)
}

/// There is only one of each, and nobody asks them how they are: no leader election, no port.
fn component(kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = text(kubeconfig);
    flags([("kubeconfig", &kubeconfig), ("leader-elect", "false"), ("secure-port", "0")])
}

/// A URL on this machine.
pub(super) fn local(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn flags<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}
