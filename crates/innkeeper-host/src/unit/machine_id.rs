//! `/etc/machine-id`, the one file of a guest's tree that nspawn opens at the start.
//!
//! nspawn opens it by its path on the host (`setup_machine_id` in systemd's `nspawn.c`). It would block forever on a FIFO,
//! and follow a link to the host's own id, which the guest would then read in `container_uuid`. The guest does not run at
//! that time, so nspawn opens the file that is checked here. It opens `/etc/os-release` and `/usr/lib/os-release` only
//! with `--boot`, which is not used.

use std::path::Path;

use rustix::fs::FileType;

use crate::FileError;
use crate::tree::{Owner, Tree};

/// The maximum size that is read. An id and a newline have 33 bytes.
const MAX_LEN: usize = 64;

/// Makes `/etc/machine-id` a regular file in a real directory, unless it is absent. Keeps an id that the guest itself
/// can read there.
pub(super) fn settle(root: &Path, owner: Owner) -> Result<(), FileError> {
    let tree = Tree::open(root)?;
    let (etc, file) = (Path::new("etc"), Path::new("etc/machine-id"));
    let contents = tree.read(file, MAX_LEN);
    let mut is_replaced = !matches!(tree.kind(etc)?, None | Some(FileType::Directory));
    if is_replaced {
        tree.make_dir(etc, owner, 0o755)?;
    }
    is_replaced |= !matches!(tree.kind(file)?, None | Some(FileType::RegularFile));
    if is_replaced {
        tree.write(file, &contents.unwrap_or_default(), owner, 0o444)?;
    }
    Ok(())
}
