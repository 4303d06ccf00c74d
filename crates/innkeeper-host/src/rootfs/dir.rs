//! File trees as plain directories.
//!
//! A guest's tree is `<guests>/<name>/rootfs`. It is made aside as `<guests>/.<name>.new` and renamed
//! into place, and renamed to `<guests>/.<name>.gone` before it is removed, so under the guest's name
//! there is always a whole tree or none. A guest's name is a DNS label and never starts with a dot.
//! Snapshots lie beside the tree: [`snapshots`]. Trees of destroyed agents are kept in [`retained`].
//!
//! An empty tree is not synced to the disk, and correctness does not need it: a guest's record is written before
//! its tree is made and deleted after its tree was removed. When the power goes, a tree may be missing
//! whose record is there (the next `ensure` makes it again) or be back when its record has gone
//! (`observe` shows it as an orphan). Copies are synced.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, FoundRetained, FoundSnapshot, Resource, Rootfs};
use innkeeper_model::api::{Check, PoolReport, RetainedSpace, Verdict};
use innkeeper_model::{
    Explain, FileWork, Guest, GuestName, Ownership, RetainedId, Slot, SnapshotLabel,
};

use super::{RootfsError, USAGE_TIME, skeleton};
use crate::FileErrorExt;
use crate::features::UserIds;
use crate::identity::Identity;
use crate::tree::{self, blocking};

pub(super) mod retained;
pub(super) mod snapshots;

/// Where trees are, and when no more are made.
#[derive(Clone, Debug)]
pub struct DirConfig {
    /// The directory of the trees. It is closed to everybody but root (0700): otherwise a user of the
    /// host could run a program that a guest made setuid.
    pub guests: PathBuf,
    /// How many bytes must be free for a new tree to be made.
    pub min_free: u64,
    /// Who owns a guest's files on disk.
    pub user_ids: UserIds,
    /// Marks guests' directories, outside of what guests see.
    pub identity: Identity,
}

/// File trees as plain directories.
#[derive(Clone, Debug)]
pub struct DirRootfs {
    config: Arc<DirConfig>,
}

impl DirRootfs {
    /// The driver; nothing is touched yet.
    #[must_use]
    pub fn new(config: DirConfig) -> Self {
        Self {
            config: Arc::new(config),
        }
    }

    /// Does file work on a thread that may wait for the disk.
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
            let place = Place::of(config, &name);
            if place.rootfs().is_dir() {
                return Ok(());
            }
            make_guests(config)?;
            require_space(config)?;
            // A directory without a tree is what somebody left who removed the tree by hand.
            if place.snapshots().is_dir() {
                tree::remove(&place.new)?;
            } else {
                remove(config, &name)?;
            }
            let made =
                build(config, &place.new, config.user_ids, slot).and_then(|()| place.occupy());
            if made.is_err()
                && let Err(error) = tree::remove(&place.new)
            {
                tracing::warn!("{}", innkeeper_model::chain(&error));
            }
            made
        });
        Ok(made.await?)
    }

    async fn require_room(&self) -> Result<(), FacilityError> {
        Ok(self.work(require_space).await?)
    }

    /// A copy takes its time, and a guest that writes meanwhile would tear it.
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
        let is_there = self.work(move |config| Ok(Place::of(config, &guest).rootfs().is_dir()));
        Ok(is_there.await?)
    }

    async fn retain(&self, guest: &GuestName, id: RetainedId) -> Result<bool, FacilityError> {
        let guest = guest.clone();
        let retained = self.work(move |config| retained::retain(config, &guest, id));
        Ok(retained.await?)
    }

    async fn retained(&self) -> Result<Vec<FoundRetained>, FacilityError> {
        Ok(self.work(retained::list).await?)
    }

    async fn retained_bytes(&self, id: RetainedId) -> Result<u64, FacilityError> {
        Ok(self.work(move |config| retained::bytes(config, id)).await?)
    }

    async fn remove_retained(&self, id: RetainedId) -> Result<(), FacilityError> {
        let removed = self.work(move |config| retained::remove_retained(config, id));
        Ok(removed.await?)
    }

    async fn pool(&self) -> Result<PoolReport, FacilityError> {
        Ok(self.work(pool).await?)
    }
}

/// The paths of one guest.
pub(super) struct Place {
    pub(super) guest: PathBuf,
    pub(super) new: PathBuf,
    gone: PathBuf,
}

impl Place {
    pub(super) fn of(config: &DirConfig, name: &GuestName) -> Self {
        let at = |name: String| config.guests.join(name);
        Self {
            guest: at(name.to_string()),
            new: at(format!(".{name}.new")),
            gone: at(format!(".{name}.gone")),
        }
    }

    /// Makes what was made aside the guest's. Snapshots that are there already stay.
    fn occupy(&self) -> Result<(), RootfsError> {
        if self.guest.is_dir() {
            fs::rename(self.new.join("rootfs"), self.rootfs()).on("create", self.rootfs())?;
            return Ok(tree::remove(&self.new)?);
        }
        Ok(fs::rename(&self.new, &self.guest).on("create", &self.guest)?)
    }

    pub(super) fn rootfs(&self) -> PathBuf {
        self.guest.join("rootfs")
    }

    /// Whether the guest has a directory.
    pub(super) fn exists(&self) -> bool {
        self.guest.is_dir()
    }
}

/// What an entry of the directory of trees is by its name.
pub(super) enum Entry {
    Guest(GuestName),
    Retained(RetainedId),
    Leftover,
    Foreign,
}

impl Entry {
    pub(super) fn of(name: &OsStr) -> Self {
        let Some(name) = name.to_str() else {
            return Self::Foreign;
        };
        if let Ok(guest) = GuestName::parse(name) {
            return Self::Guest(guest);
        }
        if let Some(id) = retained::number(name) {
            return Self::Retained(id);
        }
        let leftover = name
            .strip_prefix('.')
            .and_then(|rest| {
                rest.strip_suffix(".new")
                    .or_else(|| rest.strip_suffix(".gone"))
            })
            .is_some_and(|guest| GuestName::parse(guest).is_ok());
        if leftover {
            Self::Leftover
        } else {
            Self::Foreign
        }
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

/// Whose a directory of a guest is; `None` when it is not there. What has no mark is ours: it lies in our state directory,
/// where a copy or a backup may have left marks behind. Another daemon's mark came with a directory that somebody moved.
fn owner(config: &DirConfig, path: &Path) -> Result<Option<Ownership>, RootfsError> {
    match config.identity.owner_of(path) {
        Ok(Some(Ownership::Other)) => Ok(Some(Ownership::Other)),
        Ok(_) => Ok(Some(Ownership::Ours)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Ok(Err(error).on("look at", path)?),
    }
}

pub(super) fn remove(config: &DirConfig, name: &GuestName) -> Result<(), RootfsError> {
    let place = Place::of(config, name);
    if owner(config, &place.guest)? == Some(Ownership::Other) {
        return Ok(());
    }
    tree::remove(&place.new)?;
    tree::remove(&place.gone)?;
    match fs::rename(&place.guest, &place.gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed.on("rename", &place.guest)?,
    }
    Ok(tree::remove(&place.gone)?)
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

/// Makes a furnished tree at `rootfs` in a new directory.
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
    Ok(skeleton::furnish(&root, user_ids, slot)?)
}

/// Makes the directory of the trees and closes it to others.
pub(super) fn make_guests(config: &DirConfig) -> Result<(), RootfsError> {
    let guests = &config.guests;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(guests)
        .on("create", guests)?;
    if mode(guests).on("look at", guests)? != 0o700 {
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(guests, closed).on("close", guests)?;
    }
    Ok(())
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

/// The file system on which the trees are, or would be.
fn disk(config: &DirConfig) -> Result<rustix::fs::StatVfs, RootfsError> {
    let there = config
        .guests
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    Ok(rustix::fs::statvfs(there).on("look at", there)?)
}

/// Bytes that are free there.
fn free(config: &DirConfig) -> Result<u64, RootfsError> {
    let disk = disk(config)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn pool(config: &DirConfig) -> Result<PoolReport, RootfsError> {
    let disk = disk(config)?;
    let permille = 1000 - disk.f_bavail.saturating_mul(1000) / disk.f_blocks.max(1);
    let full = require_space(config).err();
    Ok(PoolReport {
        driver: "dir".to_owned(),
        place: config.guests.display().to_string(),
        size_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        data_percent: f64::from(u32::try_from(permille).unwrap_or(0)) / 10.0,
        metadata_percent: None,
        limit_percent: None,
        min_free_bytes: Some(config.min_free),
        retained: RetainedSpace::default(),
        remedy: full.and_then(|full| full.remedy()),
        volumes: Vec::new(),
    })
}

pub(super) fn require_space(config: &DirConfig) -> Result<(), RootfsError> {
    let free = free(config)?;
    if free < config.min_free {
        let (path, needed) = (config.guests.clone(), config.min_free);
        return Err(RootfsError::DiskFull { path, free, needed });
    }
    Ok(())
}

/// Free inodes below which a new guest would soon have none. Its tree takes some hundred by itself.
const MIN_FREE_INODES: u64 = 10_000;

/// Checks bytes and inodes, and names the guests that use the most when they run short.
fn check_space(config: &DirConfig) -> Check {
    let path = config.guests.display();
    let (verdict, finding) = match disk(config) {
        Err(error) => (Verdict::Broken, innkeeper_model::chain(&error)),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            // Some file systems, such as btrfs, have no fixed number of inodes, and report none.
            let inodes = (disk.f_files > 0).then_some(disk.f_favail);
            let verdict = match free {
                free if free < config.min_free || inodes == Some(0) => Verdict::Broken,
                free if free / 2 < config.min_free => Verdict::Warning,
                _ if inodes.is_some_and(|free| free < MIN_FREE_INODES) => Verdict::Warning,
                _ => Verdict::Ok,
            };
            let inodes = inodes.map_or_else(String::new, |free| format!(" and {free} inodes"));
            let finding = format!(
                "{path} has {} MiB{inodes} left; a new guest or snapshot needs {} MiB",
                free >> 20,
                config.min_free.div_ceil(1 << 20)
            );
            (verdict, finding)
        }
    };
    Check {
        subject: "disk".to_owned(),
        verdict,
        finding,
        remedy: (verdict != Verdict::Ok).then(|| {
            let largest = largest(config);
            format!("Destroy guests and delete snapshots that are no longer needed, or free space on the disk that holds {path}.{largest}")
        }),
    }
}

/// A sentence about the three guests that use the most, or nothing.
fn largest(config: &DirConfig) -> String {
    let deadline = Instant::now() + USAGE_TIME;
    let guests = fs::read_dir(&config.guests).into_iter().flatten().flatten();
    let mut found: Vec<_> = guests
        .filter_map(|entry| {
            let name: GuestName = entry.file_name().to_str()?.parse().ok()?;
            Some((tree::usage(&entry.path(), deadline).ok()?, name))
        })
        .collect();
    found.sort_by_key(|(usage, _)| std::cmp::Reverse((usage.bytes, usage.inodes)));
    let shown: Vec<_> = found
        .iter()
        .take(3)
        .map(|(usage, name)| {
            let least = if usage.complete { "" } else { "at least " };
            let (mebibytes, inodes) = (usage.bytes >> 20, usage.inodes);
            format!("{name} ({least}{mebibytes} MiB in {inodes} files)")
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!(" The largest guests: {}.", shown.join(", "))
    }
}

pub(super) fn check_mode(config: &DirConfig) -> Check {
    let path = config.guests.display();
    let (verdict, finding, remedy) = match mode(&config.guests) {
        Ok(0o700) => (
            Verdict::Ok,
            format!("{path} is closed to other users"),
            None,
        ),
        Ok(mode) => (
            Verdict::Broken,
            format!("{path} has mode {mode:o}: users of the host reach setuid files of guests"),
            Some(format!("chmod 700 {path}")),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            Verdict::Ok,
            format!("{path} will be made with the first guest"),
            None,
        ),
        Err(error) => (
            Verdict::Broken,
            format!("cannot look at {path}: {error}"),
            Some("Run innkeeperd as root.".to_owned()),
        ),
    };
    Check {
        subject: "rootfs".to_owned(),
        verdict,
        finding,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use innkeeper_model::{Code, Failure};

    use super::super::test_guest as guest;
    use super::*;

    struct House {
        dir: tempfile::TempDir,
        rootfs: DirRootfs,
    }

    impl House {
        fn new(user_ids: UserIds) -> Self {
            Self::with_space(user_ids, 0)
        }

        fn with_space(user_ids: UserIds, min_free: u64) -> Self {
            let dir = tempfile::tempdir().expect("a directory for the test");
            let guests = dir.path().join("state/guests");
            let rootfs = DirRootfs::new(DirConfig {
                identity: Identity::of('a'),
                guests,
                min_free,
                user_ids,
            });
            Self { dir, rootfs }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join("state/guests").join(path)
        }

        async fn objects(&self) -> Vec<(Option<String>, String)> {
            let found = self.rootfs.observe().await.expect("observes");
            found
                .into_iter()
                .map(|found| {
                    let name = Path::new(&found.object)
                        .file_name()
                        .expect("name")
                        .to_owned();
                    (
                        found.guest.map(Into::into),
                        name.into_string().expect("text"),
                    )
                })
                .collect()
        }
    }

    #[tokio::test]
    async fn a_new_tree_has_what_nspawn_and_systemd_look_for() {
        for (user_ids, owner) in [
            (UserIds::Host, 0),
            (UserIds::Mapped, 0),
            (UserIds::Shifted, 0x8_0000 + 3 * 0x1_0000),
        ] {
            let house = House::new(user_ids);
            house.rootfs.ensure(&guest("web")).await.expect("makes");
            let mode = |path: &str| fs::metadata(house.at(path)).expect(path).mode() & 0o7777;
            assert_eq!(mode(""), 0o700);
            assert_eq!(mode("web/rootfs"), 0o755);
            assert_eq!(mode("web/rootfs/tmp"), 0o1777);
            assert_eq!(mode("web/rootfs/root"), 0o700);
            assert_eq!(mode("web/rootfs/usr"), 0o755);
            assert_eq!(
                fs::read(house.at("web/rootfs/etc/machine-id")).expect("reads"),
                b""
            );
            for path in [
                "",
                "usr",
                "nix",
                "nix/store",
                "etc/os-release",
                "etc/machine-id",
            ] {
                let stat = fs::metadata(house.at("web/rootfs").join(path)).expect(path);
                assert_eq!((stat.uid(), stat.gid()), (owner, owner), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn nspawn_takes_a_new_tree_for_a_system() {
        const TEST: &str = "nspawn_takes_a_new_tree_for_a_system";
        let busybox = Path::new("/bin/busybox");
        if !busybox.exists() || !Path::new("/usr/bin/systemd-nspawn").exists() {
            eprintln!("INNKEEPER-NOT-RUN: {TEST}: it needs systemd-nspawn and busybox-static");
            return;
        }
        let first_id = Slot::new(3).first_user_id();
        for (user_ids, ownership) in [(UserIds::Mapped, "map"), (UserIds::Shifted, "off")] {
            let house = House::new(user_ids);
            house.rootfs.ensure(&guest("web")).await.expect("makes");
            let mut arguments = vec![
                "--quiet".to_owned(),
                "--register=no".to_owned(),
                "--keep-unit".to_owned(),
                "--private-network".to_owned(),
                format!("--private-users={first_id}:65536"),
                format!("--private-users-ownership={ownership}"),
                format!("--directory={}", house.at("web/rootfs").display()),
                "--bind-ro=/bin/busybox:/busybox".to_owned(),
            ];
            let script = "/busybox touch /root/x /tmp/y && /busybox stat -c '%u %a' / /root /root/x /tmp /etc/machine-id";
            arguments.extend(["/busybox", "sh", "-c", script].map(str::to_owned));
            let said = crate::command::run("systemd-nspawn", arguments, b"").await;
            let said = String::from_utf8(said.expect("nspawn")).expect("text");
            let lines: Vec<_> = said.lines().map(str::trim).collect();
            assert_eq!(
                lines,
                ["0 755", "0 700", "0 644", "0 1777", "0 444"],
                "{user_ids:?}"
            );
            house
                .rootfs
                .remove(&guest("web").name)
                .await
                .expect("removes");
        }
    }

    #[tokio::test]
    async fn a_tree_that_is_there_stays_as_it_is() {
        let house = House::new(UserIds::Mapped);
        house.rootfs.ensure(&guest("web")).await.expect("makes");
        fs::write(house.at("web/rootfs/home/work"), "x").expect("write");
        house.rootfs.ensure(&guest("web")).await.expect("is there");
        assert!(house.at("web/rootfs/home/work").exists());
        assert_eq!(
            house.objects().await,
            [(Some("web".to_owned()), "web".to_owned())]
        );
    }

    #[tokio::test]
    async fn remains_of_a_crash_are_replaced_and_belong_to_nobody() {
        let house = House::new(UserIds::Mapped);
        for leftover in [
            ".web.new/rootfs",
            ".web.gone/rootfs",
            ".other.gone/rootfs",
            "web/half",
        ] {
            fs::create_dir_all(house.at(leftover)).expect("leftover");
        }
        for foreign in ["lost+found", ".hidden", ".Web.new", "Web"] {
            fs::create_dir_all(house.at(foreign)).expect("foreign");
        }
        house.rootfs.ensure(&guest("web")).await.expect("makes");
        assert!(house.at("web/rootfs/usr").is_dir());
        assert!(!house.at("web/half").exists());
        let left = [
            (None, ".other.gone".to_owned()),
            (Some("web".to_owned()), "web".to_owned()),
        ];
        assert_eq!(house.objects().await, left);
    }

    #[tokio::test]
    async fn removal_leaves_nothing_and_can_be_repeated() {
        let house = House::new(UserIds::Mapped);
        let name = guest("web").name;
        house.rootfs.remove(&name).await.expect("nothing is there");
        house.rootfs.ensure(&guest("web")).await.expect("makes");
        symlink(house.dir.path(), house.at("web/rootfs/link")).expect("link");
        fs::create_dir_all(house.at(".web.gone/rootfs")).expect("leftover");
        fs::create_dir_all(house.at(".web.new/rootfs")).expect("leftover");
        house.rootfs.remove(&name).await.expect("removes");
        house.rootfs.remove(&name).await.expect("removes");
        assert_eq!(fs::read_dir(house.at("")).expect("list").count(), 0);
    }

    #[tokio::test]
    async fn orphans_are_swept_and_nothing_else() {
        let house = House::new(UserIds::Mapped);
        house.rootfs.ensure(&guest("web")).await.expect("makes");
        fs::create_dir_all(house.at(".old.gone/rootfs")).expect("leftover");
        fs::create_dir_all(house.at("Foreign")).expect("foreign");
        for found in house.rootfs.observe().await.expect("observes") {
            house.rootfs.sweep(&found).await.expect("sweeps");
            house.rootfs.sweep(&found).await.expect("is gone");
        }
        assert!(house.objects().await.is_empty());
        for object in ["Foreign", "../../state", "", ".."] {
            let object = house.at(object).display().to_string();
            let swept = house.rootfs.sweep(&Found::ours(None, object)).await;
            let refused = swept.expect_err("refused").downcast();
            assert!(
                matches!(refused, Ok(RootfsError::Foreign { .. })),
                "{refused:?}"
            );
        }
        assert!(house.at("Foreign").exists());
    }

    #[tokio::test]
    async fn a_disk_that_is_nearly_full_is_a_clear_refusal() {
        let house = House::with_space(UserIds::Mapped, u64::MAX);
        let error = house
            .rootfs
            .ensure(&guest("web"))
            .await
            .expect_err("no space");
        let failure = Failure::from(&error);
        assert_eq!(failure.code, Code::DiskFull);
        assert!(failure.message.contains("state/guests has "), "{failure}");
        assert!(failure.remedy.expect("a remedy").contains("agent list"));
        assert!(house.objects().await.is_empty());
        let check = &house.rootfs.check().await[0];
        assert_eq!(check.verdict, Verdict::Broken);
        assert!(check.finding.contains(" inodes left"), "{check:?}");
        // A guest that is there starts all the same.
        let enough = House::new(UserIds::Mapped);
        enough.rootfs.ensure(&guest("web")).await.expect("makes");
        let config = DirConfig {
            identity: Identity::of('a'),
            min_free: u64::MAX,
            ..(*enough.rootfs.config).clone()
        };
        let nearly_full = DirRootfs::new(config);
        nearly_full.ensure(&guest("web")).await.expect("is there");
        let hog = enough.at("web/rootfs/hog");
        fs::write(hog, vec![1; 3 << 20]).expect("written");
        let remedy = nearly_full.check().await[0].remedy.clone();
        let remedy = remedy.expect("a remedy");
        assert!(
            remedy.contains("The largest guests: web (3 MiB in "),
            "{remedy}"
        );
    }

    #[tokio::test]
    async fn an_open_directory_is_closed_and_reported() {
        let house = House::new(UserIds::Mapped);
        fs::create_dir_all(house.at("")).expect("guests");
        fs::set_permissions(house.at(""), fs::Permissions::from_mode(0o755)).expect("chmod");
        let verdict = |checks: Vec<Check>| checks[1].verdict;
        assert_eq!(verdict(house.rootfs.check().await), Verdict::Broken);
        house.rootfs.ensure(&guest("web")).await.expect("makes");
        assert_eq!(verdict(house.rootfs.check().await), Verdict::Ok);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_read_is_not_an_empty_one() {
        let house = House::new(UserIds::Mapped);
        fs::create_dir_all(house.dir.path().join("state")).expect("state");
        fs::write(house.dir.path().join("state/guests"), "not a directory").expect("write");
        house.rootfs.observe().await.expect_err("cannot be listed");
    }

    /// Somebody moved a tree of another daemon into our directory.
    #[tokio::test]
    async fn a_directory_that_another_daemon_marked_is_not_removed() {
        let house = House::new(UserIds::Mapped);
        let web = crate::rootfs::test_guest("web");
        house.rootfs.ensure(&web).await.expect("makes");
        let place = house.at("web");
        let found = house.rootfs.observe().await.expect("observes");
        assert!(found[0].ownership.is_ours());
        if !Identity::of('b').mark(&place).expect("marks") {
            eprintln!("INNKEEPER-NOT-RUN: the file system takes no marks");
            return;
        }
        let found = house.rootfs.observe().await.expect("observes");
        assert_eq!(found[0].ownership, Ownership::Other);
        house.rootfs.remove(&web.name).await.expect("not ours");
        house.rootfs.sweep(&found[0]).await.expect("not ours");
        assert!(place.join("rootfs").is_dir());
    }
}
