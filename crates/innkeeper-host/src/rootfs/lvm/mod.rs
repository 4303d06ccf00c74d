//! File trees on thin volumes of LVM (lvmthin(7)), one for each guest.
//!
//! A guest's volume is `innkeeper-guest-<name>`, mounted at `<guests>/<name>/rootfs`, where the other driver has a
//! directory. It starts as a snapshot of a template, an ext4 file system of the configured size with only a guest's
//! initial files. So a new guest takes only the space that it writes, and at most that size.
//!
//! One call of LVM creates the volume with its contents, so a whole tree or none has the guest's name. The template is
//! created under another name first. Mounts are lost in a reboot, and `ensure` mounts again.
//!
//! A full pool breaks every file system in it, so no guest is added to a nearly full one. A guest whose tree is a plain
//! directory, because it was created with the other driver, keeps that.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use innkeeper_facilities::{
    FacilityError, FileOwners, Found, FoundRetained, FoundSnapshot, Resource, Rootfs,
};
use innkeeper_model::api::{Check, PoolReport, Verdict};
use innkeeper_model::{
    Explain, FileWork, Guest, GuestName, Ownership, RetainedId, Slot, SnapshotLabel, StorePath,
};
use tokio::sync::Mutex;

use super::dir::{self, DirConfig, GuestPaths};
use super::{DirRootfs, RootfsError, profile};
use crate::command::CommandError;
use crate::features::UserIds;
use crate::tree::{self, blocking};
use crate::{FileError, FileErrorExt};

mod backup;
mod report;
mod retained;
mod snapshots;
#[cfg(test)]
mod tests;
mod tools;

pub use report::PoolUse;
use report::{NEW_TEMPLATE, Pool, Row, Volume, Volumes, guest_volume, template_volume};
use tools::Tools;

/// The settings of [`LvmRootfs`].
#[derive(Clone, Debug)]
pub struct LvmConfig {
    /// The directories of the mount points.
    pub dir: DirConfig,
    /// The volume group.
    pub volume_group: String,
    /// The thin pool in it.
    pub pool: String,
    /// The size of a guest's volume in bytes.
    pub size: u64,
    /// The use of the pool's data or metadata above which no volume is added, in percent.
    pub limit: u8,
    /// The mount namespace in which guests are started, if it is not the daemon's. Its mounts must propagate to the
    /// daemon's, as they do in a namespace that systemd created for the daemon's unit.
    pub mount_namespace: Option<PathBuf>,
}

/// File trees on thin volumes.
#[derive(Clone, Debug)]
pub struct LvmRootfs {
    config: Arc<LvmConfig>,
    /// The directories in which volumes are mounted.
    dir: DirRootfs,
    /// Held during the search for the template and its creation.
    template: Arc<Mutex<()>>,
}

impl LvmRootfs {
    /// Creates the driver. It touches no volume yet.
    #[must_use]
    pub fn new(config: LvmConfig) -> Self {
        Self {
            dir: DirRootfs::new(config.dir.clone()),
            config: Arc::new(config),
            template: Arc::default(),
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools(&self.config)
    }

    fn pool(&self) -> String {
        self.tools().name(&self.config.pool)
    }

    fn template_volume(&self) -> String {
        template_volume(self.config.size)
    }

    fn volume(&self, name: &str) -> Volume {
        Volume::of(name, &self.template_volume())
    }

    /// Runs file work on a thread that may block.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirConfig) -> Result<T, RootfsError> + Send + 'static,
    ) -> Result<T, RootfsError> {
        let config = Arc::clone(&self.config);
        blocking(move || work(&config.dir)).await
    }

    async fn observe_volumes(&self) -> Result<Vec<Found>, RootfsError> {
        let volumes = self.tools().volumes().await?;
        let mut found = Vec::new();
        for row in volumes.rows(&self.config.pool) {
            let volume = self.volume(&row.lv_name);
            if matches!(
                volume,
                Volume::Retained(_) | Volume::Template | Volume::Foreign
            ) {
                continue;
            }
            found.push(Found {
                guest: volume.guest().cloned(),
                object: self.tools().name(&row.lv_name),
                ownership: self.owner(row),
            });
        }
        Ok(found)
    }

    fn owner(&self, row: &Row) -> Ownership {
        self.config.dir.identity.ownership(row.daemon().as_ref())
    }

    /// Fails if a volume of the guest is not this daemon's.
    fn require_ours(&self, guest: &GuestName, volumes: &Volumes) -> Result<(), RootfsError> {
        self.require(volumes, |volume| volume.guest() == Some(guest))
    }

    /// Fails if the volume of retained files is not this daemon's.
    fn require_ours_kept(&self, id: RetainedId, volumes: &Volumes) -> Result<(), RootfsError> {
        self.require(volumes, |volume| *volume == Volume::Retained(id))
    }

    fn require(
        &self,
        volumes: &Volumes,
        is_asked: impl Fn(&Volume) -> bool,
    ) -> Result<(), RootfsError> {
        let is_foreign = |row: &&Row| {
            is_asked(&self.volume(&row.lv_name))
                && !self.config.dir.identity.may_change(self.owner(row))
        };
        match volumes.rows(&self.config.pool).find(is_foreign) {
            None => Ok(()),
            Some(row) => Err(RootfsError::OtherDaemon {
                volume: self.tools().name(&row.lv_name),
            }),
        }
    }

    /// Marks the volumes of a guest if a former release created them.
    async fn mark_former(&self, guest: &GuestName) -> Result<(), RootfsError> {
        let volumes = self.tools().volumes().await?;
        for row in volumes.rows(&self.config.pool) {
            let is_guests = self.volume(&row.lv_name).guest() == Some(guest);
            if is_guests && self.owner(row) == Ownership::Unmarked {
                self.tools().mark(&row.lv_name).await?;
            }
        }
        Ok(())
    }

    async fn ensure_tree(&self, guest: &Guest) -> Result<(), FacilityError> {
        let name = guest.name.clone();
        if let Some(FileWork::Adopt(id)) = &guest.file_work
            && !self.adopt_volume(&name, *id).await?
        {
            // Its tree is a directory.
            return self.dir.ensure(guest).await;
        }
        let point = GuestPaths::of(&self.config.dir, &name).rootfs();
        if self.tools().is_mounted(&point).map_err(RootfsError::from)? {
            return Ok(());
        }
        let volume = guest_volume(&name);
        let volumes = self.tools().volumes().await?;
        self.require_ours(&name, &volumes)?;
        let is_there = self.settle(&name, &volumes).await?;
        if !is_there {
            if holds_something(&point)? {
                return Ok(());
            }
            match &guest.file_work {
                Some(FileWork::CopyOf(origin)) => self.copy_volume(guest, origin, &volumes).await?,
                _ => self.make_volume(&volume, &volumes).await?,
            }
            // The source of the copy may be a directory.
            if holds_something(&point)? {
                return Ok(());
            }
        }
        let mounted = self.mount(&name, &volume, is_there).await;
        if mounted.is_err()
            && !is_there
            && let Err(error) = self.tools().remove(&volume).await
        {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
        Ok(mounted?)
    }

    /// Creates the volume of a new guest.
    async fn make_volume(&self, volume: &str, volumes: &Volumes) -> Result<(), RootfsError> {
        self.require_pool(volumes).await?;
        let template = self.ensure_template().await?;
        self.tools().snapshot(&template, volume).await
    }

    /// Mounts a guest's volume; a new one is active.
    async fn mount(
        &self,
        name: &GuestName,
        volume: &str,
        activate: bool,
    ) -> Result<(), RootfsError> {
        let paths = GuestPaths::of(&self.config.dir, name);
        let point = paths.rootfs();
        self.work(move |config| {
            dir::make_guests(config)?;
            let mut private = fs::DirBuilder::new();
            private.recursive(true).mode(0o700);
            Ok(private
                .create(paths.rootfs())
                .on("create", paths.rootfs())?)
        })
        .await?;
        if activate {
            self.tools().activate(volume).await?;
        }
        self.tools().mount(volume, &point).await
    }

    /// Fails if the pool is too full for another volume.
    async fn require_pool(&self, volumes: &Volumes) -> Result<(), RootfsError> {
        let (pool, limit) = (self.pool(), self.config.limit);
        match self.used(volumes).await? {
            None => Err(RootfsError::NoPool { pool }),
            Some(used) if used.reaches(limit) => Err(RootfsError::PoolFull { pool, used, limit }),
            Some(_) => Ok(()),
        }
    }

    /// Returns the use of the pool; `None` when it does not exist. Activates it: a guest may be requested before the host's
    /// boot has activated it.
    async fn used(&self, volumes: &Volumes) -> Result<Option<PoolUse>, RootfsError> {
        let pool = &self.config.pool;
        let mut seen = volumes.pool(pool);
        if seen == Pool::Inactive {
            self.tools().activate(pool).await?;
            seen = self.tools().volumes().await?.pool(pool);
        }
        Ok(match seen {
            Pool::Missing | Pool::Inactive => None,
            Pool::Active(used) => Some(used),
        })
    }

    /// Returns the name of the template. Creates one if none has the configured size.
    async fn ensure_template(&self) -> Result<String, RootfsError> {
        let template = self.template_volume();
        let _alone = self.template.lock().await;
        let volumes = self.tools().volumes().await?;
        if volumes.has(&self.config.pool, &template) {
            return Ok(template);
        }
        let tools = self.tools();
        if volumes.has(&self.config.pool, NEW_TEMPLATE) {
            tools.remove(NEW_TEMPLATE).await?;
        }
        tools.create(NEW_TEMPLATE).await?;
        let contents = self.config.dir.guests.join(".template");
        let new = contents.clone();
        self.work(move |config| {
            dir::make_guests(config)?;
            tree::remove(&new)?;
            // Files belong to id 0. Without mapped ids, nspawn changes the owners at a guest's first start.
            dir::build(config, &new, UserIds::Mapped, Slot::new(1))
        })
        .await?;
        tools.format(NEW_TEMPLATE, &contents.join("rootfs")).await?;
        self.work(move |_| Ok(tree::remove(&contents)?)).await?;
        // Snapshots of an inactive volume need no freezing.
        tools.deactivate(NEW_TEMPLATE).await?;
        tools.rename(NEW_TEMPLATE, &template).await?;
        Ok(template)
    }

    async fn remove_tree(&self, name: &GuestName) -> Result<(), RootfsError> {
        let point = GuestPaths::of(&self.config.dir, name).rootfs();
        self.tools().unmount(&point).await?;
        let volumes = self.tools().volumes().await?;
        for row in volumes.rows(&self.config.pool) {
            let is_guests = self.volume(&row.lv_name).guest() == Some(name);
            if is_guests && self.config.dir.identity.may_change(self.owner(row)) {
                self.tools().remove(&row.lv_name).await?;
            }
        }
        let name = name.clone();
        self.work(move |config| dir::remove(config, &name)).await
    }

    /// Removes a volume without a mark, on request.
    async fn sweep_unmarked(&self, object: &str) -> Result<(), RootfsError> {
        let volumes = self.tools().volumes().await?;
        let is_object = |row: &&Row| self.tools().name(&row.lv_name) == object;
        match volumes.rows(&self.config.pool).find(is_object) {
            Some(row) if self.owner(row) == Ownership::Unmarked => {
                self.tools().remove(&row.lv_name).await
            }
            _ => Ok(()),
        }
    }

    async fn sweep_volume(&self, volume: &str) -> Result<(), RootfsError> {
        match self.volume(volume) {
            Volume::Guest(name) | Volume::Part(name) => self.remove_tree(&name).await,
            Volume::Leftover | Volume::Retained(_) | Volume::Snapshot(..) => {
                self.tools().remove(volume).await
            }
            Volume::Template | Volume::Foreign => Err(RootfsError::Foreign {
                object: self.tools().name(volume),
                path: self.config.dir.guests.clone(),
            }),
        }
    }

    async fn check_pool(&self) -> Check {
        let pool = self.pool();
        let limit = self.config.limit;
        let seen = self.tools().volumes().await;
        let seen = seen.map(|volumes| volumes.pool(&self.config.pool));
        let (verdict, finding, remedy) = match seen {
            Err(error) => (
                Verdict::Broken,
                innkeeper_model::chain(&error),
                error.remedy(),
            ),
            Ok(Pool::Missing) => (
                Verdict::Broken,
                format!("the thin pool {pool} does not exist"),
                Some(make_pool(&pool)),
            ),
            Ok(Pool::Inactive) => (
                Verdict::Ok,
                format!(
                    "the thin pool {pool} is not active; the next guest that starts activates it"
                ),
                None,
            ),
            Ok(Pool::Active(used)) => {
                let verdict = match used {
                    used if used.reaches(limit) => Verdict::Broken,
                    used if used.reaches(limit - limit / 8) => Verdict::Warning,
                    _ => Verdict::Ok,
                };
                let finding = format!(
                    "the thin pool {pool}: {used}; no guest or snapshot is added from {limit} % on"
                );
                let remedy = (verdict != Verdict::Ok).then(|| make_room(&pool, used, limit));
                (verdict, finding, remedy)
            }
        };
        Check {
            subject: "pool".to_owned(),
            verdict,
            finding,
            remedy,
        }
    }
}

#[async_trait]
impl Resource for LvmRootfs {
    fn kind(&self) -> &'static str {
        "rootfs"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        let mut found = self.dir.observe().await?;
        found.extend(self.observe_volumes().await?);
        Ok(found)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(self.remove_tree(guest).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        match found.ownership {
            Ownership::Ours => {}
            Ownership::Unmarked => return Ok(self.sweep_unmarked(&found.object).await?),
            Ownership::Other => return Ok(()),
        }
        if let Some(guest) = &found.guest {
            return Ok(self.remove_tree(guest).await?);
        }
        let group = &self.config.volume_group;
        let volume = found.object.strip_prefix(group.as_str());
        match volume.and_then(|rest| rest.strip_prefix('/')) {
            Some(volume) => Ok(self.sweep_volume(volume).await?),
            None => self.dir.sweep(found).await,
        }
    }

    async fn check(&self) -> Vec<Check> {
        let mode = self.work(|config| Ok(vec![dir::check_mode(config)]));
        let mut checks = mode.await.unwrap_or_default();
        checks.push(self.check_pool().await);
        checks
    }
}

#[async_trait]
impl Rootfs for LvmRootfs {
    async fn ensure(&self, guest: &Guest) -> Result<(), FacilityError> {
        self.ensure_tree(guest).await
    }

    async fn adopt(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(self.mark_former(guest).await?)
    }

    async fn require_room(&self) -> Result<(), FacilityError> {
        Ok(self.require_pool(&self.tools().volumes().await?).await?)
    }

    async fn copies_while_running(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        Ok(self.has_volume(guest).await?)
    }

    async fn snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.take(guest, label).await
    }

    async fn snapshots(&self) -> Result<Vec<FoundSnapshot>, FacilityError> {
        Ok(self.list().await?)
    }

    async fn restore(&self, guest: &GuestName, label: &SnapshotLabel) -> Result<(), FacilityError> {
        self.bring_back(guest, label).await
    }

    async fn delete_snapshot(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), FacilityError> {
        self.delete(guest, label).await
    }

    async fn open(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        Ok(self.open_tree(guest).await?)
    }

    async fn own_system(&self, guest: &GuestName) -> Result<Option<StorePath>, FacilityError> {
        let root = GuestPaths::of(&self.config.dir, guest).rootfs();
        Ok(blocking(move || Ok::<_, RootfsError>(profile::read(&root)?)).await?)
    }

    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError> {
        Ok(self.retain_tree(guest, id).await?)
    }

    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError> {
        Ok(self.list_retained().await?)
    }

    async fn bytes(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError> {
        Ok(self.guest_bytes(guest).await?)
    }

    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError> {
        Ok(self.bytes_of(id).await?)
    }

    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError> {
        Ok(self.remove_kept(id).await?)
    }

    async fn export(&self, guest: &GuestName, to: &Path) -> Result<bool, FacilityError> {
        Ok(self.export_tree(guest, to).await?)
    }

    /// Counts the files of a mounted volume: the pool also has blocks of deleted files.
    async fn export_bytes(&self, guest: &GuestName, _to: &Path) -> Result<u64, FacilityError> {
        Ok(self.dir.bytes(guest).await?.unwrap_or(0))
    }

    async fn abandon_export(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(self.remove_export(guest).await?)
    }

    async fn import(
        &self,
        guest: &Guest,
        from: &Path,
        owners: FileOwners,
    ) -> Result<(), FacilityError> {
        self.import_tree(guest, from).await?;
        let owned = self.work(dir::set_owners(&guest.name, owners)).await;
        if owned.is_err() {
            self.remove(&guest.name).await?;
        }
        Ok(owned?)
    }

    async fn pool(&self) -> Result<PoolReport, FacilityError> {
        Ok(self.report().await?)
    }
}

/// Reports whether a directory exists and is not empty.
fn holds_something(path: &Path) -> Result<bool, RootfsError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError {
            action: "list",
            path: path.to_owned(),
            source,
        }
        .into()),
    }
}

/// Returns the remedy for a nearly full pool.
pub(super) fn make_room(pool: &str, used: PoolUse, limit: u8) -> String {
    let limit = f64::from(limit);
    let mut commands = Vec::new();
    if used.data >= limit || used.metadata < limit {
        commands.push(format!("`lvextend --size +10G {pool}`"));
    }
    if used.metadata >= limit {
        commands.push(format!("`lvextend --poolmetadatasize +256M {pool}`"));
    }
    format!(
        "Destroy guests (`agent list`) and delete snapshots (`agent snapshots`) that are no longer needed, or extend the pool: {}; `vgs` shows what its volume \
         group has left.",
        commands.join(" and ")
    )
}

/// Returns the pool whose damaged metadata LVM refuses to activate, if an error is about that.
pub(super) fn damaged_pool(error: &CommandError) -> Option<&str> {
    let CommandError::Failed { stderr, .. } = error else {
        return None;
    };
    let (_, rest) = stderr.split_once("Check of pool ")?;
    let pool = rest.split_ascii_whitespace().next()?;
    rest.contains("Manual repair required").then_some(pool)
}

/// Returns the remedy for a damaged pool.
pub(super) fn repair_pool(pool: &str) -> String {
    format!(
        "Its metadata has more damage than LVM repairs automatically. `lvconvert --repair {pool}` creates a repaired copy and keeps the \
         damaged one (lvmthin(7)); then start the guests again."
    )
}

/// Returns the remedy for a missing pool.
pub(super) fn make_pool(pool: &str) -> String {
    let (group, name) = pool.split_once('/').unwrap_or((pool, ""));
    format!(
        "Set storage.volume_group and storage.pool to a pool that `lvs` shows, or create this one: \
         `lvcreate --type thin-pool --extents 90%FREE --name {name} {group}`."
    )
}
