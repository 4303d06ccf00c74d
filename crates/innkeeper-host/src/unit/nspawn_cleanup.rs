//! Removes the files that nspawn leaves on the host when it is killed. After a normal end none are left.
//!
//! | path | since | purpose |
//! | --- | --- | --- |
//! | `/run/systemd/nspawn/propagate/<machine>` | | mounts that are added later |
//! | `/run/systemd/nspawn/unix-export/<machine>` | 254 | sockets that the guest exports; a tmpfs |
//! | `/run/systemd/nspawn/locks/inode-<device>:<inode>` | | lock of the file tree |
//! | `<parent>/.#<name>.lck` beside the file tree | | the same |

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::UnitError;
use crate::{FileErrorExt, command};

const NSPAWN: &str = "/run/systemd/nspawn";

/// Removes nspawn's files of a machine, which must have no process.
pub(super) async fn remove(machine: &str, root: &Path) -> Vec<UnitError> {
    let nspawn = Path::new(NSPAWN);
    let mut errors = Vec::new();
    let export = nspawn.join("unix-export").join(machine);
    if let Err(error) = unmount(&export).await {
        errors.push(error);
    }
    for dir in [export, nspawn.join("propagate").join(machine)] {
        errors.extend(
            absent(fs::remove_dir(&dir))
                .on("remove", &dir)
                .err()
                .map(UnitError::from),
        );
    }
    for file in locks(root) {
        errors.extend(
            absent(fs::remove_file(&file))
                .on("remove", &file)
                .err()
                .map(UnitError::from),
        );
    }
    errors
}

fn locks(root: &Path) -> Vec<PathBuf> {
    let mut locks = Vec::new();
    if let (Some(parent), Some(name)) = (root.parent(), root.file_name()) {
        locks.push(parent.join(format!(".#{}.lck", name.display())));
    }
    if let Ok(metadata) = fs::metadata(root) {
        let name = format!("inode-{}:{}", metadata.dev(), metadata.ino());
        locks.push(Path::new(NSPAWN).join("locks").join(name));
    }
    locks
}

async fn unmount(dir: &Path) -> Result<(), UnitError> {
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let is_mounted = device(dir).is_some_and(|own| Some(own) != dir.parent().and_then(device));
    if is_mounted {
        command::run("umount", ["--lazy".as_ref(), dir.as_os_str()], b"").await?;
    }
    Ok(())
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
