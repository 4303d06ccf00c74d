//! Copies of volumes for backups, and volumes from backups.
//!
//! A copy reads a temporary snapshot of the volume, so the guest runs on meanwhile. The snapshot has the name of a
//! replacement of the guest's volume: an interrupted copy leaves it, and the next copy, the next restore of a snapshot or the
//! removal of the guest removes it. It is mounted in a mount namespace of the copying program only, and read-only.

use std::path::Path;

use innkeeper_facilities::FacilityError;
use innkeeper_model::{Guest, GuestName};

use super::report::{guest_volume, new_volume};
use super::{LvmRootfs, RootfsError};
use crate::command;
use crate::rootfs::dir::{GuestPaths, snapshots};
use crate::tree;

/// Mounts the volume `$1` at `$2` and copies its files to `$3`. The mount ends with the namespace.
const COPY_OUT: &str = r#"mount -t ext4 -o ro,nodev,nosuid -- "$1" "$2" && exec cp --archive --preserve=xattr --one-file-system --no-target-directory -- "$2" "$3""#;

impl LvmRootfs {
    pub(super) async fn export_tree(
        &self,
        guest: &GuestName,
        to: &Path,
    ) -> Result<bool, RootfsError> {
        let volumes = self.tools().volumes().await?;
        self.require_ours(guest, &volumes)?;
        if !self.settle(guest, &volumes).await? {
            return self.dir.export_tree(guest, to).await;
        }
        self.require_pool(&volumes).await?;
        self.remove_export(guest).await?;
        let snapshot = new_volume(guest);
        self.tools()
            .snapshot(&guest_volume(guest), &snapshot)
            .await?;
        let copied = self.copy_out(guest, &snapshot, to).await;
        let removed = self.tools().remove(&snapshot).await;
        copied.and(removed)?;
        Ok(true)
    }

    async fn copy_out(
        &self,
        guest: &GuestName,
        snapshot: &str,
        to: &Path,
    ) -> Result<(), RootfsError> {
        let point = GuestPaths::of(&self.config.dir, guest).rootfs();
        let device = self.tools().device(snapshot);
        // The mount of a stopped guest's volume may be gone since the last boot.
        tokio::fs::create_dir_all(&point)
            .await
            .map_err(|source| crate::FileError {
                action: "create",
                path: point.clone(),
                source,
            })?;
        let mut program = command::command("setpriv");
        program.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation"]);
        program.args(["private", "sh", "-c", COPY_OUT, "sh"]);
        program.args([&device, &point]).arg(to);
        let copied = command::run_command(program, b"", command::COPY).await;
        copied.map(drop).map_err(|source| RootfsError::Copy {
            path: device,
            source,
        })
    }

    /// Removes the snapshot of an interrupted copy.
    pub(super) async fn remove_export(&self, guest: &GuestName) -> Result<(), RootfsError> {
        let volumes = self.tools().volumes().await?;
        let snapshot = new_volume(guest);
        if volumes.has(&self.config.pool, &snapshot) {
            self.require_ours(guest, &volumes)?;
            self.tools().remove(&snapshot).await?;
        }
        Ok(())
    }

    /// Creates the guest's volume like any other, then copies the files over its first ones.
    pub(super) async fn import_tree(
        &self,
        guest: &Guest,
        from: &Path,
    ) -> Result<(), FacilityError> {
        let volumes = self.tools().volumes().await?;
        self.require_ours(&guest.name, &volumes)?;
        self.remove_tree(&guest.name).await?;
        self.ensure_tree(guest).await?;
        let tree = GuestPaths::of(&self.config.dir, &guest.name).rootfs();
        let mut copied = snapshots::run_cp(from, &tree).await;
        if copied.is_ok() {
            copied = self.work(move |_| Ok(tree::write_to_disk(&tree)?)).await;
        }
        if copied.is_err()
            && let Err(error) = self.remove_tree(&guest.name).await
        {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
        Ok(copied?)
    }
}
