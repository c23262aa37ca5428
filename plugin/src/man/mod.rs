//! `man`: the help of all commands as pages, for `man` and for people who read without the program. They are made of the command line's own definition, so that
//! nothing is said twice.

mod markdown;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Command;

use crate::shell;

/// Options of `man`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The command whose page is printed; without one, that of all
    #[arg(value_name = "COMMAND", conflicts_with = "to")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder, which is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// Markdown instead of what man reads
    #[arg(long)]
    markdown: bool,
}

/// One command's page.
struct Page {
    /// The file's name.
    name: String,
    text: String,
}

pub(crate) fn run(options: &Options, mut command: Command) -> Result<()> {
    command = command.disable_help_subcommand(true);
    command.build();
    let Some(folder) = &options.to else {
        let found = find(&command, &options.command)?;
        shell::print(&page(found, &options.command, options.markdown)?.text);
        return Ok(());
    };
    let mut pages = Vec::new();
    all(&command, &mut Vec::new(), options.markdown, &mut pages)?;
    write(folder, &pages)?;
    shell::print(&format!("{} in {}\n", shell::files(pages.len()), folder.display()));
    Ok(())
}

/// The command that is called like this.
fn find<'a>(root: &'a Command, names: &[String]) -> Result<&'a Command> {
    let mut found = root;
    for name in names {
        let Some(next) = shown(found).find(|command| command.get_name() == name) else {
            let known = shown(found).map(Command::get_name);
            bail!("there is no command {:?}, but {}", names.join(" "), crate::cluster::listed(known));
        };
        found = next;
    }
    Ok(found)
}

/// The commands below one, as `--help` shows them.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

/// The pages of a command and of all below it.
fn all(command: &Command, path: &mut Vec<String>, is_markdown: bool, pages: &mut Vec<Page>) -> Result<()> {
    pages.push(page(command, path, is_markdown)?);
    for below in shown(command) {
        path.push(below.get_name().to_owned());
        all(below, path, is_markdown, pages)?;
        path.pop();
    }
    Ok(())
}

fn page(command: &Command, path: &[String], is_markdown: bool) -> Result<Page> {
    if is_markdown {
        let name = if path.is_empty() { "README".to_owned() } else { path.join("-") };
        return Ok(Page { name: format!("{name}.md"), text: markdown::page(command, path) });
    }
    let page = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text).context("write a page")?;
    let text = String::from_utf8(text).context("write a page")?;
    Ok(Page { name: page.get_filename(), text: set_as_typed(&text) })
}

/// Examples keep their lines, and have a heading that says what they are.
fn set_as_typed(page: &str) -> String {
    match page.split_once(".SH EXTRA\nExamples:\n") {
        None => page.replace(".SH EXTRA\n", ".SH NOTES\n"),
        Some((before, after)) => {
            let end = after.find("\n.SH ").map_or(after.len(), |at| at + 1);
            let (examples, rest) = after.split_at(end);
            format!("{before}.SH EXAMPLES\n.nf\n{examples}.fi\n{rest}")
        }
    }
}

fn write(folder: &Path, pages: &[Page]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for page in pages {
        let path = folder.join(&page.name);
        fs::write(&path, &page.text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
