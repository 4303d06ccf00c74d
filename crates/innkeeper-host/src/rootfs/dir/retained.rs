//! Retained trees of destroyed agents: `<guests>/.retained-<number>`.
//!
//! A rename moves a tree there and back, so it is always whole in one of the two pathss, and needs no space. The directory
//! is synced before the store records the move: a record must not outlive the files in a loss of power.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use innkeeper_facilities::{FilesMissing, FoundRetained};
use innkeeper_model::{GuestName, RetainedId};

use super::paths::{Entry, GuestPaths, retained_name};
use super::{DirConfig, remove};
use crate::rootfs::{RootfsError, USAGE_TIME};
use crate::{FileErrorExt, tree};

fn path_of(config: &DirConfig, id: RetainedId) -> PathBuf {
    config.guests.join(retained_name(id))
}

/// Moves a guest's tree to a number. Reports whether a tree with that number exists now.
pub(in crate::rootfs) fn retain(
    config: &DirConfig,
    name: &GuestName,
    id: RetainedId,
) -> Result<bool, RootfsError> {
    let (paths, kept) = (GuestPaths::of(config, name), path_of(config, id));
    if !paths.rootfs().is_dir() {
        // It may have been moved before a crash.
        let is_kept = kept.join("rootfs").is_dir();
        if is_kept {
            remove(config, name)?;
        }
        return Ok(is_kept);
    }
    // A rename moves the only tree with this number, so a tree at the target is of another database.
    tree::remove(&kept)?;
    tree::remove(&paths.new)?;
    tree::remove(&paths.gone)?;
    for entry in fs::read_dir(&paths.guest).on("list", &paths.guest)? {
        // Snapshots and the log go with the guest.
        let path = entry.on("list", &paths.guest)?.path();
        if path != paths.rootfs() {
            tree::remove(&path)?;
        }
    }
    fs::rename(&paths.guest, &kept).on("rename", &paths.guest)?;
    write_entries(config)?;
    Ok(true)
}

/// Makes a retained tree the one of a guest, if it is not yet.
pub(in crate::rootfs) fn adopt(
    config: &DirConfig,
    name: &GuestName,
    id: RetainedId,
) -> Result<(), RootfsError> {
    let (paths, kept) = (GuestPaths::of(config, name), path_of(config, id));
    if kept.join("rootfs").is_dir() {
        // Anything under the guest's name is left over: it would be gone if the tree had been moved.
        remove(config, name)?;
        fs::rename(&kept, &paths.guest).on("rename", &kept)?;
        return write_entries(config);
    }
    match paths.rootfs().is_dir() {
        true => Ok(()),
        false => Err(FilesMissing { id }.into()),
    }
}

pub(in crate::rootfs) fn remove_retained(
    config: &DirConfig,
    id: RetainedId,
) -> Result<(), RootfsError> {
    Ok(tree::remove(&path_of(config, id))?)
}

/// The bytes that a retained tree takes; fewer when counting takes too long.
pub(in crate::rootfs) fn bytes(config: &DirConfig, id: RetainedId) -> Result<u64, RootfsError> {
    let usage = tree::usage(&path_of(config, id), Instant::now() + USAGE_TIME)?;
    Ok(usage.bytes)
}

pub(in crate::rootfs) fn list(config: &DirConfig) -> Result<Vec<FoundRetained>, RootfsError> {
    let entries = match fs::read_dir(&config.guests) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", &config.guests)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.on("list", &config.guests)?;
        if let Entry::Retained(id) = Entry::of(&entry.file_name()) {
            let object = entry.path().display().to_string();
            found.push(FoundRetained { id, object });
        }
    }
    found.sort();
    Ok(found)
}

/// Writes the names in the directory of the trees to the disk.
fn write_entries(config: &DirConfig) -> Result<(), RootfsError> {
    let guests: &Path = &config.guests;
    let synced = File::open(guests).and_then(|directory| directory.sync_all());
    Ok(synced.on("write to the disk", guests)?)
}

#[cfg(test)]
mod tests {
    use innkeeper_facilities::{Found, Resource, Rootfs};
    use innkeeper_model::{Code, Explain, FileWork, Guest, SnapshotLabel};

    use super::super::super::test_guest;
    use super::super::fixture::TempRootfs;
    use super::*;

    /// A driver with a guest `web` that has a file `home/work`, a snapshot and a console log.
    async fn with_web() -> TempRootfs {
        let temp = TempRootfs::with_web("work").await;
        let label = SnapshotLabel::parse("one").expect("valid");
        let taken = temp.rootfs.snapshot(&test_guest("web").name, &label).await;
        taken.expect("taken");
        fs::write(temp.at("web/console.log"), "its last line").expect("written");
        temp
    }

    impl TempRootfs {
        async fn retain(&self, id: i64) -> bool {
            let name = test_guest("web").name;
            let retained = self.rootfs.retain(&name, RetainedId(id)).await;
            retained.expect("retained")
        }
    }

    fn adopting(name: &str, id: i64) -> Guest {
        Guest {
            file_work: Some(FileWork::Adopt(RetainedId(id))),
            ..test_guest(name)
        }
    }

    #[tokio::test]
    async fn retain_and_adopt_are_idempotent() {
        let temp = with_web().await;
        for _ in 0..2 {
            assert!(temp.retain(7).await);
            assert_eq!(temp.names(""), [".retained-7"]);
        }
        let kept = fs::read_dir(temp.at(".retained-7")).expect("lists");
        assert_eq!(kept.count(), 1, "only the tree");
        assert!(temp.rootfs.observe().await.expect("observes").is_empty());
        let kept = temp.rootfs.retained().await.expect("lists");
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].id, RetainedId(7));
        let bytes = temp.rootfs.retained_bytes(RetainedId(7)).await;
        assert!(bytes.expect("counts") > 0);

        for _ in 0..2 {
            temp.rootfs
                .ensure(&adopting("new", 7))
                .await
                .expect("adopts");
            assert_eq!(temp.names(""), ["new"]);
            let work = fs::read_to_string(temp.at("new/rootfs/home/work"));
            assert_eq!(work.expect("reads"), "work");
        }
        let missing = temp.rootfs.ensure(&adopting("other", 8)).await;
        assert_eq!(missing.expect_err("refused").code(), Code::RetainedNotFound);
        assert_eq!(temp.names(""), ["new"]);
    }

    #[tokio::test]
    async fn retain_and_adopt_repaths_remains() {
        let temp = with_web().await;
        for left in [
            ".retained-7/rootfs/old",
            ".web.new/rootfs",
            ".web.gone/rootfs",
            "new/rootfs/old",
        ] {
            fs::create_dir_all(temp.at(left)).expect("left over");
        }
        assert!(temp.retain(7).await);
        assert_eq!(temp.names(""), [".retained-7", "new"]);
        assert!(!temp.at(".retained-7/rootfs/old").exists());
        temp.rootfs
            .ensure(&adopting("new", 7))
            .await
            .expect("adopts");
        assert!(temp.at("new/rootfs/home/work").exists());
        assert!(!temp.at("new/rootfs/old").exists());
    }

    #[tokio::test]
    async fn retained_trees_can_be_removed_and_swept() {
        let temp = with_web().await;
        temp.rootfs
            .remove(&test_guest("web").name)
            .await
            .expect("removes");
        assert!(!temp.retain(7).await);
        let temp = with_web().await;
        assert!(temp.retain(7).await);
        for _ in 0..2 {
            let removed = temp.rootfs.remove_retained(RetainedId(7)).await;
            removed.expect("removes");
            assert!(temp.names("").is_empty());
        }
        for foreign in [
            ".retained-",
            ".retained-0",
            ".retained-07",
            ".retained-+7",
            ".retained-x",
        ] {
            fs::create_dir_all(temp.at(foreign)).expect("foreign");
        }
        fs::create_dir_all(temp.at(".retained-9/rootfs")).expect("an orphan");
        let found = temp.rootfs.retained().await.expect("lists");
        assert_eq!(found.len(), 1);
        let orphan = Found::ours(None, found[0].object.clone());
        temp.rootfs.sweep(&orphan).await.expect("sweeps");
        assert_eq!(temp.names("").len(), 5);
    }
}
