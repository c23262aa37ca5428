//! `check-volume`: the registry's init container. Storage that ignores fsGroup answers 500 to every push while the registry looks
//! healthy; here it fails before that, and the words become the condition's message.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

/// Directories that the registry writes into, below the volume's root. A volume that came from elsewhere may have them with another
/// owner than its root.
const BELOW: [&str; 3] = ["docker/registry/v2", "docker/registry/v2/repositories", "docker/registry/v2/blobs"];

/// Writes, syncs and removes a file in `folder` and in the registry's directories below it, as far as they exist. One line on standard
/// error says why that failed and what to do.
pub(super) fn check(folder: &Path) -> ExitCode {
    let below = BELOW.iter().map(|path| folder.join(path)).filter(|path| path.is_dir());
    for folder in std::iter::once(folder.to_owned()).chain(below) {
        let Err(error) = write(&folder) else { continue };
        super::complain(&explain(&folder, &error));
        return if is_full(&error) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    ExitCode::SUCCESS
}

/// A name for each pod: replicas that start together share the volume and must not remove each other's file.
fn probe() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(".private-registry-write-probe-{}-{}", host.trim(), std::process::id())
}

/// A full volume takes no image and gives every one that it has: whoever pulls must not wait until somebody makes room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn write(folder: &Path) -> io::Result<()> {
    let path = folder.join(probe());
    let mut file = fs::File::create(&path)?;
    let written = file.write_all(b"written to see whether this volume can be written\n").and_then(|()| file.sync_all());
    drop(file);
    written.and(fs::remove_file(path))
}

fn explain(folder: &Path, error: &io::Error) -> String {
    let owner = fs::metadata(folder).map_or_else(
        |error| format!("which cannot be looked at ({error})"),
        |folder| format!("which belongs to {}:{} with mode {:o}", folder.uid(), folder.gid(), folder.mode() & 0o7777),
    );
    let me = fs::metadata("/proc/self")
        .map_or_else(|_| "this user".to_owned(), |me| format!("user {}:{}", me.uid(), me.gid()));
    let next = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "the storage ignores fsGroup: give the directory and what is in it to group 65532 with mode 2775, or set spec.pod.securityContext to a user that may write it"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the volume is mounted read-only: see kubectl describe pod, and the volume's own health"
        }
        _ if is_full(error) => {
            "the volume is full: raise spec.storage.persistentVolumeClaim.size, or delete images and collect garbage"
        }
        _ => "see the volume's own health",
    };
    format!("{me} cannot write the volume at {}, {owner}: {error}; {next}", folder.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writable_folder_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_of_the_registry_are_tried_too() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join(BELOW[2]);
        fs::create_dir_all(&blobs).unwrap();
        assert_eq!(check(folder.path()), ExitCode::SUCCESS);
        assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);

        // Whoever runs the tests as root may write everywhere, but not where a file of the probe's name cannot be made.
        fs::create_dir(blobs.join(probe())).unwrap();
        assert_eq!(check(folder.path()), ExitCode::FAILURE);
    }

    #[test]
    fn a_refusal_says_whose_folder_it_is_and_what_to_do() {
        let words = explain(Path::new("/"), &io::ErrorKind::PermissionDenied.into());
        assert!(words.contains("fsGroup") && words.contains("belongs to 0:0"), "{words}");
        assert!(explain(Path::new("/"), &io::ErrorKind::StorageFull.into()).contains("size"));
    }

    #[test]
    fn a_full_volume_is_told_and_does_not_stop_the_registry() {
        assert!(is_full(&io::ErrorKind::StorageFull.into()) && is_full(&io::ErrorKind::QuotaExceeded.into()));
        assert!(!is_full(&io::ErrorKind::PermissionDenied.into()));
    }
}
