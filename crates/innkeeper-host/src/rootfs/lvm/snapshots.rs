//! Snapshots of volumes, and guests that start as a copy.
//!
//! A snapshot is the volume `innkeeper-snap-<guest>.<label>`, which is never active. LVM creates it atomically, and freezes
//! the file system of a running guest meanwhile. Restored trees and copies are snapshots of the snapshot.

use innkeeper_facilities::{FacilityError, FoundSnapshot, Rootfs};
use innkeeper_model::api::{PoolReport, PoolVolume, RetainedSpace};
use innkeeper_model::{Guest, GuestName, Origin, Ownership, SnapshotLabel};

use super::report::{
    Pool, Volume, Volumes, gone_volume, guest_volume, new_volume, snapshot_volume,
};
use super::{LvmRootfs, make_room};
use crate::rootfs::RootfsError;
use crate::rootfs::dir::{GuestPaths, snapshots};

impl LvmRootfs {
    /// Creates the volume of a guest that starts as a copy, with the size of the source.
    pub(super) async fn copy_volume(
        &self,
        guest: &Guest,
        origin: &Origin,
        volumes: &Volumes,
    ) -> Result<(), FacilityError> {
        let (from, is_there) = match &origin.snapshot {
            None => (
                guest_volume(&origin.guest),
                self.settle(&origin.guest, volumes).await?,
            ),
            Some(label) => {
                let snapshot = snapshot_volume(&origin.guest, label);
                let is_there = volumes.has(&self.config.pool, &snapshot);
                (snapshot, is_there)
            }
        };
        if !is_there {
            // The source's tree is a directory, so the copy's is one too.
            return self.dir.ensure(guest).await;
        }
        self.require_pool(volumes).await?;
        let volume = guest_volume(&guest.name);
        Ok(self.tools().snapshot(&from, &volume).await?)
    }

    pub(super) async fn take(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        let (pool, volume) = (&self.config.pool, snapshot_volume(guest, label));
        let volumes = self.tools().volumes().await?;
        self.require_ours(guest, &volumes)?;
        let tree = guest_volume(guest);
        if !self.settle(guest, &volumes).await? {
            return self.dir.snapshot(guest, label).await;
        }
        self.require_pool(&volumes).await?;
        if volumes.has(pool, &volume) {
            self.tools().remove(&volume).await?;
        }
        Ok(self.tools().inactive_snapshot(&tree, &volume).await?)
    }

    /// Replaces a guest's volume. The new one is created first. Between the two renames the former one has another name,
    /// by which [`Self::settle`] finds it. After them the replacement is complete, even if the former one cannot be removed.
    pub(super) async fn bring_back(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        let (tools, pool) = (self.tools(), &self.config.pool);
        let snapshot = snapshot_volume(guest, label);
        let mut volumes = tools.volumes().await?;
        self.require_ours(guest, &volumes)?;
        if !volumes.has(pool, &snapshot) {
            return self.dir.restore(guest, label).await;
        }
        self.settle(guest, &volumes).await?;
        volumes = tools.volumes().await?;
        self.require_pool(&volumes).await?;
        let (tree, new, gone) = (guest_volume(guest), new_volume(guest), gone_volume(guest));
        if volumes.has(pool, &new) {
            tools.remove(&new).await?;
        }
        tools.snapshot(&snapshot, &new).await?;
        tools
            .unmount(&GuestPaths::of(&self.config.dir, guest).rootfs())
            .await?;
        if volumes.has(pool, &tree) {
            if volumes.has(pool, &gone) {
                tools.remove(&gone).await?;
            }
            tools.rename(&tree, &gone).await?;
        }
        tools.rename(&new, &tree).await?;
        if volumes.has(pool, &tree) {
            self.let_go(&gone).await;
        }
        Ok(())
    }

    /// Removes an unneeded volume; if that fails, [`Self::settle`] removes it later.
    async fn let_go(&self, volume: &str) {
        if let Err(error) = self.tools().remove(volume).await {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
    }

    /// Completes an interrupted replacement: renames the former volume back if the replacement has not taken its place, and
    /// removes it otherwise. Reports whether the guest has a volume.
    pub(super) async fn settle(
        &self,
        guest: &GuestName,
        volumes: &Volumes,
    ) -> Result<bool, RootfsError> {
        let (pool, tree, gone) = (&self.config.pool, guest_volume(guest), gone_volume(guest));
        if volumes.has(pool, &tree) {
            if volumes.has(pool, &gone) {
                self.let_go(&gone).await;
            }
            return Ok(true);
        }
        if !volumes.has(pool, &gone) {
            return Ok(false);
        }
        self.tools().rename(&gone, &tree).await?;
        Ok(true)
    }

    pub(super) async fn delete(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        let volume = snapshot_volume(guest, label);
        let volumes = self.tools().volumes().await?;
        self.require_ours(guest, &volumes)?;
        if volumes.has(&self.config.pool, &volume) {
            self.tools().remove(&volume).await?;
        }
        self.dir.delete_snapshot(guest, label).await
    }

    pub(super) async fn list(&self) -> Result<Vec<FoundSnapshot>, RootfsError> {
        let volumes = self.tools().volumes().await?;
        let mut found = self.work(snapshots::list).await?;
        for row in volumes.rows(&self.config.pool) {
            let ownership = self.owner(row);
            if ownership == Ownership::Other {
                continue;
            }
            if let Volume::Snapshot(guest, label) = Volume::of(&row.lv_name, "") {
                let object = self.tools().name(&row.lv_name);
                found.push(FoundSnapshot {
                    guest,
                    label,
                    object,
                    ownership,
                });
            }
        }
        Ok(found)
    }

    /// Reports whether the guest's files are on a volume, and not in a directory.
    pub(super) async fn has_volume(&self, guest: &GuestName) -> Result<bool, RootfsError> {
        let volumes = self.tools().volumes().await?;
        Ok(volumes.has(&self.config.pool, &guest_volume(guest)))
    }

    pub(super) async fn report(&self) -> Result<PoolReport, RootfsError> {
        let pool = self.pool();
        let volumes = self.tools().volumes().await?;
        let used = match volumes.pool(&self.config.pool) {
            Pool::Missing => return Err(RootfsError::NoPool { pool }),
            Pool::Inactive => None,
            Pool::Active(used) => Some(used),
        };
        let limit = self.config.limit;
        let full = used.filter(|used| used.reaches(limit));
        Ok(PoolReport {
            driver: "lvm-thin".to_owned(),
            size_bytes: volumes.size(&self.config.pool),
            data_percent: used.map_or(0.0, |used| used.data),
            metadata_percent: used.map(|used| used.metadata),
            limit_percent: Some(limit),
            min_free_bytes: None,
            retained: RetainedSpace::default(),
            remedy: full.map(|used| make_room(&pool, used, limit)),
            volumes: volumes.rows(&self.config.pool).map(described).collect(),
            place: pool,
        })
    }
}

fn described(row: &super::report::Row) -> PoolVolume {
    let volume = Volume::of(&row.lv_name, "");
    PoolVolume {
        name: row.lv_name.clone(),
        guest: volume.guest().cloned(),
        snapshot: match volume {
            Volume::Snapshot(_, label) => Some(label),
            _ => None,
        },
        size_bytes: row.size(),
        data_percent: row.data_percent.parse().ok(),
    }
}
