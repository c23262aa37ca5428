//! `cargo xtask generate`: every file in this repository that follows from others, written or compared. One list says which these are.

mod api_reference;

use std::{
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use testbed::{Family, Progress, Tools};

use crate::workspace;

const DEFINITION: &str = "crds/privateregistries.privateregistry.dev.yaml";
/// A symbolic link would do, but chart archives and GitOps tools leave links out.
const DEFINITION_IN_CHART: &str = "charts/private-registry-crds/files/privateregistries.privateregistry.dev.yaml";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a file is not what the code gives
    #[arg(long)]
    check: bool,
}

/// A file that is made, and what is in it.
struct Generated {
    path: &'static str,
    content: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut stale = 0;
    for Generated { path, content } in files()? {
        let place = workspace::root().join(path);
        let present = fs::read_to_string(&place).unwrap_or_default();
        if present == content {
            continue;
        }
        stale += 1;
        if arguments.check {
            println!("{path} is not what the code gives{}", first_difference(&present, &content));
        } else {
            fs::write(&place, content).with_context(|| format!("write {path}"))?;
            println!("wrote {path}");
        }
    }
    match stale {
        0 => println!("every generated file is up to date"),
        _ if arguments.check => {
            println!("run `cargo xtask generate` and commit what it wrote");
            return Ok(ExitCode::FAILURE);
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn files() -> Result<Vec<Generated>> {
    let mut product = workspace::cargo();
    product.args(["run", "--quiet", "--locked", "--bin", "private-registry-operator", "--", "crd"]);
    let definition = output(product)?;
    let reference = api_reference::of(&definition)?;
    let rendered =
        |path, chart, more: &[&str]| Ok::<_, anyhow::Error>(Generated { path, content: template(chart, more)? });
    let operator = "private-registry-operator";
    let image = "image.repository=private-registry-operator";
    let system = ["--namespace", "private-registry-system"];
    Ok(vec![
        Generated { path: DEFINITION, content: definition.clone() },
        Generated { path: DEFINITION_IN_CHART, content: definition },
        Generated { path: "docs/api.md", content: reference },
        rendered("deploy/cluster/operator.yaml", operator, &[&["--set", image], &system[..]].concat())?,
        rendered(
            "deploy/namespaced/operator.yaml",
            operator,
            &["--set", image, "--namespace", "registries", "--set", "watch.namespaces={registries}"],
        )?,
        rendered(
            "deploy/user-roles.yaml",
            "private-registry-crds",
            &[&system[..], &["--show-only", "templates/user-roles.yaml"]].concat(),
        )?,
    ])
}

/// What Helm makes of a chart.
fn template(chart: &str, more: &[&str]) -> Result<String> {
    let tools = Tools::ensure(&[Family::Helm], &Progress::auto())?;
    let mut helm = workspace::command(tools.path("helm")?);
    helm.args(["template", chart, &format!("charts/{chart}")]).args(more);
    let header = format!("# Generated from charts/{chart} by `cargo xtask generate`. Do not edit.\n");
    Ok(header + &output(helm)?)
}

fn output(mut command: Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what {program} said"))
}

/// Where two texts part, for a person to see why.
fn first_difference(present: &str, wanted: &str) -> String {
    let (mut present, mut wanted) = (present.lines(), wanted.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (present.next(), wanted.next()) {
            (Some(present), Some(wanted)) if present == wanted => {}
            (None, None) => return ": the ends of lines differ".to_owned(),
            (present, wanted) => {
                let [present, wanted] = [present, wanted].map(|line| line.unwrap_or("(nothing)"));
                return format!("; line {number}:\n- {present}\n+ {wanted}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "; line 2:\n- b\n+ c");
        assert_eq!(first_difference("a\n", "a\nb\n"), "; line 2:\n- (nothing)\n+ b");
        assert_eq!(first_difference("a", "a\n"), ": the ends of lines differ");
    }
}
