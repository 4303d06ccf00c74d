//! The initial contents of a guest's tree.

use std::path::Path;

use innkeeper_model::Slot;

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree};

/// Directories and their mode bits. systemd-nspawn refuses a tree without `/usr`; it mounts on `/proc`,
/// `/sys`, `/dev` and `/run`, and the closure's store on `/nix/store`.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("nix", 0o755),
    ("nix/store", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

/// Files, their contents and their mode bits. An empty `machine-id` is filled in at the first boot
/// (machine-id(5)); systemd recognizes a system by its `os-release`, among others (os-release(5)).
/// A NixOS closure replaces `os-release`.
const FILES: &[(&str, &str, u32)] = &[
    ("etc/machine-id", "", 0o444),
    (
        "etc/os-release",
        "ID=innkeeper-guest\nNAME=\"Innkeeper guest\"\n",
        0o644,
    ),
];

/// Creates the initial tree of a guest in this slot in an empty directory.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn create(root: &Path, user_ids: UserIds, slot: Slot) -> Result<(), FileError> {
    let id = user_ids.on_disk(slot, 0);
    let owner = Owner { uid: id, gid: id };
    let mut tree = Tree::open(root)?;
    tree.own(owner, 0o755)?;
    for (path, mode) in DIRECTORIES {
        tree.make_dir(Path::new(path), owner, *mode)?;
    }
    for (path, contents, mode) in FILES {
        tree.write(Path::new(path), contents.as_bytes(), owner, *mode)?;
    }
    Ok(())
}
