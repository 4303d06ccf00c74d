//! Trees of destroyed agents, which are kept for a while as `<guests>/.retained-<number>`.
//!
//! A rename moves a tree there and back, so it is always whole in one of the two places, and neither way needs space. The
//! directory is written to the disk before the store records that the tree has moved: a record must not outlive the
//! files in a loss of power.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use innkeeper_facilities::{FilesMissing, FoundRetained};
use innkeeper_model::{GuestName, RetainedId};

use super::{DirConfig, Entry, Place, remove};
use crate::rootfs::{RootfsError, USAGE_TIME};
use crate::{FileErrorExt, tree};

const PREFIX: &str = ".retained-";

/// The number in the name of a retained tree.
pub(super) fn number(name: &str) -> Option<RetainedId> {
    let id: RetainedId = name.strip_prefix(PREFIX)?.parse().ok()?;
    // Only the name that we would give: no sign, no zeros in front.
    (id.0 > 0 && name == file_name(id)).then_some(id)
}

fn file_name(id: RetainedId) -> String {
    format!("{PREFIX}{id}")
}

fn place_of(config: &DirConfig, id: RetainedId) -> PathBuf {
    config.guests.join(file_name(id))
}

/// Moves a guest's tree. Says whether there is one now.
pub(in crate::rootfs) fn retain(
    config: &DirConfig,
    name: &GuestName,
    id: RetainedId,
) -> Result<bool, RootfsError> {
    let (place, kept) = (Place::of(config, name), place_of(config, id));
    if !place.rootfs().is_dir() {
        // It may have been moved before a crash.
        let is_kept = kept.join("rootfs").is_dir();
        if is_kept {
            remove(config, name)?;
        }
        return Ok(is_kept);
    }
    // One rename makes one of them the other, so this is of another database.
    tree::remove(&kept)?;
    tree::remove(&place.new)?;
    tree::remove(&place.gone)?;
    for entry in fs::read_dir(&place.guest).on("list", &place.guest)? {
        // Snapshots and the log go with the guest.
        let path = entry.on("list", &place.guest)?.path();
        if path != place.rootfs() {
            tree::remove(&path)?;
        }
    }
    fs::rename(&place.guest, &kept).on("rename", &place.guest)?;
    write_entries(config)?;
    Ok(true)
}

/// Makes a retained tree the one of a guest, if it is not yet.
pub(in crate::rootfs) fn adopt(
    config: &DirConfig,
    name: &GuestName,
    id: RetainedId,
) -> Result<(), RootfsError> {
    let (place, kept) = (Place::of(config, name), place_of(config, id));
    if kept.join("rootfs").is_dir() {
        // Anything under the guest's name is left over: it would be gone if the tree had been moved.
        remove(config, name)?;
        fs::rename(&kept, &place.guest).on("rename", &kept)?;
        return write_entries(config);
    }
    match place.rootfs().is_dir() {
        true => Ok(()),
        false => Err(FilesMissing { id }.into()),
    }
}

pub(in crate::rootfs) fn remove_retained(
    config: &DirConfig,
    id: RetainedId,
) -> Result<(), RootfsError> {
    Ok(tree::remove(&place_of(config, id))?)
}

/// The bytes that a retained tree takes; fewer when counting takes too long.
pub(in crate::rootfs) fn bytes(config: &DirConfig, id: RetainedId) -> Result<u64, RootfsError> {
    let usage = tree::usage(&place_of(config, id), Instant::now() + USAGE_TIME)?;
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
    use innkeeper_model::{Code, Explain, FileWork, Guest, SnapshotLabel};

    use super::super::super::test_guest;
    use super::super::DirRootfs;
    use super::*;
    use crate::features::UserIds;
    use innkeeper_facilities::{Found, Resource, Rootfs};

    struct House {
        dir: tempfile::TempDir,
        rootfs: DirRootfs,
    }

    impl House {
        /// With a guest `web` that has a file `home/work` and a snapshot.
        async fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory for the test");
            let rootfs = DirRootfs::new(DirConfig {
                identity: crate::identity::Identity::of('a'),
                guests: dir.path().join("guests"),
                min_free: 0,
                user_ids: UserIds::Mapped,
            });
            let house = Self { dir, rootfs };
            let web = test_guest("web");
            house.rootfs.ensure(&web).await.expect("makes");
            fs::write(house.at("web/rootfs/home/work"), "work").expect("writes");
            let label = SnapshotLabel::parse("one").expect("valid");
            house
                .rootfs
                .snapshot(&web.name, &label)
                .await
                .expect("takes");
            fs::write(house.at("web/console.log"), "its last words").expect("writes");
            house
        }

        fn at(&self, path: &str) -> PathBuf {
            self.dir.path().join("guests").join(path)
        }

        fn entries(&self) -> Vec<String> {
            let entries = fs::read_dir(self.at("")).expect("lists");
            let name = |entry: io::Result<fs::DirEntry>| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            };
            let mut names: Vec<_> = entries.map(name).collect();
            names.sort();
            names
        }

        async fn retain(&self, id: i64) -> bool {
            let name = test_guest("web").name;
            let retained = self.rootfs.retain(&name, RetainedId(id)).await;
            retained.expect("retains")
        }
    }

    fn adopting(name: &str, id: i64) -> Guest {
        Guest {
            file_work: Some(FileWork::Adopt(RetainedId(id))),
            ..test_guest(name)
        }
    }

    #[tokio::test]
    async fn a_tree_goes_and_comes_back_as_often_as_asked() {
        let house = House::new().await;
        for _ in 0..2 {
            assert!(house.retain(7).await);
            assert_eq!(house.entries(), [".retained-7"]);
        }
        let kept = fs::read_dir(house.at(".retained-7")).expect("lists");
        assert_eq!(kept.count(), 1, "only the tree");
        assert!(house.rootfs.observe().await.expect("observes").is_empty());
        let kept = house.rootfs.retained().await.expect("lists");
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].id, RetainedId(7));
        let bytes = house.rootfs.retained_bytes(RetainedId(7)).await;
        assert!(bytes.expect("counts") > 0);

        for _ in 0..2 {
            house
                .rootfs
                .ensure(&adopting("new", 7))
                .await
                .expect("adopts");
            assert_eq!(house.entries(), ["new"]);
            let work = fs::read_to_string(house.at("new/rootfs/home/work"));
            assert_eq!(work.expect("reads"), "work");
        }
        let missing = house.rootfs.ensure(&adopting("other", 8)).await;
        assert_eq!(missing.expect_err("refused").code(), Code::RetainedNotFound);
        assert_eq!(house.entries(), ["new"]);
    }

    #[tokio::test]
    async fn left_overs_of_both_names_give_way() {
        let house = House::new().await;
        for left in [
            ".retained-7/rootfs/old",
            ".web.new/rootfs",
            ".web.gone/rootfs",
            "new/rootfs/old",
        ] {
            fs::create_dir_all(house.at(left)).expect("left over");
        }
        assert!(house.retain(7).await);
        assert_eq!(house.entries(), [".retained-7", "new"]);
        assert!(!house.at(".retained-7/rootfs/old").exists());
        house
            .rootfs
            .ensure(&adopting("new", 7))
            .await
            .expect("adopts");
        assert!(house.at("new/rootfs/home/work").exists());
        assert!(!house.at("new/rootfs/old").exists());
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_kept_and_what_is_kept_can_be_removed() {
        let house = House::new().await;
        house
            .rootfs
            .remove(&test_guest("web").name)
            .await
            .expect("removes");
        assert!(!house.retain(7).await);
        let house = House::new().await;
        assert!(house.retain(7).await);
        for _ in 0..2 {
            let removed = house.rootfs.remove_retained(RetainedId(7)).await;
            removed.expect("removes");
            assert!(house.entries().is_empty());
        }
        for foreign in [
            ".retained-",
            ".retained-0",
            ".retained-07",
            ".retained-+7",
            ".retained-x",
        ] {
            fs::create_dir_all(house.at(foreign)).expect("foreign");
        }
        fs::create_dir_all(house.at(".retained-9/rootfs")).expect("an orphan");
        let found = house.rootfs.retained().await.expect("lists");
        assert_eq!(found.len(), 1);
        let orphan = Found::ours(None, found[0].object.clone());
        house.rootfs.sweep(&orphan).await.expect("sweeps");
        assert_eq!(house.entries().len(), 5);
    }
}
