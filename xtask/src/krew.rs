//! `cargo xtask krew`: the manifest by which Krew installs `kubectl registry`, made of a template and of archives that are built. What Krew and its index would
//! refuse is refused here.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::workspace::{self, Workspace};

/// The manifest without what changes; the file has the plugin's name.
const TEMPLATE: &str = "deploy/krew/private-registry.yaml";
/// The program in each archive.
const PROGRAM: &str = "kubectl-registry";
/// Krew's index takes no archive without it.
const LICENSE: &str = "LICENSE";
/// As Go and Krew name them.
const SYSTEMS: [&str; 2] = ["linux", "darwin"];
const PROCESSORS: [&str; 2] = ["amd64", "arm64"];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Archives called …-OS-ARCHITECTURE.tar.gz, such as kubectl-registry-linux-amd64.tar.gz, with kubectl-registry and LICENSE in them
    #[arg(value_name = "ARCHIVE", required = true)]
    archives: Vec<PathBuf>,
    /// Where the archives can be downloaded, without their names
    #[arg(long, value_name = "URL")]
    url: String,
    /// The project's page
    #[arg(long, value_name = "URL")]
    homepage: Option<String>,
    /// File for the manifest [default: target/krew/private-registry.yaml]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let platforms = arguments
        .archives
        .iter()
        .map(|archive| platform(archive, &arguments.url).with_context(|| archive.display().to_string()))
        .collect::<Result<Vec<_>>>()?;
    let manifest = manifest(platforms, arguments.homepage.as_deref())?;
    let output = match &arguments.output {
        Some(file) => file.clone(),
        None => Workspace::read()?.target().join("krew/private-registry.yaml"),
    };
    let name = output.file_stem().unwrap_or_default().to_string_lossy();
    let faults = faults(&manifest, &name);
    ensure!(faults.is_empty(), "Krew would refuse the manifest: {}", faults.join("; "));
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_saphyr::to_string(&manifest).context("write YAML")?;
    fs::write(&output, text).with_context(|| format!("write {}", output.display()))?;
    println!("manifest   {}", output.display());
    println!("\nTry it before it is published, with the archive of this machine:\n");
    println!("    kubectl krew install --manifest={} --archive=ARCHIVE", output.display());
    Ok(())
}

/// The template, with this project's version and these platforms.
fn manifest(platforms: Vec<Value>, homepage: Option<&str>) -> Result<Value> {
    let template = fs::read_to_string(workspace::root().join(TEMPLATE)).with_context(|| format!("read {TEMPLATE}"))?;
    let mut manifest: Value = serde_saphyr::from_str(&template).with_context(|| format!("read {TEMPLATE}"))?;
    let spec = &mut manifest["spec"];
    spec["version"] = concat!("v", env!("CARGO_PKG_VERSION")).into();
    spec["platforms"] = platforms.into();
    if let Some(homepage) = homepage {
        spec["homepage"] = homepage.into();
    }
    Ok(manifest)
}

/// What Krew installs from an archive, which must hold what it says.
fn platform(archive: &Path, url: &str) -> Result<Value> {
    let name = archive.file_name().and_then(|name| name.to_str()).context("it has no name")?;
    let mut parts = name.strip_suffix(".tar.gz").unwrap_or_default().rsplitn(3, '-');
    let (processor, system) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ensure!(
        SYSTEMS.contains(&system) && PROCESSORS.contains(&processor),
        "its name must end with -OS-ARCHITECTURE.tar.gz, of {} and {}",
        SYSTEMS.join(", "),
        PROCESSORS.join(", ")
    );
    let bytes = fs::read(archive).context("read it")?;
    let mut tar = tar::Archive::new(GzDecoder::new(File::open(archive).context("read it")?));
    let mut missing = vec![PROGRAM, LICENSE];
    for entry in tar.entries().context("read it")? {
        let entry = entry.context("it is no tar.gz, or is damaged")?;
        let path = entry.path().context("read a name in it")?.into_owned();
        let is_program = path == Path::new(PROGRAM);
        if is_program && entry.header().mode().context("read a mode in it")? & 0o111 == 0 {
            bail!("{PROGRAM} in it cannot be run: its mode has no x");
        }
        missing.retain(|name| path != Path::new(name));
    }
    ensure!(missing.is_empty(), "{} is missing in it, at the top", missing.join(" and "));
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({
        "selector": {"matchLabels": {"os": system, "arch": processor}},
        "uri": format!("{}/{name}", url.trim_end_matches('/')),
        "sha256": digest,
        "bin": PROGRAM,
        "files": [{"from": PROGRAM, "to": "."}, {"from": LICENSE, "to": "."}],
    }))
}

/// What Krew itself refuses (internal/index/validation/validate.go there), and what its index does by the naming guide.
fn faults(manifest: &Value, file: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, words: &str| {
        if !holds {
            faults.push(words.to_owned());
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, spec) = (text(&manifest["metadata"]["name"]), &manifest["spec"]);
    must(manifest["apiVersion"] == "krew.googlecontainertools.github.com/v1alpha2", "apiVersion");
    must(manifest["kind"] == "Plugin", "kind");
    must(name == file, "the file must be called like the plugin");
    let is_word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    must(name.split('-').all(is_word), "a name has small letters, with - between words");
    must(name.contains('-') && !name.starts_with("kube"), "a name must be specific, and not begin with kube");
    let version = text(&spec["version"]);
    let numbers: Vec<_> = version.strip_prefix('v').unwrap_or_default().splitn(3, '.').collect();
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let is_version = match numbers[..] {
        [major, minor, patch] => {
            is_number(major) && is_number(minor) && is_number(patch.split(['-', '+']).next().unwrap_or_default())
        }
        _ => false,
    };
    must(is_version, "a version is v1.2.3");
    let short = text(&spec["shortDescription"]);
    must(!short.is_empty() && !short.contains(['\r', '\n']), "shortDescription must be one line");
    must(
        short.len() <= 50 && !short.ends_with('.'),
        "shortDescription must have at most 50 characters and no full stop",
    );
    must(!text(&spec["description"]).is_empty(), "description");
    let platforms = spec["platforms"].as_array().cloned().unwrap_or_default();
    must(!platforms.is_empty(), "a platform");
    let mut seen = Vec::new();
    for platform in &platforms {
        let digest = text(&platform["sha256"]);
        let is_digest = digest.len() == 64 && digest.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        must(is_digest, "sha256 has 64 hexadecimal digits");
        must(text(&platform["uri"]).starts_with("https://"), "uri must be https");
        must(!text(&platform["bin"]).is_empty(), "bin");
        let labels = &platform["selector"]["matchLabels"];
        must(labels["os"].is_string() && labels["arch"].is_string(), "selector must name os and arch");
        must(!seen.contains(&labels), "each platform once");
        seen.push(labels);
        let files = platform["files"].as_array().cloned().unwrap_or_default();
        let is_whole = |file: &Value| !text(&file["from"]).is_empty() && !text(&file["to"]).is_empty();
        must(!files.is_empty() && files.iter().all(is_whole), "files have from and to");
        must(files.iter().any(|file| file["from"] == LICENSE), "the licence must be among the files");
    }
    faults
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn archive(folder: &Path, name: &str, files: &[(&str, u32)]) -> PathBuf {
        let path = folder.join(name);
        let mut builder = tar::Builder::new(GzEncoder::new(File::create(&path).unwrap(), Compression::fast()));
        for (name, mode) in files {
            let mut head = tar::Header::new_gnu();
            head.set_size(4);
            head.set_mode(*mode);
            builder.append_data(&mut head, name, &b"text"[..]).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
        path
    }

    const WHOLE: [(&str, u32); 2] = [(PROGRAM, 0o755), (LICENSE, 0o644)];

    #[test]
    fn what_is_made_of_two_archives_is_what_krew_takes() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["kubectl-registry-linux-amd64.tar.gz", "kubectl-registry-darwin-arm64.tar.gz"];
        let url = "https://downloads.example.com/v0/";
        let platforms = names.map(|name| platform(&archive(folder.path(), name, &WHOLE), url).unwrap());
        assert_eq!(platforms[0]["uri"], "https://downloads.example.com/v0/kubectl-registry-linux-amd64.tar.gz");
        let manifest = manifest(platforms.to_vec(), Some("https://example.com")).unwrap();
        assert_eq!(faults(&manifest, "private-registry"), [""; 0]);
        assert_eq!(manifest["spec"]["version"], concat!("v", env!("CARGO_PKG_VERSION")));
        let again: Value = serde_saphyr::from_str(&serde_saphyr::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest, "YAML keeps it");
    }

    #[test]
    fn an_archive_that_would_not_install_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let good = "p-linux-amd64.tar.gz";
        for (name, files, words) in [
            ("p.tar.gz", &WHOLE[..], "its name must end with"),
            ("p-linux-amd64.zip", &WHOLE, "its name must end with"),
            ("p-plan9-amd64.tar.gz", &WHOLE, "its name must end with"),
            (good, &WHOLE[..1], "LICENSE is missing"),
            (
                good,
                &[("bin/kubectl-registry", 0o755), (LICENSE, 0o644)],
                "kubectl-registry is missing in it, at the top",
            ),
            (good, &[(PROGRAM, 0o644), (LICENSE, 0o644)], "cannot be run"),
        ] {
            let error = platform(&archive(folder.path(), name, files), "https://example.com").unwrap_err();
            assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        }
        let text = folder.path().join(good);
        fs::write(&text, "no archive").unwrap();
        assert!(platform(&text, "https://example.com").is_err());
    }

    #[test]
    fn each_rule_of_krew_refuses_what_breaks_it() {
        let folder = tempfile::tempdir().unwrap();
        let one = platform(&archive(folder.path(), "p-linux-amd64.tar.gz", &WHOLE), "https://example.com").unwrap();
        let good = manifest(vec![one.clone()], None).unwrap();
        for (pointer, value, words) in [
            ("/apiVersion", json!("v1"), "apiVersion"),
            ("/kind", json!("plugin"), "kind"),
            ("/metadata/name", json!("registry"), "must be specific"),
            ("/metadata/name", json!("Private-Registry"), "small letters"),
            ("/metadata/name", json!("private_registry"), "small letters"),
            ("/metadata/name", json!("kube-registry"), "not begin with kube"),
            ("/spec/version", json!("0.1.0"), "v1.2.3"),
            ("/spec/version", json!("v0.1"), "v1.2.3"),
            ("/spec/shortDescription", json!("a\nb"), "one line"),
            ("/spec/shortDescription", json!(""), "one line"),
            ("/spec/shortDescription", json!("x".repeat(51)), "50 characters"),
            ("/spec/platforms", json!([]), "a platform"),
            ("/spec/platforms", json!([one, one]), "each platform once"),
            ("/spec/platforms/0/sha256", json!("ABC"), "64 hexadecimal"),
            ("/spec/platforms/0/uri", json!("http://example.com"), "https"),
            ("/spec/platforms/0/bin", json!(""), "bin"),
            ("/spec/platforms/0/selector", json!({}), "os and arch"),
            ("/spec/platforms/0/files", json!([]), "from and to"),
            ("/spec/platforms/0/files", json!([{"from": PROGRAM, "to": "."}]), "licence"),
        ] {
            let mut broken = good.clone();
            *broken.pointer_mut(pointer).unwrap() = value.clone();
            let found = faults(&broken, "private-registry").join("; ");
            assert!(found.contains(words), "{pointer} {value}: {found:?}");
        }
        assert!(faults(&good, "registry").join("").contains("called like the plugin"));
    }
}
