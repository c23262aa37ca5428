//! Sandboxes end completely, however their owner ends.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use testbed::sandbox::{Kind, Place, Sandbox, clear_orphans, instances};

fn sleeper(sandbox: &Sandbox, place: Place) -> u32 {
    sandbox.spawn("sleeper", place, Path::new("sleep"), &["600".to_owned()], &[]).unwrap().pid()
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_stopped_sandbox_leaves_no_process_and_no_folder() {
    let sandbox = Sandbox::create(Kind::ControlPlane).unwrap();
    let dir = sandbox.dir().to_owned();
    let pids: Vec<u32> = (0..5).map(|_| sleeper(&sandbox, Place::Host)).collect();
    assert!(pids.iter().all(|pid| is_running(*pid)));
    let started = Instant::now();
    sandbox.stop().unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(pids.iter().all(|pid| !is_running(*pid)));
    assert!(!dir.exists() && !dir.with_extension("lock").exists());
}

#[test]
fn a_node_has_a_network_of_its_own() {
    let sandbox = Sandbox::create(Kind::Node).unwrap();
    let out = sandbox.command(Place::Inside, "ip").args(["-o", "addr"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    eprintln!("{text}");
    assert!(text.contains(&sandbox.node_address().unwrap().to_string()));
    let out = sandbox
        .command(Place::Inside, "sh")
        .args(["-c", "cat /etc/resolv.conf; ls /run /var/lib; cat /proc/self/cgroup"])
        .output()
        .unwrap();
    eprintln!("{}", String::from_utf8_lossy(&out.stdout));
    let started = Instant::now();
    sandbox.stop().unwrap();
    eprintln!("{:?}", started.elapsed());
}
