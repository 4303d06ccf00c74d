//! The one file of a guest's tree that nspawn opens while it starts the guest: `/etc/machine-id`.
//!
//! nspawn opens it by its path on the host (`setup_machine_id` in systemd's `nspawn.c`). It would wait at a FIFO without
//! end, and follow a link to the host's own files, whose id the guest then had in `container_uuid`. The guest does not run
//! at that time, so the file that is left here is the one that nspawn opens. `/etc/os-release` and
//! `/usr/lib/os-release` are opened with `--boot` only, which is not used.

use std::path::Path;

use rustix::fs::FileType;

use crate::FileError;
use crate::tree::{Owner, Tree};

/// An id and a line's end have 33 bytes.
const MAX_LEN: usize = 64;

/// Makes `/etc/machine-id` a regular file in a real directory, unless it is absent. An id that the guest itself could
/// read there stays.
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
