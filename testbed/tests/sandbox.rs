//! Sandboxes end completely, however their owner ends.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use testbed::{
    Mode,
    sandbox::{Kind, Place, Sandbox, State, clear_orphans, instances},
    skip,
    traces::Traces,
};

/// Starts a process that does nothing, and one that tries to get away from it.
fn start_sleepers(sandbox: &Sandbox, place: Place) -> Result<()> {
    sandbox.spawn("sleeper", place, Path::new("sleep"), &["600".to_owned()], &[])?;
    let runaway =
        "trap '' TERM HUP INT; setsid sh -c 'trap \"\" TERM HUP INT; sleep 600 & sleep 600' & wait".to_owned();
    sandbox.spawn("runaway", place, Path::new("sh"), &["-c".to_owned(), runaway], &[])?;
    within(Duration::from_secs(5), "all sleepers run", || processes_of(sandbox.id()).len() >= 5)
}

/// Processes that carry the instance's mark, wherever they went. Those that have ended and wait to be collected don't count.
fn processes_of(id: &str) -> Vec<String> {
    let mark = format!("TESTBED_INSTANCE={id}");
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let marked = processes.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    marked.map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

fn within(limit: Duration, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn groups_of(id: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    hierarchies.map(|hierarchy| hierarchy.join(format!("preg-{id}"))).filter(|group| group.exists()).collect()
}

fn nothing_is_left_of(id: &str, dir: &Path) -> Result<()> {
    ensure!(processes_of(id).is_empty(), "processes are left: {:#?}", processes_of(id));
    ensure!(groups_of(id).is_empty(), "control groups are left: {:?}", groups_of(id));
    ensure!(!dir.exists() && !dir.with_extension("lock").exists(), "files are left in {}", dir.display());
    ensure!(instances()?.iter().all(|instance| instance.id != id), "it is still listed");
    Ok(())
}

#[test]
fn a_stopped_sandbox_leaves_nothing() -> Result<()> {
    let sandbox = Sandbox::create(Kind::ControlPlane)?;
    start_sleepers(&sandbox, Place::Host)?;
    let started = Instant::now();
    sandbox.stop()?;
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(2), "stopping takes a tenth of a second on an idle machine, here {took:?}");
    nothing_is_left_of(sandbox.id(), sandbox.dir())
}

/// Panics in a thread that owns a sandbox; gives its name and folder.
fn panic_with(sandbox: Sandbox) -> Result<(String, PathBuf)> {
    let (id, dir) = (sandbox.id().to_owned(), sandbox.dir().to_owned());
    let panicked = thread::spawn(move || {
        let _owned = sandbox;
        panic!("as a failing test does");
    });
    ensure!(panicked.join().is_err(), "the thread was to panic");
    Ok((id, dir))
}

#[test]
fn a_panic_ends_the_sandbox() -> Result<()> {
    let sandbox = Sandbox::create(Kind::ControlPlane)?;
    start_sleepers(&sandbox, Place::Host)?;
    let (id, dir) = panic_with(sandbox)?;
    nothing_is_left_of(&id, &dir)
}

#[test]
fn a_node_leaves_the_machine_as_it_was_after_a_panic() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    let before = Traces::of_machine("none");
    let sandbox = Sandbox::create(Kind::Node)?;
    start_sleepers(&sandbox, Place::Inside)?;
    let (id, dir) = panic_with(sandbox)?;
    nothing_is_left_of(&id, &dir)?;
    let left = Traces::left(&id, &before, Duration::from_secs(5));
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

#[test]
fn a_node_leaves_the_machine_as_it_was() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    let before = Traces::of_machine("none");
    let sandbox = Sandbox::create(Kind::Node)?;
    start_sleepers(&sandbox, Place::Inside)?;
    let write = "echo x >/run/x && echo x >/var/lib/x && echo x >/var/log/x && echo 1 >/proc/sys/vm/overcommit_memory && ip addr";
    let output = sandbox.command(Place::Inside, "sh").args(["-c", write]).output()?;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let address = sandbox.node_address().context("a node has an address")?.to_string();
    ensure!(output.status.success() && said.contains(&address), "{said}{errors}");
    let during = Traces::of_machine(sandbox.id()).difference(&before);
    ensure!(
        during.iter().all(|trace| trace.starts_with("+ control group") || trace.starts_with("+ network")),
        "{during:#?}"
    );
    ensure!(during.len() > 2, "its control groups and its network were to be seen: {during:#?}");
    sandbox.stop()?;
    nothing_is_left_of(sandbox.id(), sandbox.dir())?;
    let left = Traces::left(sandbox.id(), &before, Duration::from_secs(5));
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

#[test]
fn ports_inside_a_node_can_be_reached_from_outside() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    let sandbox = Sandbox::create(Kind::Node)?;
    let server = "import socket\ns = socket.create_server(('127.0.0.1', 7000))\nwhile True:\n  c, _ = s.accept()\n  c.sendall(b'hello\\n')\n  c.close()";
    sandbox.spawn("server", Place::Inside, Path::new("python3"), &["-c".to_owned(), server.to_owned()], &[])?;
    let reach = sandbox.reach(7000)?;
    let greet = || -> Option<String> {
        let stream = std::net::TcpStream::connect(("127.0.0.1", reach.port())).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line)
    };
    within(Duration::from_secs(10), "the server answers", || greet().as_deref() == Some("hello\n"))
}

/// Not a test: the owner that others kill. Run by [`Owner::start`].
#[test]
#[ignore = "helps the others"]
fn owner() -> Result<()> {
    let kind = if std::env::var_os("OWN_A_NODE").is_some() { Kind::Node } else { Kind::ControlPlane };
    let sandbox = Sandbox::create(kind)?;
    start_sleepers(&sandbox, Place::Inside)?;
    if std::env::var_os("DETACH").is_some() {
        sandbox.detach()?;
    }
    println!("owns {} {}", sandbox.id(), sandbox.dir().display());
    thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// A process that owns a sandbox with sleepers in it.
struct Owner {
    process: Child,
    id: String,
    dir: PathBuf,
}

impl Owner {
    fn start(variables: &[&str]) -> Result<Self> {
        Self::run(Command::new(std::env::current_exe()?), variables)
    }

    fn run(mut command: Command, variables: &[&str]) -> Result<Self> {
        command.args(["--ignored", "--exact", "owner", "--nocapture"]).process_group(0).stdout(Stdio::piped());
        command.envs(variables.iter().map(|variable| (variable, "1")));
        let mut process = command.spawn()?;
        let lines = BufReader::new(process.stdout.take().context("its output")?).lines();
        for line in lines.map_while(Result::ok) {
            if let Some((id, dir)) = line.split_once("owns ").and_then(|(_, rest)| rest.split_once(' ')) {
                return Ok(Self { process, id: id.to_owned(), dir: dir.into() });
            }
        }
        bail!("the owner ended: {}", process.wait()?)
    }

    fn ends_by(mut self, signal: Signal) -> Result<()> {
        killpg(Pid::from_raw(self.process.id().cast_signed()), signal)?;
        self.process.wait()?;
        Ok(())
    }

    /// The process that looks after the instance: it has the instance's folder among its arguments.
    fn janitor(&self) -> Result<Pid> {
        let folder = self.dir.display().to_string();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let words = fs::read_to_string(path.join("cmdline")).unwrap_or_default();
            if words.split('\0').any(|word| word == "janitor") && words.split('\0').any(|word| word == folder) {
                let id = path.file_name().and_then(|name| name.to_str()).context("a number")?;
                return Ok(Pid::from_raw(id.parse()?));
            }
        }
        bail!("no janitor for {folder}")
    }
}

#[test]
fn a_killed_owner_takes_its_sandbox_with_it() -> Result<()> {
    let owner = Owner::start(&[])?;
    let (id, dir) = (owner.id.clone(), owner.dir.clone());
    owner.ends_by(Signal::SIGKILL)?;
    within(Duration::from_secs(5), "nothing is left", || nothing_is_left_of(&id, &dir).is_ok())
}

#[test]
fn ctrl_c_takes_the_sandbox_with_it() -> Result<()> {
    let owner = Owner::start(&[])?;
    let (id, dir) = (owner.id.clone(), owner.dir.clone());
    owner.ends_by(Signal::SIGINT)?;
    within(Duration::from_secs(5), "nothing is left", || nothing_is_left_of(&id, &dir).is_ok())
}

#[test]
fn a_node_leaves_the_machine_as_it_was_when_its_owner_is_interrupted_or_killed() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let before = Traces::of_machine("none");
        let owner = Owner::start(&["OWN_A_NODE"])?;
        let (id, dir) = (owner.id.clone(), owner.dir.clone());
        owner.ends_by(signal)?;
        within(Duration::from_secs(5), "nothing is left", || nothing_is_left_of(&id, &dir).is_ok())?;
        let left = Traces::left(&id, &before, Duration::from_secs(5));
        ensure!(left.is_empty(), "{signal}: {left:#?}");
    }
    Ok(())
}

#[test]
fn what_is_left_when_even_the_janitor_was_killed_is_cleared_at_the_next_start() -> Result<()> {
    let owner = Owner::start(&[])?;
    let (id, dir) = (owner.id.clone(), owner.dir.clone());
    kill(owner.janitor()?, Signal::SIGKILL)?;
    owner.ends_by(Signal::SIGKILL)?;
    ensure!(!processes_of(&id).is_empty(), "nobody was there to end its processes");

    // A killed process may take a moment to let go of the lock that says it is alive.
    within(Duration::from_secs(5), "nothing is left", || {
        Sandbox::create(Kind::ControlPlane).is_ok() && nothing_is_left_of(&id, &dir).is_ok()
    })
}

#[test]
fn a_detached_sandbox_outlives_its_owner_until_it_is_removed() -> Result<()> {
    let owner = Owner::start(&["DETACH"])?;
    let (id, dir) = (owner.id.clone(), owner.dir.clone());
    owner.ends_by(Signal::SIGKILL)?;
    clear_orphans()?;
    let found = instances()?.into_iter().find(|instance| instance.id == id).context("it is listed")?;
    ensure!(found.state == State::Detached && processes_of(&id).len() >= 5, "{found:#?}");

    found.remove()?;
    nothing_is_left_of(&id, &dir)
}

#[test]
fn an_ordinary_users_sandbox_ends_completely_too() -> Result<()> {
    // As root, become nobody, with a copy of this program that nobody may run; an ordinary user runs the tests above as it is.
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    let home = tempfile::tempdir_in("/tmp")?;
    let program = home.path().join("test");
    fs::copy(std::env::current_exe()?, &program)?;
    nix::unistd::chown(home.path(), Some(65534.into()), Some(65534.into()))?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).current_dir(home.path());
    command.env("HOME", home.path()).env_remove("XDG_STATE_HOME");
    let owner = Owner::run(command, &[])?;
    let (id, dir) = (owner.id.clone(), owner.dir.clone());
    ensure!(dir.starts_with(home.path()) && groups_of(&id).is_empty(), "{}", dir.display());
    owner.ends_by(Signal::SIGKILL)?;
    within(Duration::from_secs(5), "nothing is left", || nothing_is_left_of(&id, &dir).is_ok())
}
