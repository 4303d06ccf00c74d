//! Files that the host gives to a guest while it runs.
//!
//! They are written through [`Tree`]: whatever the guest has put in their place, the write stays inside its
//! tree, and a reader sees the former file or the new one.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use innkeeper_facilities::{self as facilities, FacilityError, GuestFile};
use innkeeper_model::{Code, Explain, Guest};

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree, blocking};

/// Writes into guests' trees.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// The directory of the trees; a guest's tree is `<guests>/<name>/rootfs`.
    pub guests: PathBuf,
    /// Who owns a guest's files on disk.
    pub user_ids: UserIds,
}

#[async_trait]
impl facilities::GuestFiles for GuestFiles {
    async fn write(&self, guest: &Guest, files: Vec<GuestFile>) -> Result<(), FacilityError> {
        let root = self.guests.join(guest.name.as_str()).join("rootfs");
        let (user_ids, slot) = (self.user_ids, guest.slot);
        let written: Result<(), FileError> = blocking(move || {
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
        .await;
        Ok(written.map_err(GuestFileError)?)
    }
}

/// A file that could not be written into a guest.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct GuestFileError(FileError);

impl Explain for GuestFileError {
    fn code(&self) -> Code {
        self.0.code_or(Code::RootfsFailed)
    }

    fn remedy(&self) -> Option<String> {
        self.0.remedy()
    }
}

impl From<GuestFileError> for FacilityError {
    fn from(error: GuestFileError) -> Self {
        Self::new(error)
    }
}
