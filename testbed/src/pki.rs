//! The certificates of one cluster: an authority of its own, a certificate for each program, the key that signs service accounts' tokens.
//! Made anew for every instance and gone with it; nothing here is meant to be kept or to be strong.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// The ClusterIP of the API server: the first of the Services' addresses.
pub const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The name of a node's `Node` object, which its certificates carry.
pub const NODE_NAME: &str = "node1";

/// An authority and the files that it signed, in one folder.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key, PKCS#8.
    pub key: PathBuf,
}

/// A certificate and its key, as PEM. No `Debug`: the key must not be printed.
#[derive(Clone)]
pub struct Signed {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// Who shows a certificate: user name and groups.
struct Subject<'a> {
    name: &'a str,
    group: Option<&'a str>,
}

/// File name, subject, whether it serves.
const LEAVES: [(&str, Subject<'static>, bool); 9] = [
    ("apiserver", Subject { name: "kube-apiserver", group: None }, true),
    ("kubelet-server", Subject { name: "system:node:node1", group: Some("system:nodes") }, true),
    ("admin", Subject { name: "admin", group: Some("system:masters") }, false),
    ("controller-manager", Subject { name: "system:kube-controller-manager", group: None }, false),
    ("scheduler", Subject { name: "system:kube-scheduler", group: None }, false),
    ("node", Subject { name: "system:node:node1", group: Some("system:nodes") }, false),
    ("proxy", Subject { name: "system:kube-proxy", group: None }, false),
    ("apiserver-kubelet", Subject { name: "apiserver-kubelet", group: Some("system:masters") }, false),
    ("front-proxy", Subject { name: "front-proxy", group: None }, false),
];

impl Pki {
    /// Makes everything, in `folder`. Serving certificates are good for 127.0.0.1, the node's address and the API server's names.
    pub fn create(folder: &Path, node_address: Option<Ipv4Addr>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "testbed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        let key = KeyPair::generate().context("make the authority's key")?;
        let certificate = params.self_signed(&key).context("sign the authority")?;
        write(folder, "ca.crt", &certificate.pem())?;
        write(folder, "ca.key", &key.serialize_pem())?;
        let pki = Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) };

        for (file, subject, serves) in LEAVES {
            let names = if serves { serving_names(node_address) } else { Vec::new() };
            let signed = pki.sign(subject.name, subject.group, names)?;
            write(folder, &format!("{file}.crt"), &signed.certificate)?;
            write(folder, &format!("{file}.key"), &signed.key)?;
        }
        let tokens = KeyPair::generate().context("make the key for tokens")?;
        write(folder, "sa.key", &tokens.serialize_pem())?;
        write(folder, "sa.pub", &tokens.public_key_pem())?;
        Ok(pki)
    }

    /// A certificate for a user of the cluster, by which the API server knows this name and this group (besides
    /// `system:authenticated`).
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<Signed> {
        self.sign(name, group, Vec::new())
    }

    /// The files of one of the programs: `apiserver`, `kubelet-server`, `admin`, `controller-manager`, `scheduler`, `node`, `proxy`,
    /// `apiserver-kubelet`, `front-proxy`; `ca` is the authority itself.
    pub fn pair(&self, name: &str) -> Pair {
        Pair { certificate: self.file(&format!("{name}.crt")), key: self.file(&format!("{name}.key")) }
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// The content of a pair's files.
    pub fn read(&self, name: &str) -> Result<Signed> {
        let pair = self.pair(name);
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        Ok(Signed { certificate: read(&pair.certificate)?, key: read(&pair.key)? })
    }

    /// A file of the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn sign(&self, name: &str, group: Option<&str>, names: Vec<SanType>) -> Result<Signed> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names;
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2099, 1, 1));
        let key = KeyPair::generate().with_context(|| format!("make a key for {name}"))?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("sign {name}"))?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn serving_names(node_address: Option<Ipv4Addr>) -> Vec<SanType> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let names = names.into_iter().chain([NODE_NAME]).filter_map(|name| Some(SanType::DnsName(name.try_into().ok()?)));
    let addresses = [Ipv4Addr::LOCALHOST, API_SERVICE_ADDRESS].into_iter().chain(node_address);
    names.chain(addresses.map(|address| SanType::IpAddress(IpAddr::V4(address)))).collect()
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let path = folder.join(name);
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("write {}", path.display()))
}
