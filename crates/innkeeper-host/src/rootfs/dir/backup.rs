//! Copies of trees for backups, and trees from backups.

use std::path::Path;

use innkeeper_model::{GuestName, Ownership};

use super::snapshots::{private, run_cp};
use super::space::require_space;
use super::{DirRootfs, GuestPaths, make_guests, owner, remove};
use crate::FileErrorExt;
use crate::rootfs::RootfsError;

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

#[cfg(test)]
mod tests {
    use std::fs;

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
            temp.rootfs.import(&web, &tree).await.expect("imports");
            assert_eq!(temp.read("web/rootfs"), "before");
        }
        assert!(!temp.at(".web.new").exists() && !temp.at("web/rootfs/half").exists());
        assert_eq!(temp.names("web"), ["rootfs"]);
    }

    #[tokio::test]
    async fn failed_import_leaves_nothing() {
        let temp = TempRootfs::with_web("before").await;
        let missing = Path::new("/nonexistent/rootfs");
        let imported = temp.rootfs.import(&test_guest("copy"), missing).await;
        imported.expect_err("there is no set");
        assert!(!temp.at("copy").exists() && !temp.at(".copy.new").exists());
    }
}
