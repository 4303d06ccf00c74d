//! Retained volumes of destroyed agents.
//!
//! A rename turns a guest's volume into `innkeeper-retained-<number>` and back; its tags stay. Its snapshots are removed. A
//! tree that is a directory is retained as one.

use innkeeper_facilities::FoundRetained;
use innkeeper_model::{GuestName, RetainedId};

use super::report::{Volume, guest_volume, retained_volume};
use super::{LvmRootfs, holds_something};
use crate::rootfs::RootfsError;
use crate::rootfs::dir::{self, GuestPaths, retained, space};

impl LvmRootfs {
    /// Mounts a guest's volume, if it has one. Reports whether the guest has a tree then.
    pub(super) async fn open_tree(&self, guest: &GuestName) -> Result<bool, RootfsError> {
        let point = GuestPaths::of(&self.config.dir, guest).rootfs();
        if self.tools().is_mounted(&point)? {
            return Ok(true);
        }
        let volumes = self.tools().volumes().await?;
        if self.settle(guest, &volumes).await? {
            self.mount(guest, &guest_volume(guest), true).await?;
            return Ok(true);
        }
        holds_something(&point)
    }

    pub(super) async fn retain_tree(
        &self,
        guest: &GuestName,
        id: RetainedId,
    ) -> Result<bool, RootfsError> {
        let (tools, pool) = (self.tools(), &self.config.pool);
        let point = GuestPaths::of(&self.config.dir, guest).rootfs();
        let kept = retained_volume(id);
        let mut volumes = tools.volumes().await?;
        self.require_ours(guest, &volumes)?;
        self.require_ours_kept(id, &volumes)?;
        let is_there = self.settle(guest, &volumes).await?;
        if !is_there && !volumes.has(pool, &kept) {
            // Without its volume, the mount point is an empty directory.
            let nothing =
                !holds_something(&point)? && GuestPaths::of(&self.config.dir, guest).exists();
            if nothing {
                return Ok(false);
            }
            let guest = guest.clone();
            return self
                .work(move |config| retained::retain(config, &guest, id))
                .await;
        }
        tools.unmount(&point).await?;
        if is_there && volumes.has(pool, &kept) {
            // A rename moves the only volume with this number, so this one is of another database.
            tools.remove(&kept).await?;
        }
        volumes = tools.volumes().await?;
        let tree = guest_volume(guest);
        for volume in volumes.thin(pool) {
            if volume != tree && self.volume(volume).guest() == Some(guest) {
                tools.remove(volume).await?;
            }
        }
        if is_there {
            tools.rename(&tree, &kept).await?;
        }
        let guest = guest.clone();
        self.work(move |config| dir::remove(config, &guest)).await?;
        Ok(true)
    }

    /// Turns a retained volume into that of a guest, unless it is already. Reports whether it exists.
    pub(super) async fn adopt_volume(
        &self,
        guest: &GuestName,
        id: RetainedId,
    ) -> Result<bool, RootfsError> {
        let (pool, kept) = (&self.config.pool, retained_volume(id));
        let volumes = self.tools().volumes().await?;
        self.require_ours(guest, &volumes)?;
        self.require_ours_kept(id, &volumes)?;
        if !volumes.has(pool, &kept) {
            return Ok(volumes.has(pool, &guest_volume(guest)));
        }
        // A volume under the guest's name is a leftover: the rename would have failed otherwise.
        self.remove_tree(guest).await?;
        self.tools().rename(&kept, &guest_volume(guest)).await?;
        Ok(true)
    }

    pub(super) async fn list_retained(&self) -> Result<Vec<FoundRetained>, RootfsError> {
        let volumes = self.tools().volumes().await?;
        let mut found = self.work(retained::list).await?;
        for row in volumes.rows(&self.config.pool) {
            if !self.config.dir.identity.may_change(self.owner(row)) {
                continue;
            }
            if let Volume::Retained(id) = self.volume(&row.lv_name) {
                let object = self.tools().name(&row.lv_name);
                found.push(FoundRetained { id, object });
            }
        }
        Ok(found)
    }

    /// Returns the bytes that a guest's tree takes, including blocks that it shares with the template; `None` without a
    /// tree.
    pub(super) async fn guest_bytes(&self, guest: &GuestName) -> Result<Option<u64>, RootfsError> {
        let (volumes, own) = (self.tools().volumes().await?, guest_volume(guest));
        match volumes
            .rows(&self.config.pool)
            .find(|row| row.lv_name == own)
        {
            Some(row) => Ok(Some(row.used())),
            // A tree from before the volumes.
            None => {
                let guest = guest.clone();
                self.work(move |config| space::bytes(config, &guest)).await
            }
        }
    }

    /// Returns the bytes that a retained tree takes, including blocks that it shares with the template.
    pub(super) async fn bytes_of(&self, id: RetainedId) -> Result<u64, RootfsError> {
        let (volumes, kept) = (self.tools().volumes().await?, retained_volume(id));
        match volumes
            .rows(&self.config.pool)
            .find(|row| row.lv_name == kept)
        {
            Some(row) => Ok(row.used()),
            None => self.work(move |config| retained::bytes(config, id)).await,
        }
    }

    pub(super) async fn remove_kept(&self, id: RetainedId) -> Result<(), RootfsError> {
        let (volumes, kept) = (self.tools().volumes().await?, retained_volume(id));
        self.require_ours_kept(id, &volumes)?;
        if volumes.has(&self.config.pool, &kept) {
            self.tools().remove(&kept).await?;
        }
        self.work(move |config| retained::remove_retained(config, id))
            .await
    }
}
