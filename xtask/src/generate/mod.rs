//! `cargo xtask generate`: every file in this repository that follows from others, written or compared. One list says which these are.

mod api_reference;

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};
use testbed::{Family, Progress, Tools};

use crate::workspace;

const DEFINITION: &str = "crds/privateregistries.privateregistry.dev.yaml";
/// A symbolic link would do, but chart archives and GitOps tools leave links out.
const DEFINITION_IN_CHART: &str = "charts/private-registry-crds/files/privateregistries.privateregistry.dev.yaml";

/// The names of its fields, which the operator's program carries.
const OUTLINE: &str = "src/api/outline.json";

/// A page for each command of `kubectl registry`, and nothing else.
const COMMANDS: &str = "docs/commands";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when a file is not what the code gives
    #[arg(long)]
    check: bool,
}

/// A file that is made, and what is in it.
struct Generated {
    path: String,
    content: String,
}

impl Generated {
    fn new(path: impl Into<String>, content: String) -> Self {
        Self { path: path.into(), content }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut stale = 0;
    let files = files()?;
    for path in left_over(&workspace::root().join(COMMANDS), &files)? {
        stale += 1;
        if arguments.check {
            println!("{path} is of a command that is not there any more");
        } else {
            fs::remove_file(workspace::root().join(&path)).with_context(|| format!("remove {path}"))?;
            println!("removed {path}");
        }
    }
    for Generated { path, content } in files {
        let place = workspace::root().join(&path);
        let present = fs::read_to_string(&place).unwrap_or_default();
        if present == content {
            continue;
        }
        stale += 1;
        if arguments.check {
            println!("{path} is not what the code gives{}", first_difference(&present, &content));
        } else {
            if let Some(folder) = place.parent() {
                fs::create_dir_all(folder).with_context(|| format!("make the folder of {path}"))?;
            }
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
    let derived = |what| {
        let mut derive = workspace::cargo();
        derive.args(["run", "--quiet", "--locked", "--example", "derive", "--", what]);
        output(derive)
    };
    let definition = derived("definition")?;
    let reference = api_reference::of(&definition)?;
    let rendered =
        |path: &str, chart, more: &[&str]| Ok::<_, anyhow::Error>(Generated::new(path, template(chart, more)?));
    let operator = "private-registry-operator";
    let image = "image.repository=private-registry-operator";
    let system = ["--namespace", "private-registry-system"];
    let mut files = vec![
        Generated::new(DEFINITION, definition.clone()),
        Generated::new(OUTLINE, derived("outline")?),
        Generated::new(DEFINITION_IN_CHART, definition),
        Generated::new("docs/api.md", reference),
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
    ];
    files.extend(commands()?);
    Ok(files)
}

/// A page for each command of `kubectl registry`, as the program itself writes them.
fn commands() -> Result<Vec<Generated>> {
    let folder = tempfile::tempdir().context("make a temporary folder")?;
    let mut program = workspace::cargo();
    program.args(["run", "--quiet", "--locked", "--bin", "kubectl-registry", "--", "man", "--markdown", "--to"]);
    program.arg(folder.path());
    output(program)?;
    let mut pages = Vec::new();
    for name in names(folder.path())? {
        let content = fs::read_to_string(folder.path().join(&name)).with_context(|| format!("read {name}"))?;
        pages.push(Generated::new(format!("{COMMANDS}/{name}"), content));
    }
    Ok(pages)
}

/// Files of a folder that is made as a whole, and that nothing makes any more.
fn left_over(folder: &Path, files: &[Generated]) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let present = names(folder)?.into_iter().map(|name| format!("{COMMANDS}/{name}"));
    Ok(present.filter(|path| files.iter().all(|file| file.path != *path)).collect())
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Result<Vec<String>> {
    let what = || format!("read {}", folder.display());
    let entries = fs::read_dir(folder).with_context(what)?.collect::<Result<Vec<_>, _>>().with_context(what)?;
    let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
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
    fn a_page_of_a_command_that_is_gone_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["copy.md", "gone.md"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let files = [Generated::new("docs/commands/copy.md", String::new())];
        assert_eq!(left_over(folder.path(), &files).unwrap(), ["docs/commands/gone.md"]);
        assert_eq!(left_over(&folder.path().join("none"), &files).unwrap(), [""; 0]);
    }

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), "; line 2:\n- b\n+ c");
        assert_eq!(first_difference("a\n", "a\nb\n"), "; line 2:\n- (nothing)\n+ b");
        assert_eq!(first_difference("a", "a\n"), ": the ends of lines differ");
    }
}
