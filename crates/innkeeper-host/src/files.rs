//! Files that the host gives to a guest while it runs.
//!
//! They are written through [`Tree`]: whatever the guest has put in their place, the write stays inside its
//! tree, and a reader sees the former file or the new one.

use std::path::{Path, PathBuf};

use innkeeper_model::Guest;

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree, blocking};

/// A file for a guest.
#[derive(Clone)]
pub struct GuestFile {
    /// Where, as the guest counts, such as `/etc/preview.env`.
    pub path: &'static str,
    /// What is in it; nothing removes it.
    pub contents: Option<Vec<u8>>,
    /// The guest's group that may read it, besides root.
    pub group: u32,
}

/// Writes into guests' trees.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// The directory of the trees; a guest's tree is `<guests>/<name>/rootfs`.
    pub guests: PathBuf,
    /// Who owns a guest's files on disk.
    pub user_ids: UserIds,
}

impl GuestFiles {
    /// Writes files that belong to the guest's root and are readable by their groups (mode 0640), and removes
    /// those without contents.
    ///
    /// # Errors
    /// When the tree is not there, or one cannot be written; those before it are there then.
    pub async fn write(&self, guest: &Guest, files: Vec<GuestFile>) -> Result<(), FileError> {
        let root = self.guests.join(guest.name.as_str()).join("rootfs");
        let (user_ids, slot) = (self.user_ids, guest.slot);
        blocking(move || {
            let tree = Tree::open(&root)?;
            for file in files {
                let path = Path::new(file.path.trim_start_matches('/'));
                let owner = Owner {
                    uid: user_ids.on_disk(slot, 0),
                    gid: user_ids.on_disk(slot, file.group),
                };
                match file.contents {
                    Some(contents) => tree.write(path, &contents, owner, 0o640)?,
                    None => tree.remove(path)?,
                }
            }
            Ok(())
        })
        .await
    }
}
