//! Files that the daemon writes into a running guest.
//!
//! All writes go through [`Tree`]: they stay inside the guest's tree whatever the guest created at the path, and are atomic.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use innkeeper_facilities::{self as facilities, FacilityError, GuestFile};
use innkeeper_model::{Code, Explain, Guest};

use crate::FileError;
use crate::features::UserIds;
use crate::tree::{Owner, Tree, blocking};

/// Writes files into guests' trees.
#[derive(Clone, Debug)]
pub struct GuestFiles {
    /// The directory of the trees; a guest's tree is `<guests>/<name>/rootfs`.
    pub guests: PathBuf,
    /// The owner of a guest's files on disk.
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
