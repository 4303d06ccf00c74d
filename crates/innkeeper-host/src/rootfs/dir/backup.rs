//! Copies of trees for backups, and trees from backups.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use innkeeper_facilities::FileOwners;
use innkeeper_model::{GuestName, Ownership};

use super::snapshots::{private, run_cp};
use super::space::require_space;
use super::{DirConfig, DirRootfs, GuestPaths, make_guests, owner, remove};
use crate::features::UserIds;
use crate::rootfs::RootfsError;
use crate::{FileErrorExt, tree};

impl DirRootfs {
    /// Copies the guest's tree to a new directory. Reports whether the guest has one.
    pub(in crate::rootfs) async fn export_tree(
        &self,
        guest: &GuestName,
        to: &Path,
    ) -> Result<bool, RootfsError> {
        let tree = GuestPaths::of(&self.config, guest).rootfs();
        if !tree.is_dir() {
            return Ok(false);
        }
        run_cp(&tree, to).await?;
        Ok(true)
    }

    /// Creates the guest's tree as a copy of a directory. Replaces one of this daemon.
    pub(in crate::rootfs) async fn import_tree(
        &self,
        guest: &GuestName,
        from: &Path,
    ) -> Result<(), RootfsError> {
        let paths = GuestPaths::of(&self.config, guest);
        let (name, new, target) = (guest.clone(), paths.new.clone(), paths.guest.clone());
        self.work(move |config| {
            make_guests(config)?;
            require_space(config)?;
            if owner(config, &target)? == Some(Ownership::Other) {
                return Err(RootfsError::Foreign {
                    object: target.display().to_string(),
                    path: config.guests.clone(),
                });
            }
            remove(config, &name)?;
            private().create(&new).on("create", &new)?;
            Ok(config.identity.mark(&new).on("mark", &new)?)
        })
        .await?;
        self.copy(
            from.to_owned(),
            paths.new.join("rootfs"),
            paths.new,
            paths.guest,
        )
        .await
    }
}

/// Returns the work that gives a guest's files the owners that this host's guests have on disk. systemd-nspawn does the rest
/// where those are the ids of a slot: it changes owners from any slot, or from the ids in the guest, at each start.
pub(in crate::rootfs) fn set_owners(
    guest: &GuestName,
    owners: FileOwners,
) -> impl FnOnce(&DirConfig) -> Result<(), RootfsError> + Send + 'static {
    let guest = guest.clone();
    move |config| match (owners, config.user_ids) {
        (FileOwners::Slot, UserIds::Host | UserIds::Mapped) => {
            let tree = GuestPaths::of(config, &guest).rootfs();
            tree::to_ids_in_guest(&tree)?;
            Ok(tree::write_to_disk(&tree)?)
        }
        (FileOwners::Guest, _) | (FileOwners::Slot, UserIds::Shifted) => Ok(()),
    }
}

/// The names of the files with which the sharing of blocks is tried.
const PROBE: &str = ".blocks-are-shared";

/// Reports whether a copy of a tree to a directory can share its blocks. False when it cannot be tried.
pub(super) fn shares_blocks(config: &DirConfig, to: &Path) -> bool {
    let (from, to) = (config.guests.join(PROBE), to.join(PROBE));
    let attempt = || {
        fs::write(&from, [1; 4096])?;
        rustix::fs::ioctl_ficlone(File::create(&to)?, File::open(&from)?)?;
        Ok::<_, io::Error>(())
    };
    let is_shared = attempt().is_ok();
    for path in [from, to] {
        if let Err(error) = tree::remove(&path) {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
    }
    is_shared
}

#[cfg(test)]
mod tests {
    use innkeeper_facilities::Rootfs;

    use super::super::super::test_guest;
    use super::super::fixture::TempRootfs;
    use super::*;

    #[tokio::test]
    async fn import_replaces_an_orphan_with_the_exported_files() {
        let temp = TempRootfs::with_web("before").await;
        let web = test_guest("web");
        let set = tempfile::tempdir().expect("directory");
        let tree = set.path().join("rootfs");
        let missing = temp.rootfs.export(&test_guest("none").name, &tree).await;
        assert!(!missing.expect("no files"));
        assert!(temp.rootfs.export(&web.name, &tree).await.expect("exports"));
        temp.write("after");
        fs::create_dir_all(temp.at(".web.new/rootfs/half")).expect("left by a crash");
        for _ in 0..2 {
            temp.rootfs
                .import(&web, &tree, FileOwners::Guest)
                .await
                .expect("imports");
            assert_eq!(temp.read("web/rootfs"), "before");
        }
        assert!(!temp.at(".web.new").exists() && !temp.at("web/rootfs/half").exists());
        assert_eq!(temp.names("web"), ["rootfs"]);
    }

    /// A guest can create paths that are longer than the kernel resolves at once.
    #[tokio::test]
    async fn paths_that_cannot_be_copied_are_reported() {
        let temp = TempRootfs::with_web("before").await;
        let mut path = temp.at("web/rootfs/home");
        for _ in 0..40 {
            let inside = File::open(&path).expect("directory");
            let name = "d".repeat(200);
            let mode = rustix::fs::Mode::from(0o755);
            rustix::fs::mkdirat(&inside, &name, mode).expect("directory");
            path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside)).into();
            path.push(name);
            std::mem::forget(inside);
        }
        let set = tempfile::tempdir().expect("directory");
        let tree = set.path().join("rootfs");
        let exported = temp.rootfs.export(&test_guest("web").name, &tree).await;
        exported.expect_err("is incomplete");
    }

    #[tokio::test]
    async fn space_of_a_copy_is_that_of_the_files_unless_it_shares_their_blocks() {
        let temp = TempRootfs::with_web("before").await;
        let web = test_guest("web").name;
        fs::write(temp.at("web/rootfs/home/large"), vec![1; 4 << 20]).expect("file");
        let set = tempfile::tempdir().expect("directory");
        let bytes = temp.rootfs.export_bytes(&web, set.path()).await;
        let bytes = bytes.expect("counts");
        assert!(bytes == 0 || bytes >= 4 << 20, "{bytes}");
        assert_eq!(fs::read_dir(set.path()).expect("lists").count(), 0);
        let elsewhere = temp.rootfs.export_bytes(&web, Path::new("/proc")).await;
        assert!(elsewhere.expect("counts") >= 4 << 20);
        assert_eq!(temp.names(""), ["web"]);
    }

    #[tokio::test]
    async fn owners_of_a_slot_become_those_of_this_host() {
        use std::os::unix::fs::{MetadataExt, chown};
        let temp = TempRootfs::with_web("before").await;
        let web = test_guest("web");
        let set = tempfile::tempdir().expect("directory");
        let tree = set.path().join("rootfs");
        assert!(temp.rootfs.export(&web.name, &tree).await.expect("exports"));
        let first = innkeeper_model::Slot::new(9).first_user_id();
        chown(tree.join("home/work"), Some(first + 7), Some(first)).expect("owner");
        for (owners, uid) in [(FileOwners::Guest, first + 7), (FileOwners::Slot, 7)] {
            let imported = temp.rootfs.import(&web, &tree, owners).await;
            imported.expect("imports");
            let seen = fs::metadata(temp.at("web/rootfs/home/work")).expect("file");
            assert_eq!(seen.uid(), uid);
        }
    }

    #[tokio::test]
    async fn failed_import_leaves_nothing() {
        let temp = TempRootfs::with_web("before").await;
        let missing = Path::new("/nonexistent/rootfs");
        let imported = temp
            .rootfs
            .import(&test_guest("copy"), missing, FileOwners::Guest)
            .await;
        imported.expect_err("there is no set");
        assert!(!temp.at("copy").exists() && !temp.at(".copy.new").exists());
    }
}
