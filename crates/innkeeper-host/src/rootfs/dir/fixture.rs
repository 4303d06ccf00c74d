//! A driver in a temporary directory.

use std::fs;
use std::path::{Path, PathBuf};

use innkeeper_facilities::{Resource, Rootfs};
use innkeeper_model::GuestName;

use super::{DirConfig, DirRootfs};
use crate::features::UserIds;
use crate::identity::Identity;
use crate::rootfs::test_guest;

/// A driver whose trees are in a temporary directory.
pub(super) struct TempRootfs {
    pub(super) dir: tempfile::TempDir,
    pub(super) rootfs: DirRootfs,
}

impl TempRootfs {
    pub(super) fn new(user_ids: UserIds) -> Self {
        Self::with_min_free(user_ids, 0)
    }

    /// A driver that requires so many free bytes.
    pub(super) fn with_min_free(user_ids: UserIds, min_free: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let rootfs = DirRootfs::new(DirConfig {
            identity: Identity::of('a'),
            guests: dir.path().join("state/guests"),
            min_free,
            user_ids,
        });
        Self { dir, rootfs }
    }

    /// A driver with a guest `web`, whose file `home/work` has these contents.
    pub(super) async fn with_web(work: &str) -> Self {
        let temp = Self::new(UserIds::Mapped);
        temp.rootfs
            .ensure(&test_guest("web"))
            .await
            .expect("created");
        temp.write(work);
        temp
    }

    /// A path below the directory of the trees.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("state/guests").join(path)
    }

    /// Writes the file `home/work` of `web`.
    pub(super) fn write(&self, text: &str) {
        fs::write(self.at("web/rootfs/home/work"), text).expect("written");
    }

    /// Reads the file `home/work` of a tree.
    pub(super) fn read(&self, tree: &str) -> String {
        fs::read_to_string(self.at(tree).join("home/work")).expect("read")
    }

    /// Returns the names in a directory below that of the trees, sorted; none when it does not exist.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(directory)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    /// Observes the objects: guests and names.
    pub(super) async fn objects(&self) -> Vec<(Option<String>, String)> {
        let found = self.rootfs.observe().await.expect("observed");
        let name = |object: &str| {
            let name = Path::new(object).file_name().expect("a name").to_owned();
            name.into_string().expect("text")
        };
        found
            .into_iter()
            .map(|found| (found.guest.map(GuestName::into), name(&found.object)))
            .collect()
    }
}
