//! The images that the testbed runs: what is in them, and nothing about how they are stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Image, Layer};

/// The name of the image that holds a pod's namespaces open.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// The name of the image that every private registry runs unless told otherwise.
pub const REGISTRY: &str = "docker.io/library/registry:3.1.2";

/// The name of the image that is nginx.
pub const FRONTEND: &str = "docker.io/nginxinc/nginx-unprivileged:1.22.1";

const NON_ROOT: &str = "65532:65532";
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";

/// The pause image, from the static program of `tools/pause`.
pub fn pause(program: &Path) -> Image {
    Image {
        reference: PAUSE.into(),
        layers: vec![Layer::new().file_from("pause", 0o755, program)],
        entrypoint: vec!["/pause".into()],
        user: "65535:65535".into(),
        ..Image::default()
    }
}

/// CNCF Distribution, from its static program, with the paths, the default configuration and the user (root) of the published image.
/// That image's entrypoint is a shell script; this one has no shell, so it starts the program itself.
pub fn registry(program: &Path) -> Image {
    let configuration = "version: 0.1\nlog: {fields: {service: registry}}\nstorage: {cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: /var/lib/registry}}\n\
                         http: {addr: \":5000\", headers: {X-Content-Type-Options: [nosniff]}}\nhealth: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}\n";
    Image {
        reference: REGISTRY.into(),
        layers: vec![
            system().directory_owned_by("var/lib/registry", 0o755, 0).file(
                "etc/distribution/config.yml",
                0o644,
                configuration,
            ),
            Layer::new().file_from("bin/registry", 0o755, program),
        ],
        entrypoint: vec!["registry".into()],
        cmd: vec!["serve".into(), "/etc/distribution/config.yml".into()],
        env: BTreeMap::from([("PATH".into(), "/bin".into()), ("OTEL_TRACES_EXPORTER".into(), "none".into())]),
        exposed_ports: vec![5000],
        ..Image::default()
    }
}

/// nginx for another user than root, from a dynamically linked program, ended as the published image is. It has no configuration: pods bring one.
pub fn nginx(program: &Path) -> Result<Image> {
    Ok(Image {
        reference: FRONTEND.into(),
        layers: vec![with_libraries_of(program)?, Layer::new().file_from("usr/sbin/nginx", 0o755, program)],
        entrypoint: vec!["nginx".into()],
        user: NON_ROOT.into(),
        env: BTreeMap::from([("PATH".into(), "/usr/sbin".into())]),
        stop_signal: "SIGQUIT".into(),
        ..Image::default()
    })
}

/// The operator's image: its program, linked against this machine's C library, with that library in a layer below it. No shell, not root. However the
/// program's file is called here: probes call it by its name there.
pub fn operator(program: &Path, reference: &str) -> Result<Image> {
    let file = "usr/local/bin/private-registry-operator";
    Ok(Image {
        reference: reference.into(),
        layers: vec![with_libraries_of(program)?, Layer::new().file_from(file, 0o755, program)],
        entrypoint: vec![format!("/{file}")],
        user: NON_ROOT.into(),
        env: BTreeMap::from([("PATH".into(), "/usr/local/bin".into())]),
        ..Image::default()
    })
}

/// An image to push and pull: three layers, one of them of 4 MiB, and a program that waits until it is told to end. `content` tells such images apart:
/// another text gives another digest.
pub fn test_client(program: &Path, reference: &str, content: &str) -> Image {
    let filler: Vec<u8> = (0..4_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Image {
        reference: reference.into(),
        layers: vec![
            system(),
            Layer::new().file("usr/share/filler", 0o644, filler),
            Layer::new().file_from("wait", 0o755, program).file("content", 0o644, content),
        ],
        entrypoint: vec!["/wait".into()],
        user: NON_ROOT.into(),
        labels: BTreeMap::from([("org.opencontainers.image.title".into(), "test client".into())]),
        ..Image::default()
    }
}

/// The libraries that a program of this machine loads, in their places.
fn with_libraries_of(program: &Path) -> Result<Layer> {
    let base = system().file("etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    shared_libraries(program)?.iter().try_fold(base, |layer, library| {
        Ok(layer.file_from(library.to_str().context("a library's path is not text")?, 0o755, library))
    })
}

fn system() -> Layer {
    Layer::new().file("etc/passwd", 0o644, PASSWD).file("etc/group", 0o644, GROUP).directory_owned_by("tmp", 0o1777, 0)
}

/// The ELF interpreter and every shared library that a program loads, as this machine's dynamic linker resolves them. Empty for a static program.
fn shared_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output =
        Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("run ldd (Debian package libc-bin)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if text.contains("statically linked") || complaint.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    if !output.status.success() {
        bail!("ldd {}: {}", program.display(), complaint.trim());
    }
    parse_ldd(&text).with_context(|| format!("ldd {}", program.display()))
}

/// Lines are `NAME => /path (0x…)`, `/path (0x…)` for the interpreter, or `linux-vdso.so.1 (0x…)`, which the kernel provides.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let location = line.split_once(" => ").map_or(line, |(_, location)| location);
        if location.starts_with("not found") {
            bail!("{line}");
        }
        let path = location.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            libraries.push(PathBuf::from(path));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_the_interpreter_and_the_libraries_but_not_the_kernels_page() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        assert_eq!(
            parse_ldd(text).unwrap(),
            ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert!(parse_ldd("\tlibssl.so.3 => not found\n").is_err());
    }

    #[test]
    fn a_dynamic_program_brings_its_libraries_and_runs_without_the_rest_of_the_machine() {
        let this = std::env::current_exe().unwrap();
        let libraries = shared_libraries(&this).unwrap();
        assert!(libraries.iter().any(|path| path.ends_with("libc.so.6")), "{libraries:?}");
        let image = operator(&this, "operator.example/operator:1").unwrap();
        assert_eq!(image.user, "65532:65532");
        assert_eq!(image.layers.len(), 2, "the libraries change less often than the program");
    }

    #[test]
    fn test_clients_differ_by_their_content_alone() {
        let program = std::env::current_exe().unwrap();
        let digest = |content| test_client(&program, "team/app:1", content).build().unwrap().digest().to_owned();
        assert_eq!(digest("a"), digest("a"));
        assert_ne!(digest("a"), digest("b"));
    }
}
