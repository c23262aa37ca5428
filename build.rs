//! Puts the commit into the program, for `--version`.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=PRIVATE_REGISTRY_COMMIT");
    // The file is elsewhere in a work tree and absent in an archive; one that is absent would mean a new build each time.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]).filter(|head| Path::new(head).exists()) {
        println!("cargo:rerun-if-changed={head}");
    }
    let commit = env::var("PRIVATE_REGISTRY_COMMIT").ok().or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=COMMIT={}", commit.unwrap_or_else(|| "unknown commit".to_owned()));
    // Addresses that are put right at the start take a thirtieth of the space so. glibc understands it from 2.36 on, which is Debian 12's.
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux"
        && target("ENV") == "gnu"
        && env::var("PROFILE").is_ok_and(|profile| profile == "release")
    {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
