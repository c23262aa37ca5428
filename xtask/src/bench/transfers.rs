//! Memory of `kubectl registry` while it moves an image of 5 GiB, command by command: its release build, a real registry, a disk. What is moved is made here and
//! gone afterwards.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::json;
use testbed::{Family, Objects, Progress, Registry, Tools};

use super::{large_image, table::Row};
use crate::units::mebibytes;

/// MiB.
const GOAL: f64 = 64.0;
/// How often memory is looked at. The kernel keeps the peak, so that only the last moment of a program can be missed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes of disk that are in use at once, at most.
const SPACE: u64 = 30 << 30;

pub(super) async fn measure(program: &Path, folder: &Path, progress: &Progress) -> Result<Vec<Row>> {
    let home = tempfile::tempdir_in(folder).context("make a folder")?;
    has_room(home.path())?;
    let tools = Tools::ensure(&[Family::Registry], progress)?;
    let registry = Registry::start(&tools, &home.path().join("registry")).await?;
    let path = "/apis/privateregistry.dev/v1alpha1/namespaces/default/privateregistries";
    let manifest = |name: &str| {
        let spec = json!({"auth": {"none": {}}, "tls": {"none": {}}});
        let kind = json!({"apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": spec,
                          "metadata": {"name": name, "namespace": "default"}});
        (format!("{path}/{name}"), kind)
    };
    let objects = Objects::serve(BTreeMap::from(["own", "other"].map(manifest))).await?;
    objects.write_kubeconfig(&home.path().join("kubeconfig"))?;
    fs::create_dir(home.path().join("tmp")).context("make a folder")?;
    let person = Person { program, home: home.path(), registry: registry.address(), progress };

    let step = progress.step("write an image of 5 GiB");
    let (layout, small) = (home.path().join("layout"), home.path().join("small.tar"));
    large_image::layout(&layout)?;
    large_image::small_files(&mut fs::File::create(&small).context("make a file")?)?;
    step.done();
    let (layout, small) = (layout.display().to_string(), small.display().to_string());
    let file = home.path().join("images.tar").display().to_string();

    let large = "an image of 5 GiB with 100,000 files";
    let run = async |name: &str, arguments: &[&str], input| person.measures(name, large, arguments, input).await;
    let mut rows = vec![run("load", &["load", "own", "big/app:1", "-i", &layout], None).await?];
    fs::remove_dir_all(&layout).context("remove the layout")?;
    rows.push(run("save", &["save", "own", "big/app:1", "-o", &file], None).await?);
    rows.push(run("load of an archive", &["load", "own", "archive/app:1", "-i", &file], None).await?);
    fs::remove_file(&file).context("remove the archive")?;
    let other = Registry::start(&tools, &home.path().join("other")).await?;
    let at = other.address().to_string();
    let copy = ["copy", "own", "big/app:1", "big/app:1", "--to", "other", "--to-address", &at];
    rows.push(run("copy", &copy, None).await?);
    drop(other);
    fs::remove_dir_all(home.path().join("other")).context("remove the other registry")?;
    rows.push(run("export", &["export", "own", "big/app:1", "-o", "-"], None).await?);
    let import = ["import", "own", "-", "big/flat:1"];
    rows.push(run("import", &import, Some(large_image::all_files)).await?);
    let commit = ["commit", "own", "big/flat:1", "big/more:1", "--add", &small];
    rows.push(run("commit of 100,000 files more to", &commit, None).await?);
    let many = format!("an image with {} files", large_image::MANY_FILES);
    let import = ["import", "own", "-", "many/app:1"];
    rows.push(person.measures("import", &many, &import, Some(large_image::many_files)).await?);
    let export = ["export", "own", "many/app:1", "-o", "-"];
    rows.push(person.measures("export", &many, &export, None).await?);
    let commit = ["commit", "own", "many/app:1", "many/more:1", "--add", &small];
    rows.push(person.measures("commit of 100,000 files more to", &many, &commit, None).await?);
    Ok(rows)
}

fn has_room(folder: &Path) -> Result<()> {
    let output = Command::new("df").args(["--output=avail", "--block-size=1"]).arg(folder).output();
    let text = String::from_utf8_lossy(&output.context("run df")?.stdout).into_owned();
    let free = text.lines().last().and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or_default();
    if free < SPACE {
        bail!("{} has {} GiB of room, of which {} are needed", folder.display(), free >> 30, SPACE >> 30);
    }
    Ok(())
}

/// What writes an archive to a program's standard input.
type Written = fn(&mut dyn io::Write) -> Result<()>;

/// Somebody with the program.
struct Person<'a> {
    program: &'a Path,
    home: &'a Path,
    registry: SocketAddr,
    progress: &'a Progress,
}

impl Person<'_> {
    /// Runs a command to its end, and says how much memory it had at most.
    async fn measures(&self, name: &str, image: &str, arguments: &[&str], input: Option<Written>) -> Result<Row> {
        let step = self.progress.step(format!("transfers: {name} {image}"));
        let mut command = Command::new(self.program);
        command.env_clear().env("TMPDIR", self.home.join("tmp")).args(arguments);
        command.args(["--address", &self.registry.to_string(), "--kubeconfig"]).arg(self.home.join("kubeconfig"));
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("run {}", self.program.display()))?;
        let peak = tokio::task::spawn_blocking(move || finished(child, input)).await.context("wait for a thread")?;
        let peak = mebibytes(peak.with_context(|| format!("run kubectl registry {}", arguments.join(" ")))?);
        let took = started.elapsed();
        step.done();
        Ok(Row {
            name: "transfers",
            what: format!("memory: {name} {image}"),
            result: format!("{peak:.0} MiB ({} s)", took.as_secs()),
            goal: format!("≤ {GOAL} MiB"),
            is_met: Some(peak <= GOAL),
            values: json!({"peak_mebibytes": peak, "seconds": took.as_secs_f64()}),
        })
    }
}

/// Waits for a program, which must succeed. The most bytes that it had in memory.
fn finished(mut child: Child, input: Option<Written>) -> Result<u64> {
    let mut stdin = child.stdin.take();
    let writing = input.map(|write| {
        let mut stdin = stdin.take();
        thread::spawn(move || stdin.as_mut().map_or(Ok(()), |stdin| write(stdin)))
    });
    let mut stderr = child.stderr.take().context("its errors")?;
    let errors = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    let ended = loop {
        peak = peak_of(&fs::read_to_string(&status).unwrap_or_default()).unwrap_or(0).max(peak);
        if let Some(ended) = child.try_wait().context("wait for it")? {
            break ended;
        }
        thread::sleep(LOOK_EVERY);
    };
    let text = errors.join().ok().and_then(Result::ok).unwrap_or_default();
    if !ended.success() {
        bail!("{ended}: {text}");
    }
    if let Some(written) = writing.and_then(|writing| writing.join().ok()) {
        written.context("write to it")?;
    }
    Ok(peak)
}

/// The peak in a process' status, in bytes.
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_as_the_kernel_writes_it() {
        assert_eq!(peak_of("Name:\tcat\nVmPeak:\t    5 kB\nVmHWM:\t    1684 kB\nVmRSS:\t 4 kB\n"), Some(1684 << 10));
        assert_eq!(peak_of("Name:\tcat\n"), None);
    }

    #[test]
    fn a_program_that_fails_is_told_with_its_words() {
        let run = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
            finished(command.spawn().unwrap(), Some(|out| Ok(out.write_all(b"hello")?)))
        };
        assert!(run("cat; sleep 0.2").unwrap() > 100 << 10);
        let error = run("cat >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("3: hello"), "{error}");
    }
}
