//! Disks that are full: said with the place, and nothing half written under a final name.

use std::fs;

use testbed::image::Layer;
use tokio::process::Command;

use crate::bed::{Bed, Said, noise, said};

/// Mounts a small disk, runs a program, and lists what the disk holds then.
const SCRIPT: &str = "mount -t tmpfs -o size=2m none \"$0\" || exit 99; echo yesterday > \"$0/images.tar\"; \"$@\"; code=$?; \
                      echo \"held: $(cd \"$0\" && find . -type f | sort | tr '\\n' ' ') $(cat \"$0/images.tar\")\"; exit $code";

/// Runs the program beside a disk of 2 MiB in `small`; `None` where nobody may mount one.
async fn on_a_small_disk(bed: &Bed, arguments: &[&str], temporary: &str) -> Option<Said> {
    let own = bed.command(bed.registry.address(), arguments);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", SCRIPT]).arg(bed.file("small"));
    command.arg(own.as_std().get_program()).args(own.as_std().get_args());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("TMPDIR", bed.file(temporary));
    let said = said(command).await;
    if said.code == Some(99) || said.err.contains("unshare") {
        testbed::skip_because(&format!("no disk of one's own can be mounted here: {}", said.err));
        return None;
    }
    Some(said)
}

#[tokio::test]
async fn a_full_disk_is_named_and_what_was_there_stays() {
    let Some(bed) = Bed::new().await else { return };
    bed.pushes("team/app:1", vec![Layer::new().file("large", 0o644, noise(4 << 20, 1))]).await;
    for folder in ["small", "files"] {
        fs::create_dir(bed.file(folder)).unwrap();
    }
    fs::write(bed.file("files/large"), noise(4 << 20, 2)).unwrap();
    let (archive, folder, out) = (bed.path("small/images.tar"), bed.path("small/images/"), bed.path("out.tar"));
    let (rootfs, files) = (bed.path("rootfs.tar"), bed.path("files"));
    bed.sees(&["export", "team-a", "team/app:1", "-o", &rootfs]).await;
    let small = bed.path("small");
    let temporary = format!("{small} ($TMPDIR)");
    for (arguments, tmp, words) in [
        (&["save", "team-a", "team/app:1", "-o", &archive][..], "tmp", &archive),
        (&["save", "team-a", "team/app:1", "-o", &folder], "tmp", &folder),
        (&["export", "team-a", "team/app:1", "-o", &archive], "tmp", &small),
        (&["export", "team-a", "team/app:1", "-o", &out], "small", &temporary),
        (&["import", "team-a", &rootfs, "team/new:1"], "small", &temporary),
        (&["commit", "team-a", "team/app:1", "team/new:1", "--add", &files], "small", &temporary),
        (&["commit", "team-a", "team/app:1", "team/new:1", "--unchecked", "--add", &files], "small", &temporary),
    ] {
        let Some(said) = on_a_small_disk(&bed, arguments, tmp).await else { return };
        assert!(said.code == Some(1) && said.err.contains("No space left on device"), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(words), "{arguments:?}: {}", said.err);
        let held = said.out.lines().last().unwrap().trim_start_matches("held: ");
        let whole = held.split_whitespace().filter(|name| name.starts_with("./images/")).count();
        assert!(held.ends_with(" yesterday") && !held.contains(".part") && whole <= 2, "{arguments:?}: {held}");
    }
    assert!(!bed.file("out.tar").exists());
    assert_eq!(bed.asks(&["tags", "team-a", "team/new"]).await.code, Some(1));
}
