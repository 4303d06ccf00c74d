//! File trees as plain directories.
//!
//! A guest's tree is `<guests>/<name>/rootfs`. It is built as `<guests>/.<name>.new` and renamed to its place, and renamed
//! to `<guests>/.<name>.gone` before it is removed. So a whole tree or none has the guest's name. A guest's name is a DNS
//! label and never starts with a dot. Snapshots lie beside the tree: [`snapshots`]. Trees of destroyed agents are kept in
//! [`retained`].
//!
//! An empty tree is not synced to the disk. This is correct: a guest's record is written before its tree is created and
//! deleted after its tree was removed. After a loss of power, the tree of a record may be missing (the next `ensure`
//! creates it again), or a tree without a record may have returned (`observe` reports an orphan). Copies are synced.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::{
    FacilityError, FileOwners, Found, FoundRetained, FoundSnapshot, Resource, Rootfs,
};
use innkeeper_model::api::{Check, PoolReport};
use innkeeper_model::{
    FileWork, Guest, GuestName, Ownership, RetainedId, Slot, SnapshotLabel, StorePath,
};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::{RootfsError, profile, skeleton};
use crate::FileErrorExt;
use crate::features::UserIds;
use crate::identity::Identity;
use crate::tree::{self, blocking};

mod backup;
#[cfg(test)]
mod fixture;
mod paths;
pub(super) mod retained;
pub(super) mod snapshots;
pub(super) mod space;
#[cfg(test)]
mod tests;

pub(super) use backup::set_owners;
pub(super) use paths::GuestPaths;
pub(super) use space::check_mode;

use paths::Entry;
use space::{check_space, mode, pool, require_space};

/// The settings of [`DirRootfs`].
#[derive(Clone, Debug)]
pub struct DirConfig {
    /// The directory of the trees. Only root may enter it (0700): otherwise a user of the host could run a setuid program
    /// of a guest.
    pub guests: PathBuf,
    /// The bytes that must be free for a new tree.
    pub min_free: u64,
    /// The owners of a guest's files on disk.
    pub user_ids: UserIds,
    /// Marks guests' directories, outside of the guests' view.
    pub identity: Identity,
}

/// File trees as plain directories.
#[derive(Clone, Debug)]
pub struct DirRootfs {
    config: Arc<DirConfig>,
}

impl DirRootfs {
    /// Creates the driver. It touches no file yet.
    #[must_use]
    pub fn new(config: DirConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// Runs file work on a thread that may block.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirConfig) -> Result<T, RootfsError> + Send + 'static,
    ) -> Result<T, RootfsError> {
        let config = Arc::clone(&self.config);
        blocking(move || work(&config)).await
    }
}

#[async_trait]
impl Resource for DirRootfs {
    fn kind(&self) -> &'static str {
        "rootfs"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.work(observe).await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let guest = guest.clone();
        Ok(self.work(move |config| remove(config, &guest)).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let object = found.object.clone();
        Ok(self.work(move |config| sweep(config, &object)).await?)
    }

    async fn check(&self) -> Vec<Check> {
        let checks = self
            .work(|config| Ok(vec![check_space(config), check_mode(config)]))
            .await;
        checks.unwrap_or_default()
    }
}

#[async_trait]
impl Rootfs for DirRootfs {
    async fn ensure(&self, guest: &Guest) -> Result<(), FacilityError> {
        match &guest.file_work {
            Some(FileWork::CopyOf(origin)) => return Ok(self.copy_guest(guest, origin).await?),
            Some(FileWork::Adopt(id)) => {
                let (name, id) = (guest.name.clone(), *id);
                let adopted = self.work(move |config| retained::adopt(config, &name, id));
                return Ok(adopted.await?);
            }
            _ => {}
        }
        let (name, slot) = (guest.name.clone(), guest.slot);
        let made = self.work(move |config| {
            let paths = GuestPaths::of(config, &name);
            if paths.rootfs().is_dir() {
                return Ok(());
            }
            make_guests(config)?;
            require_space(config)?;
            // A directory without a tree is left when the tree was removed by hand.
            if paths.snapshots().is_dir() {
                tree::remove(&paths.new)?;
            } else {
                remove(config, &name)?;
            }
            let made =
                build(config, &paths.new, config.user_ids, slot).and_then(|()| paths.commit());
            if made.is_err()
                && let Err(error) = tree::remove(&paths.new)
            {
                tracing::warn!("{}", innkeeper_model::chain(&error));
            }
            made
        });
        Ok(made.await?)
    }

    fn renames(&self) -> bool {
        true
    }

    /// nspawn keeps the directory that it has mounted, whatever its name.
    async fn rename(&self, from: &GuestName, to: &GuestName) -> Result<bool, FacilityError> {
        let (from, to) = (from.clone(), to.clone());
        Ok(self.work(move |config| rename(config, &from, &to)).await?)
    }

    async fn require_room(&self) -> Result<(), FacilityError> {
        Ok(self.work(require_space).await?)
    }

    /// A copy is not atomic, and a guest that writes meanwhile would make it inconsistent.
    async fn copies_while_running(&self, _guest: &GuestName) -> Result<bool, FacilityError> {
        Ok(false)
    }

    async fn snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        Ok(self.take(guest, label).await?)
    }

    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, FacilityError> {
        Ok(self.work(snapshots::list).await?)
    }

    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), FacilityError> {
        Ok(self.bring_back(guest, label).await?)
    }

    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        let (guest, label) = (guest.clone(), label.clone());
        let deleted = self.work(move |config| snapshots::delete(config, &guest, &label));
        Ok(deleted.await?)
    }

    async fn open(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        let guest = guest.clone();
        let exists = self.work(move |config| Ok(GuestPaths::of(config, &guest).rootfs().is_dir()));
        Ok(exists.await?)
    }

    async fn own_system(&self, guest: &GuestName) -> Result<Option<StorePath>, FacilityError> {
        let guest = guest.clone();
        let read =
            self.work(move |config| Ok(profile::read(&GuestPaths::of(config, &guest).rootfs())?));
        Ok(read.await?)
    }

    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError> {
        let guest = guest.clone();
        let retained = self.work(move |config| retained::retain(config, &guest, id));
        Ok(retained.await?)
    }

    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError> {
        Ok(self.work(retained::list).await?)
    }

    async fn bytes(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError> {
        let guest = guest.clone();
        Ok(self
            .work(move |config| space::bytes(config, &guest))
            .await?)
    }

    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError> {
        Ok(self.work(move |config| retained::bytes(config, id)).await?)
    }

    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError> {
        let removed = self.work(move |config| retained::remove_retained(config, id));
        Ok(removed.await?)
    }

    async fn export(&self, guest: &GuestName, to: &Path) -> Result<bool, FacilityError> {
        Ok(self.export_tree(guest, to).await?)
    }

    async fn export_bytes(&self, guest: &GuestName, to: &Path) -> Result<u64, FacilityError> {
        let (guest, to) = (guest.clone(), to.to_owned());
        let counted = self.work(move |config| match backup::shares_blocks(config, &to) {
            true => Ok(0),
            false => Ok(space::bytes(config, &guest)?.unwrap_or(0)),
        });
        Ok(counted.await?)
    }

    async fn import(
        &self,
        guest: &Guest,
        from: &Path,
        owners: FileOwners,
    ) -> Result<(), FacilityError> {
        self.import_tree(&guest.name, from).await?;
        let owned = self.work(set_owners(&guest.name, owners)).await;
        if owned.is_err() {
            self.remove(&guest.name).await?;
        }
        Ok(owned?)
    }

    async fn pool(&self) -> Result<PoolReport, FacilityError> {
        Ok(self.work(pool).await?)
    }
}

pub(super) fn observe(config: &DirConfig) -> Result<Vec<Found>, RootfsError> {
    let entries = match fs::read_dir(&config.guests) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", &config.guests)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.on("list", &config.guests)?;
        let guest = match Entry::of(&entry.file_name()) {
            Entry::Guest(guest) => Some(guest),
            Entry::Leftover => None,
            Entry::Retained(_) | Entry::Foreign => continue,
        };
        if let Some(ownership) = owner(config, &entry.path())? {
            found.push(Found {
                guest,
                object: entry.path().display().to_string(),
                ownership,
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the owner of a guest's directory; `None` when it does not exist. One without a mark is this daemon's: it lies in
/// the daemon's state directory, and a copy or a backup may have lost the mark. One with another daemon's mark was moved
/// here.
fn owner(config: &DirConfig, path: &Path) -> Result<Option<Ownership>, RootfsError> {
    match config.identity.owner_of(path) {
        Ok(Some(Ownership::Other)) => Ok(Some(Ownership::Other)),
        Ok(_) => Ok(Some(Ownership::Ours)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Ok(Err(error).on("read the mark of", path)?),
    }
}

pub(super) fn remove(config: &DirConfig, name: &GuestName) -> Result<(), RootfsError> {
    let paths = GuestPaths::of(config, name);
    if owner(config, &paths.guest)? == Some(Ownership::Other) {
        return Ok(());
    }
    tree::remove(&paths.new)?;
    tree::remove(&paths.gone)?;
    match fs::rename(&paths.guest, &paths.gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.on("rename", &paths.guest)?,
    }
    Ok(tree::remove(&paths.gone)?)
}

fn rename(config: &DirConfig, from: &GuestName, to: &GuestName) -> Result<bool, RootfsError> {
    let (former, paths) = (GuestPaths::of(config, from), GuestPaths::of(config, to));
    if owner(config, &former.guest)? != Some(Ownership::Ours) {
        return Ok(true);
    }
    if paths.rootfs().is_dir() {
        return Ok(false);
    }
    // A directory without a tree is left when the tree was removed by hand.
    remove(config, to)?;
    fs::rename(&former.guest, &paths.guest).on("rename", &former.guest)?;
    Ok(true)
}

pub(super) fn sweep(config: &DirConfig, object: &str) -> Result<(), RootfsError> {
    let path = Path::new(object);
    if let Some((guest, label)) = snapshots::at(config, path) {
        return snapshots::delete(config, &guest, &label);
    }
    let entry = match path.file_name() {
        Some(name) if path == config.guests.join(name) => Entry::of(name),
        _ => Entry::Foreign,
    };
    match entry {
        Entry::Guest(name) => remove(config, &name),
        Entry::Retained(_) | Entry::Leftover if owner(config, path)? == Some(Ownership::Other) => {
            Ok(())
        }
        Entry::Retained(_) | Entry::Leftover => Ok(tree::remove(path)?),
        Entry::Foreign => Err(RootfsError::Foreign {
            object: object.to_owned(),
            path: config.guests.clone(),
        }),
    }
}

/// Creates a tree with its skeleton at `rootfs` in a new directory.
pub(super) fn build(
    config: &DirConfig,
    new: &Path,
    user_ids: UserIds,
    slot: Slot,
) -> Result<(), RootfsError> {
    let root = new.join("rootfs");
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private.create(new).on("create", new)?;
    config.identity.mark(new).on("mark", new)?;
    private.create(&root).on("create", &root)?;
    Ok(skeleton::create(&root, user_ids, slot)?)
}

/// Creates the directory of the trees, which only root may enter.
pub(super) fn make_guests(config: &DirConfig) -> Result<(), RootfsError> {
    let guests = &config.guests;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(guests)
        .on("create", guests)?;
    if mode(guests).on("read", guests)? != 0o700 {
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(guests, closed).on("close", guests)?;
    }
    if let Err(error) = spread(guests) {
        tracing::debug!(%error, "the file system has no flag for top-level directories");
    }
    Ok(())
}

/// Has ext4 place each guest's files in a block group of its own, like those of a top-level directory.
///
/// ext4 does not reuse the inodes of removed files for a minute, and each new file passes over all of them in its group.
/// After a few guests were destroyed, that takes longer than the rest of a create. Other file systems have no such flag.
fn spread(guests: &Path) -> io::Result<()> {
    let guests = fs::File::open(guests)?;
    let flags = ioctl_getflags(&guests)?;
    if !flags.contains(IFlags::TOPDIR) {
        ioctl_setflags(&guests, flags | IFlags::TOPDIR)?;
    }
    Ok(())
}
