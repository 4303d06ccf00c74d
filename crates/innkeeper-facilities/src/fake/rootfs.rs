//! File trees in memory.

use std::path::Path;

use async_trait::async_trait;
use innkeeper_model::api::PoolReport;
use innkeeper_model::{
    Code, FileWork, Guest, GuestName, Origin, Ownership, RetainedId, SnapshotLabel, StorePath,
};

use super::error::injected;
use super::part::Part;
use crate::error::FacilityError;
use crate::rootfs::{FileOwners, FilesMissing, FoundRetained, FoundSnapshot, Rootfs};

fn full() -> FacilityError {
    injected("rootfs.require_room", Code::DiskFull)
}

#[async_trait]
impl Rootfs for Part {
    async fn ensure(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.call("rootfs.ensure", Some(&guest.name))?;
        let mut world = self.host.world();
        if world.trees.contains_key(&guest.name) {
            return Ok(());
        }
        if let Some(FileWork::Adopt(id)) = &guest.file_work {
            let files = world.retained.remove(id);
            let files = files.ok_or(FilesMissing { id: *id })?;
            world.trees.insert(guest.name.clone(), files);
            return Ok(());
        }
        if world.is_crowded() {
            return Err(full());
        }
        let files = match &guest.file_work {
            Some(FileWork::CopyOf(Origin { guest, snapshot })) => match snapshot {
                None => world.trees.get(guest).cloned(),
                Some(label) => world
                    .snapshots
                    .get(&(guest.clone(), label.clone()))
                    .cloned(),
            },
            _ => Some(String::new()),
        };
        let files =
            files.ok_or_else(|| injected("rootfs.ensure of nothing", Code::RootfsFailed))?;
        world.trees.entry(guest.name.clone()).or_insert(files);
        Ok(())
    }

    fn renames(&self) -> bool {
        true
    }

    async fn rename(&self, from: &GuestName, to: &GuestName) -> Result<bool, FacilityError> {
        self.call("rootfs.rename", Some(to))?;
        let mut world = self.host.world();
        if world.trees.contains_key(from) && world.trees.contains_key(to) {
            return Ok(false);
        }
        if let Some(files) = world.trees.remove(from) {
            world.trees.insert(to.clone(), files);
        }
        Ok(true)
    }

    async fn require_room(&self) -> Result<(), FacilityError> {
        let world = self.host.world();
        match world.full {
            true => Err(injected("rootfs.require_room", Code::RootfsFailed)),
            false if world.is_crowded() => Err(full()),
            false => Ok(()),
        }
    }

    async fn open(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        self.call("rootfs.open", Some(guest))?;
        Ok(self.host.world().trees.contains_key(guest))
    }

    async fn own_system(&self, guest: &GuestName) -> Result<Option<StorePath>, FacilityError> {
        self.query("rootfs.own_system")?;
        Ok(self.host.world().profiles.get(guest).cloned())
    }

    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError> {
        self.call("rootfs.retain", Some(guest))?;
        let mut world = self.host.world();
        world.snapshots.retain(|(of, _), _| of != guest);
        world.guest_files.retain(|(of, _), _| of != guest);
        if let Some(files) = world.trees.remove(guest) {
            world.retained.insert(id, files);
        }
        Ok(world.retained.contains_key(&id))
    }

    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError> {
        let world = self.host.world();
        let found = world.retained.keys().map(|id| FoundRetained {
            id: *id,
            object: format!("retained-{id}"),
        });
        Ok(found.collect())
    }

    async fn bytes(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError> {
        self.call("rootfs.bytes", Some(guest))?;
        let world = self.host.world();
        let files = world.trees.get(guest);
        Ok(files.map(|files| files.len() as u64))
    }

    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError> {
        let world = self.host.world();
        let files = world.retained.get(&id);
        let files = files.ok_or(FilesMissing { id })?;
        Ok(files.len() as u64)
    }

    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError> {
        self.call("rootfs.remove_retained", None)?;
        let _open = self.host.removals.read().await;
        self.host.world().retained.remove(&id);
        Ok(())
    }

    async fn export(&self, guest: &GuestName, to: &Path) -> Result<bool, FacilityError> {
        self.call("rootfs.export", Some(guest))?;
        let _open = self.host.exports.read().await;
        let files = self.host.world().trees.get(guest).cloned();
        let Some(files) = files else {
            return Ok(false);
        };
        std::fs::create_dir(to)
            .and_then(|()| std::fs::write(to.join("files"), files))
            .map_err(|_| injected("rootfs.export to the directory", Code::RootfsFailed))?;
        Ok(true)
    }

    async fn import(
        &self,
        guest: &Guest,
        from: &Path,
        _owners: FileOwners,
    ) -> Result<(), FacilityError> {
        self.call("rootfs.import", Some(&guest.name))?;
        let files = std::fs::read_to_string(from.join("files"))
            .map_err(|_| injected("rootfs.import of nothing", Code::RootfsFailed))?;
        self.host.world().trees.insert(guest.name.clone(), files);
        Ok(())
    }

    async fn copies_while_running(&self, _: &GuestName) -> Result<bool, FacilityError> {
        Ok(!self.host.world().plain)
    }

    async fn snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.call("rootfs.snapshot", Some(guest))?;
        let mut world = self.host.world();
        let files = world.trees.get(guest).cloned().unwrap_or_default();
        world
            .snapshots
            .insert((guest.clone(), label.clone()), files);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, FacilityError> {
        let world = self.host.world();
        let found = world.snapshots.keys().map(|(guest, label)| FoundSnapshot {
            guest: guest.clone(),
            label: label.clone(),
            object: format!("{guest}.{label}"),
            ownership: Ownership::Ours,
        });
        Ok(found.collect())
    }

    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), FacilityError> {
        self.call("rootfs.restore", Some(guest))?;
        let mut world = self.host.world();
        let key = (guest.clone(), label.clone());
        let files = world.snapshots.get(&key).cloned();
        let files =
            files.ok_or_else(|| injected("rootfs.restore of nothing", Code::RootfsFailed))?;
        world.trees.insert(guest.clone(), files);
        Ok(())
    }

    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.call("rootfs.delete_snapshot", Some(guest))?;
        let key = (guest.clone(), label.clone());
        self.host.world().snapshots.remove(&key);
        Ok(())
    }

    async fn pool(&self) -> Result<PoolReport, FacilityError> {
        Err(injected("rootfs.pool", Code::RootfsFailed))
    }
}
