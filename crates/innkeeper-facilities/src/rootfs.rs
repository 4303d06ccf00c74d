//! File trees of guests.

use std::path::Path;

use async_trait::async_trait;
use innkeeper_model::api::PoolReport;
use innkeeper_model::{
    Code, Explain, Guest, GuestName, Ownership, RetainedId, SnapshotLabel, StorePath,
};
use serde::{Deserialize, Serialize};

use crate::error::FacilityError;
use crate::resource::Resource;

/// The owners of a guest's files in a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileOwners {
    /// The ids in the guest.
    Guest,
    /// The ids that the guest's slot had on its host, whose file system has no idmapped mounts.
    Slot,
}

/// A snapshot on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundSnapshot {
    /// The guest whose files it holds.
    pub guest: GuestName,
    /// The label.
    pub label: SnapshotLabel,
    /// Its name on the host, for [`Resource::sweep`].
    pub object: String,
    /// Its owner. Snapshots of another daemon are not listed.
    pub ownership: Ownership,
}

/// Files of a destroyed agent on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundRetained {
    /// Their number.
    pub id: RetainedId,
    /// Their name on the host, for [`Resource::sweep`].
    pub object: String,
}

/// Files of a destroyed agent that are recorded and no longer on the host.
#[derive(Debug, thiserror::Error)]
#[error("the files {id} of a destroyed agent are gone from the host")]
pub struct FilesMissing {
    /// Their number.
    pub id: RetainedId,
}

impl Explain for FilesMissing {
    fn code(&self) -> Code {
        Code::RetainedNotFound
    }

    fn remedy(&self) -> Option<String> {
        Some(
            "They were removed outside of Innkeeper: restore them from a backup, or create the agent again (`agent create`)."
                .to_owned(),
        )
    }
}

impl From<FilesMissing> for FacilityError {
    fn from(error: FilesMissing) -> Self {
        Self::new(error)
    }
}

/// File trees of guests, and their snapshots. Removing a guest's tree removes its snapshots too.
#[async_trait]
pub trait Rootfs: Resource {
    /// Creates the guest's file tree if it has none: as a copy or from retained files if the guest's [file work] is
    /// that, and empty otherwise. A tree exists as a whole or not at all.
    ///
    /// [file work]: innkeeper_model::FileWork
    ///
    /// # Errors
    /// When it cannot be created, above all for lack of space. No part of it is left then.
    async fn ensure(&self, guest: &Guest) -> Result<(), FacilityError>;

    /// Marks the guest's objects if a former release created them without a mark.
    ///
    /// # Errors
    /// When the host cannot be queried, or refuses.
    async fn adopt(&self, _guest: &GuestName) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Reports whether the file tree of a guest that waits at its door can get another name at once: [`Self::rename`].
    fn renames(&self) -> bool {
        false
    }

    /// Gives the file tree of the guest `from` to the guest `to`, also while `from` waits at its door. Has no effect if it has
    /// been given already or does not exist. Returns false if `to` has another tree: both keep theirs.
    ///
    /// # Errors
    /// When it cannot be renamed.
    async fn rename(&self, _from: &GuestName, _to: &GuestName) -> Result<bool, FacilityError> {
        Ok(true)
    }

    /// Fails unless another tree or snapshot has room.
    ///
    /// # Errors
    /// When it has none, or the free space cannot be determined.
    async fn require_room(&self) -> Result<(), FacilityError>;

    /// Reports whether a consistent copy of a guest's files can be taken while it runs.
    ///
    /// # Errors
    /// When the host cannot be queried.
    async fn copies_while_running(&self, guest: &GuestName) -> Result<bool, FacilityError>;

    /// Takes a snapshot of the guest's files. Replaces a snapshot of that label: it is an orphan or unfinished.
    ///
    /// # Errors
    /// When it cannot be taken. No part of it is left then.
    async fn snapshot(&self, guest: &GuestName, label: &SnapshotLabel)
    -> Result<(), FacilityError>;

    /// Lists the snapshots of all guests.
    ///
    /// # Errors
    /// When the host cannot be queried.
    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, FacilityError>;

    /// Restores the guest's files from a snapshot, which stays. The guest must not run. One whole tree exists after
    /// success and failure alike.
    ///
    /// # Errors
    /// When the snapshot does not exist or cannot be restored. [`Self::ensure`] then finds the former files.
    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), FacilityError>;

    /// Deletes a snapshot, or the remains of one.
    ///
    /// # Errors
    /// When a part of it is left.
    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError>;

    /// Mounts the guest's file tree at its place, without starting anything. Reports whether it has one.
    ///
    /// # Errors
    /// When it cannot be mounted.
    async fn open(&self, guest: &GuestName) -> Result<bool, FacilityError>;

    /// Returns the system that the guest's Nix profile `system` names; `None` if it names none. The guest must be alive, or
    /// [open](Self::open), so that its file tree is at its place. Resolves links only inside the tree, and nothing in the store.
    ///
    /// # Errors
    /// When the tree cannot be read.
    async fn own_system(&self, guest: &GuestName) -> Result<Option<StorePath>, FacilityError>;

    /// Moves the guest's file tree to a number, with everything attached to it except its snapshots, so that no object
    /// is left under the guest's name. Needs no space. The guest must not run. Reports whether a tree with that
    /// number exists now; if not, objects may be left under the guest's name.
    ///
    /// # Errors
    /// When the tree cannot be moved.
    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError>;

    /// Lists the retained file trees. [`Resource::observe`] does not list them.
    ///
    /// # Errors
    /// When the host cannot be queried.
    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError>;

    /// Returns the space that a guest's file tree takes, in bytes, as far as it can be counted within a short time; `None`
    /// without a tree.
    ///
    /// # Errors
    /// When the tree cannot be read.
    async fn bytes(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError>;

    /// Returns the space that a retained file tree takes, in bytes, as far as it can be counted within a short time.
    ///
    /// # Errors
    /// When the tree does not exist or cannot be read.
    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError>;

    /// Removes a retained file tree.
    ///
    /// # Errors
    /// When a part of it is left.
    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError>;

    /// Copies the guest's files to `to`, which must not exist, for a backup. Takes a temporary snapshot if
    /// [`Self::copies_while_running`]; otherwise the guest must not run, or be frozen. Reports whether the guest has files.
    ///
    /// # Errors
    /// When the copy fails. A part of it may be left.
    async fn export(&self, guest: &GuestName, to: &Path) -> Result<bool, FacilityError>;

    /// Returns the least space that [`Self::export`] of the guest's files takes in the directory `to`, in bytes, as far as it
    /// can be counted within a short time. Blocks that a copy shares with the files take none.
    ///
    /// # Errors
    /// When the files cannot be read.
    async fn export_bytes(&self, guest: &GuestName, _to: &Path) -> Result<u64, FacilityError> {
        Ok(self.bytes(guest).await?.unwrap_or(0))
    }

    /// Removes what an interrupted [`Self::export`] of the guest's files left on the host, apart from the copy.
    ///
    /// # Errors
    /// When a part is left.
    async fn abandon_export(&self, _guest: &GuestName) -> Result<(), FacilityError> {
        Ok(())
    }

    /// Creates the guest's file tree as a copy of `from`, a directory that [`Self::export`] has written with these owners.
    /// Replaces a tree of this daemon that has the guest's name.
    ///
    /// # Errors
    /// When the copy fails. No part of it is left then.
    async fn import(
        &self,
        guest: &Guest,
        from: &Path,
        owners: FileOwners,
    ) -> Result<(), FacilityError>;

    /// Returns the location of the files, its size and its use.
    ///
    /// # Errors
    /// When the host cannot be queried.
    async fn pool(&self) -> Result<PoolReport, FacilityError>;
}
