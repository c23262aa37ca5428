//! What the Go toolchain does as a child process: fetching modules, building with a count of packages. Which toolchain is not decided here.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{family::Build, toolchain::Toolchain};
use crate::progress::Step;

/// Flags of every build. `-buildvcs=false`: the state of the checkout must not change what is built.
const FLAGS: [&str; 3] = ["build", "-trimpath", "-buildvcs=false"];

/// Fetches the modules that `source`'s go.mod names.
pub(super) fn download(toolchain: &Toolchain, source: &Path) -> Result<()> {
    let output = toolchain.command(source).args(["mod", "download"]).output().context("run go")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("modules could not be fetched:\n{}{}", last_lines(&text), hint(&text));
    }
    Ok(())
}

/// Where Go keeps a module that `source`'s go.mod names.
pub(super) fn folder_of(toolchain: &Toolchain, source: &Path, module: &str) -> Result<PathBuf> {
    let output = toolchain.command(source).args(["list", "-m", "-f", "{{.Dir}}", module]).output().context("run go")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || folder.is_empty() {
        bail!("module {module} is not there:\n{}", last_lines(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(folder.into())
}

/// The arguments of `go` that build `build` into `bin`.
pub(super) fn arguments(build: &Build, bin: &Path) -> Vec<String> {
    let stamps = build.stamps.iter().map(|(name, value)| format!(" -X {name}={value}"));
    let out = match build.programs {
        [(_, only)] => bin.join(only).display().to_string(),
        _ => format!("{}/", bin.display()),
    };
    let mut arguments: Vec<String> = FLAGS.iter().chain(build.flags).map(ToString::to_string).collect();
    arguments.push(format!("-ldflags=-s -w{}", stamps.collect::<String>()));
    arguments.extend(["-v".to_owned(), "-o".to_owned(), out]);
    arguments.extend(build.programs.iter().map(|(package, _)| (*package).to_owned()));
    arguments
}

/// Builds. `linking` is called when all compiling has begun and mostly the linker's one thread is left to wait for. The whole output
/// is kept in `log`.
pub(super) fn build(
    toolchain: &Toolchain,
    source: &Path,
    build: &Build,
    bin: &Path,
    log: &Path,
    step: &Step,
    linking: impl Fn(),
) -> Result<()> {
    fs::create_dir_all(bin).with_context(|| format!("make {}", bin.display()))?;
    let arguments = arguments(build, bin);
    let mut command = toolchain.command(source);
    command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("run go")?;
    let mut kept = fs::File::create(log).with_context(|| format!("write {}", log.display()))?;
    let lines = BufReader::new(child.stderr.take().context("go's output")?).lines();
    let (mut compiled, mut mains) = (0, 0);
    for line in lines.map_while(Result::ok) {
        writeln!(kept, "{line}").with_context(|| format!("write {}", log.display()))?;
        if is_package(&line) {
            compiled += 1;
            step.advance(compiled, build.packages.max(compiled), "packages");
        }
        mains += usize::from(is_main(&line, build));
        if mains == build.programs.len() {
            step.note("linking");
            linking();
        }
    }
    let status = child.wait().context("wait for go")?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!(
            "the build failed ({status}):\n{}\nEverything it said is in {}. To try it by hand: cd {} && CGO_ENABLED=0 go {}{}",
            last_lines(&text),
            log.display(),
            source.display(),
            arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" "),
            hint(&text),
        );
    }
    Ok(())
}

/// `go build -v` names each package on a line of its own when it begins with it.
fn is_package(line: &str) -> bool {
    !line.is_empty() && !line.contains([' ', '\t', ':'])
}

fn is_main(line: &str, build: &Build) -> bool {
    build
        .programs
        .iter()
        .any(|(package, _)| *package == line || (*package == "." && line.starts_with("privateregistry.dev/tools/")))
}

fn last_lines(text: &str) -> String {
    let said: Vec<&str> = text.lines().filter(|line| !is_package(line)).collect();
    said[said.len().saturating_sub(15)..].join("\n")
}

/// What usually helps, for failures that don't say it themselves.
fn hint(text: &str) -> &'static str {
    if text.contains("no space left on device") {
        "\nThe disk is full: a cold build needs about 8 GB."
    } else if text.contains("signal: killed") {
        "\nThe kernel killed it, most likely for lack of memory: a build needs about 3 GB."
    } else if text.contains("dial tcp") || text.contains("proxyconnect") || text.contains("GOPROXY=off") {
        "\nCheck the network, or GOPROXY: each module is fetched once and then kept by Go."
    } else if text.contains("requires go >=") {
        "\nThis Go is too old for it: see https://go.dev/doc/install."
    } else {
        ""
    }
}

fn quoted(argument: &str) -> String {
    if argument.contains(' ') { format!("'{argument}'") } else { argument.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::tests::toolchain;

    #[test]
    fn what_usually_helps_is_said_with_the_failure() {
        for (text, expected) in [
            ("write /tmp/x: no space left on device", "disk"),
            ("compile: signal: killed", "memory"),
            ("Get \"https://proxy.example/x\": dial tcp: lookup proxy.example: no such host", "network"),
            ("go: go.mod requires go >= 1.26.3 (running go 1.26.0; GOTOOLCHAIN=local)", "too old"),
        ] {
            assert!(hint(text).contains(expected), "{text}: {}", hint(text));
        }
        assert_eq!(hint("main.go:3:2: undefined: x"), "");
    }

    #[test]
    fn modules_that_cannot_be_fetched_come_with_what_helps() {
        if crate::skip(crate::Mode::ControlPlane) {
            return;
        }
        let source = tempfile::tempdir().unwrap();
        // Refused before any network is asked.
        fs::write(source.path().join("go.mod"), "module x\n\ngo 1.999.0\n").unwrap();
        let message = format!("{:#}", download(&toolchain(), source.path()).unwrap_err());
        assert!(message.contains("requires go >= 1.999.0") && message.contains("go.dev/doc/install"), "{message}");
    }

    #[test]
    fn only_names_of_packages_are_counted() {
        for (line, expected) in [
            ("k8s.io/api/core/v1", true),
            ("fmt", true),
            ("go: downloading k8s.io/api v0.37.1", false),
            ("# k8s.io/api/core/v1", false),
            ("main.go:3:2: undefined: x", false),
            ("", false),
        ] {
            assert_eq!(is_package(line), expected, "{line}");
        }
    }
}
