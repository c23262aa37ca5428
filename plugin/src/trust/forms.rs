//! The same trust in the words of platforms that write their nodes' files themselves. Texts for a person, or for `kubectl apply` and its
//! like; nothing is written.

use std::fmt::Write as _;

use clap::ValueEnum;
use private_registry_operator::node::trust_files::File;

use super::subject::{Name, Subject};

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// The files, with where each belongs
    Files,
    /// User data of a machine that is yet to start
    CloudInit,
    /// Machine configuration of Talos Linux
    Talos,
    /// registries.yaml of k3s
    K3s,
    /// registries.yaml of RKE2
    Rke2,
    /// Runtime configuration of GKE's nodes
    Gke,
    /// A ConfigMap for OpenShift's image configuration
    Openshift,
    /// What to do on a Mac
    Macos,
    /// What to do on Windows
    Windows,
}

impl Form {
    /// The text. `files` are those of the runtimes that were asked for.
    pub(super) fn text(self, subject: &Subject, files: &[File]) -> String {
        match self {
            Self::Files => {
                files.iter().map(|file| format!("==> {} <==\n{}\n", file.path.display(), file.text)).collect()
            }
            Self::CloudInit => cloud_init(files),
            Self::Talos => talos(subject),
            Self::K3s => rancher(subject, "k3s", "k3s, on agents k3s-agent"),
            Self::Rke2 => rancher(subject, "rke2", "rke2-server, on agents rke2-agent"),
            Self::Gke => gke(subject),
            Self::Openshift => openshift(subject),
            Self::Macos => macos(subject),
            Self::Windows => windows(subject),
        }
    }
}

/// <https://docs.cloud-init.io/en/latest/reference/modules.html#write-files>
fn cloud_init(files: &[File]) -> String {
    let mut text = "#cloud-config\nwrite_files:\n".to_owned();
    for file in files {
        let path = file.path.display();
        let _ =
            write!(text, "  - path: \"{path}\"\n    permissions: \"0644\"\n    content: |\n{}", block(&file.text, 6));
    }
    text
}

/// <https://docs.siderolabs.com/talos/v1.12/reference/configuration/cri/registrytlsconfig>
fn talos(subject: &Subject) -> String {
    let mut text = "# Talos 1.12 or newer: talosctl patch machineconfig --nodes NODE --patch @FILE\n\
                    # Before: the same under machine.registries.config and machine.registries.mirrors, with the authority in base64.\n"
        .to_owned();
    let authority = block(&subject.authorities.render(), 4);
    for Name { host, .. } in plain(subject) {
        let _ =
            write!(text, "---\napiVersion: v1alpha1\nkind: RegistryTLSConfig\nname: \"{host}\"\nca: |\n{authority}");
    }
    for Name { host, endpoint } in mapped(subject) {
        let _ = write!(
            text,
            "---\napiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"{host}\"\nendpoints:\n  - url: \"https://{endpoint}\"\n"
        );
    }
    text
}

/// <https://docs.k3s.io/installation/private-registry>, <https://docs.rke2.io/install/private_registry>
fn rancher(subject: &Subject, product: &str, service: &str) -> String {
    let folder = format!("/etc/rancher/{product}");
    let file = format!("{folder}/{}.crt", subject.owner.file_stem());
    let mut text = format!(
        "# 1. On every node, {file}:\n{}\n# 2. On every node, {folder}/registries.yaml; add it to what is there:\nmirrors:\n",
        subject.authorities.render()
    );
    // Some releases heed an authority for hosts with an endpoint only (https://github.com/k3s-io/k3s/issues/9839).
    for Name { host, endpoint } in &subject.names {
        let _ = write!(text, "  \"{host}\":\n    endpoint:\n      - \"https://{endpoint}\"\n");
    }
    text.push_str("configs:\n");
    for Name { host, .. } in plain(subject) {
        let _ = write!(text, "  \"{host}\":\n    tls:\n      ca_file: \"{file}\"\n");
    }
    let _ = write!(text, "\n# 3. Restart the service ({service}): the file is read when it starts.\n");
    text
}

/// <https://cloud.google.com/kubernetes-engine/docs/how-to/access-private-registries-private-certificates>
fn gke(subject: &Subject) -> String {
    let secret = subject.owner.file_stem().replace('.', "-");
    let mut text = format!(
        "# 1. The authority, as ca.crt, into Secret Manager:\n#      gcloud secrets create {secret} --data-file=ca.crt\n\
         #    The nodes' service account needs roles/secretmanager.secretAccessor.\n\
         # 2. This file, with the number of your project:\n\
         #      gcloud container node-pools update POOL --cluster=CLUSTER --containerd-config-from-file=FILE\n\
         #    GKE makes the nodes anew.\n\
         privateRegistryAccessConfig:\n  enabled: true\n  certificateAuthorityDomainConfig:\n    - gcpSecretManagerCertificateConfig:\n        \
         secretURI: \"projects/PROJECT_NUMBER/secrets/{secret}/versions/1\"\n      fqdns:\n"
    );
    for Name { host, .. } in plain(subject) {
        let _ = writeln!(text, "        - \"{host}\"");
    }
    text
}

/// <https://docs.redhat.com/en/documentation/openshift_container_platform/4.20/html/images/image-configuration>
fn openshift(subject: &Subject) -> String {
    let stem = subject.owner.file_stem();
    let mut text = format!(
        "# oc apply -f FILE\n\
         # oc patch image.config.openshift.io/cluster --type merge --patch '{{\"spec\": {{\"additionalTrustedCA\": {{\"name\": \"{stem}\"}}}}}}'\n\
         # OpenShift takes one such ConfigMap: if additionalTrustedCA names one already, add these keys to that one instead.\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {stem}\n  namespace: openshift-config\ndata:\n"
    );
    let authority = block(&subject.authorities.render(), 4);
    // Builds run in pods, which resolve names of Services.
    for Name { host, .. } in &subject.names {
        if host.as_str().contains('[') {
            let _ = writeln!(text, "  # {host} cannot be a key; use a name for it");
        } else {
            let _ = write!(text, "  {}: |\n{authority}", host.as_str().replace(':', ".."));
        }
    }
    text
}

/// <https://docs.docker.com/desktop/troubleshoot-and-support/faqs/macfaqs/>
fn macos(subject: &Subject) -> String {
    let mut text =
        "Save what stands at the end as ca.crt. Then, for what you use:\n\nDocker Desktop; start it anew afterwards\n"
            .to_owned();
    for Name { host, .. } in plain(subject) {
        let folder = format!("~/.docker/certs.d/'{host}'");
        let _ = writeln!(text, "  mkdir -p {folder} && cp ca.crt {folder}/");
    }
    text.push_str("\npodman machine\n");
    for Name { host, .. } in plain(subject) {
        let folder = format!("'/etc/containers/certs.d/{host}'");
        let _ = writeln!(text, "  podman machine ssh \"sudo mkdir -p {folder} && sudo tee {folder}/ca.crt\" < ca.crt");
    }
    let _ = write!(
        text,
        "\nEvery program, for every host that the authority signs\n  \
         sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.crt\n\n{}",
        subject.authorities.render()
    );
    text
}

/// <https://docs.docker.com/desktop/troubleshoot-and-support/faqs/windowsfaqs/>
fn windows(subject: &Subject) -> String {
    let hosts: Vec<_> = plain(subject).map(|name| name.host.as_str()).collect();
    format!(
        "Save what stands at the end as ca.crt. Then, for what you use:\n\n\
         Docker Desktop, and every program, for every host that the authority signs; start Docker Desktop anew afterwards\n  \
         certutil -user -addstore Root ca.crt\n\n\
         Docker or podman inside WSL: there, in Linux, run kubectl registry trust --install.\n\n\
         The registry's hosts: {}\n\n{}",
        hosts.join(", "),
        subject.authorities.render()
    )
}

/// Names that lead to themselves.
fn plain(subject: &Subject) -> impl Iterator<Item = &Name> {
    subject.names.iter().filter(|name| name.is_plain())
}

/// Names of Services.
fn mapped(subject: &Subject) -> impl Iterator<Item = &Name> {
    subject.names.iter().filter(|name| !name.is_plain())
}

/// Lines of a block in YAML.
fn block(text: &str, indent: usize) -> String {
    let indent = " ".repeat(indent);
    text.lines().map(|line| format!("{indent}{line}").trim_end().to_owned() + "\n").collect()
}
