//! Copies of trees: snapshots, restored trees, and trees of new guests.
//!
//! A snapshot is `<guests>/<name>/snapshots/<label>`, a whole tree, and is removed with the guest's directory. `cp`
//! creates it, with owners, extended attributes, hard links and holes, sharing blocks if the file system can. A copy is
//! built under another name and renamed, or exchanged with the tree that it replaces. It is synced before the rename, and
//! the rename is synced before the store records it: a record must not outlive the files in a loss of power.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use innkeeper_facilities::FoundSnapshot;
use innkeeper_model::{Guest, GuestName, Origin, Ownership, SnapshotLabel};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::paths::GuestPaths;
use super::space::require_space;
use super::{DirConfig, DirRootfs, make_guests, remove};
use crate::command;
use crate::rootfs::RootfsError;
use crate::{FileErrorExt, tree};

impl GuestPaths {
    pub(super) fn snapshots(&self) -> PathBuf {
        self.guest.join("snapshots")
    }

    pub(in crate::rootfs) fn snapshot(&self, label: &SnapshotLabel) -> PathBuf {
        self.snapshots().join(label.as_str())
    }

    /// A snapshot that is being copied. No label begins with a dot.
    fn new_snapshot(&self, label: &SnapshotLabel) -> PathBuf {
        self.snapshots().join(format!(".{label}.new"))
    }

    /// The replacement of a tree that is being copied, and after the exchange the former tree.
    fn other_rootfs(&self) -> PathBuf {
        self.guest.join(".rootfs.new")
    }
}

impl DirRootfs {
    /// Creates the tree of a guest that starts as a copy, if it has none.
    pub(in crate::rootfs) async fn copy_guest(
        &self,
        guest: &Guest,
        origin: &Origin,
    ) -> Result<(), RootfsError> {
        let paths = GuestPaths::of(&self.config, &guest.name);
        if paths.rootfs().is_dir() {
            return Ok(());
        }
        let from = source(&self.config, &origin.guest, origin.snapshot.as_ref())?;
        let (name, new) = (guest.name.clone(), paths.new.clone());
        self.work(move |config| {
            make_guests(config)?;
            require_space(config)?;
            remove(config, &name)?;
            Ok(private().create(&new).on("create", &new)?)
        })
        .await?;
        self.copy(from, paths.new.join("rootfs"), paths.new, paths.guest)
            .await
    }

    pub(in crate::rootfs) async fn take(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), RootfsError> {
        let paths = GuestPaths::of(&self.config, guest);
        let from = source(&self.config, guest, None)?;
        let (snapshots, new) = (paths.snapshots(), paths.new_snapshot(label));
        let (name, its_label) = (guest.clone(), label.clone());
        self.work(move |config| {
            require_space(config)?;
            delete(config, &name, &its_label)?;
            Ok(private()
                .recursive(true)
                .create(&snapshots)
                .on("create", &snapshots)?)
        })
        .await?;
        self.copy(from, new.clone(), new, paths.snapshot(label))
            .await
    }

    pub(in crate::rootfs) async fn bring_back(
        &self,
        guest: &GuestName,
        label: &SnapshotLabel,
    ) -> Result<(), RootfsError> {
        let paths = GuestPaths::of(&self.config, guest);
        let from = source(&self.config, guest, Some(label))?;
        let other = paths.other_rootfs();
        let aside = other.clone();
        self.work(move |config| {
            require_space(config)?;
            Ok(tree::remove(&aside)?)
        })
        .await?;
        self.copy(from, other.clone(), other, paths.rootfs()).await
    }

    /// Copies a tree, then renames `part`, which contains the copy, to its place. An existing tree is exchanged with it and
    /// removed. When the copy or the rename fails, `part` is removed.
    pub(super) async fn copy(
        &self,
        from: PathBuf,
        to: PathBuf,
        part: PathBuf,
        target: PathBuf,
    ) -> Result<(), RootfsError> {
        let copied = run_cp(&from, &to).await;
        self.work(move |config| {
            let written = copied.and_then(|()| Ok(tree::write_to_disk(&to)?));
            let made = written.and_then(|()| put_in_place(&part, &target));
            let Err(error) = made else {
                return Ok(());
            };
            // The copy itself may have filled the disk.
            let full = require_space(config);
            if let Err(error) = tree::remove(&part) {
                tracing::warn!("{}", innkeeper_model::chain(&error));
            }
            full.and(Err(error))
        })
        .await
    }
}

/// Copies a tree. `cp` is killed with the daemon: the next daemon starts over in the same place.
pub(in crate::rootfs) async fn run_cp(from: &Path, to: &Path) -> Result<(), RootfsError> {
    let mut command = command::command("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "cp",
        "--archive",
        // Alone, --archive ignores extended attributes that the target does not take.
        "--preserve=xattr",
        "--one-file-system",
        "--remove-destination",
        "--reflink=auto",
        "--no-target-directory",
        "--",
    ]);
    command.args([from, to]);
    let copied = command::run_command(command, b"", command::COPY).await;
    copied.map(drop).map_err(|source| RootfsError::Copy {
        path: from.to_owned(),
        source,
    })
}

fn put_in_place(part: &Path, target: &Path) -> Result<(), RootfsError> {
    if target.is_dir() {
        renameat_with(CWD, part, CWD, target, RenameFlags::EXCHANGE).on("replace", target)?;
        tree::write_to_disk(target)?;
        // The next copy removes the remains, or the removal of the guest.
        if let Err(error) = tree::remove(part) {
            tracing::warn!("{}", innkeeper_model::chain(&error));
        }
        return Ok(());
    }
    fs::rename(part, target).on("create", target)?;
    Ok(tree::write_to_disk(target)?)
}

/// Returns the tree to copy.
fn source(
    config: &DirConfig,
    guest: &GuestName,
    snapshot: Option<&SnapshotLabel>,
) -> Result<PathBuf, RootfsError> {
    let paths = GuestPaths::of(config, guest);
    let guest = guest.clone();
    let (path, missing) = match snapshot {
        None => (paths.rootfs(), RootfsError::NoTree { guest }),
        Some(label) => {
            let label = label.clone();
            let path = paths.snapshot(&label);
            (path, RootfsError::NoSnapshot { guest, label })
        }
    };
    if path.is_dir() {
        Ok(path)
    } else {
        Err(missing)
    }
}

pub(super) fn private() -> fs::DirBuilder {
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    private
}

pub(in crate::rootfs) fn list(config: &DirConfig) -> Result<Vec<FoundSnapshot>, RootfsError> {
    let mut found = Vec::new();
    for guest in super::observe(config)?
        .into_iter()
        .filter_map(|found| found.guest)
    {
        let directory = GuestPaths::of(config, &guest).snapshots();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.on("list", &directory)?,
        };
        for entry in entries {
            let entry = entry.on("list", &directory)?;
            let name = entry.file_name();
            if let Some(label) = name.to_str().and_then(|name| name.parse().ok()) {
                let (guest, object) = (guest.clone(), entry.path().display().to_string());
                found.push(FoundSnapshot {
                    guest,
                    label,
                    object,
                    ownership: Ownership::Ours,
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(in crate::rootfs) fn delete(
    config: &DirConfig,
    guest: &GuestName,
    label: &SnapshotLabel,
) -> Result<(), RootfsError> {
    let paths = GuestPaths::of(config, guest);
    tree::remove(&paths.new_snapshot(label))?;
    Ok(tree::remove(&paths.snapshot(label))?)
}

/// Parses the path of a snapshot, as [`list`] returns it.
pub(super) fn at(config: &DirConfig, path: &Path) -> Option<(GuestName, SnapshotLabel)> {
    let mut names = path.strip_prefix(&config.guests).ok()?.iter();
    let mut next = || names.next()?.to_str();
    let guest = GuestName::parse(next()?).ok()?;
    let label = next().filter(|name| *name == "snapshots").and(next())?;
    let label = SnapshotLabel::parse(label).ok()?;
    next().is_none().then_some((guest, label))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
    use std::sync::Arc;

    use innkeeper_facilities::{Resource, Rootfs};
    use innkeeper_model::{Code, Explain, FileWork};

    use super::super::super::test_guest;
    use super::super::fixture::TempRootfs;
    use super::*;

    impl TempRootfs {
        /// The same directory when it is nearly full.
        fn full(&self) -> DirRootfs {
            let mut config = DirConfig::clone(&self.rootfs.config);
            config.min_free = u64::MAX;
            DirRootfs {
                config: Arc::new(config),
            }
        }

        /// Returns the names in the directory of the guest `web`, and of its snapshots.
        fn entries(&self) -> Vec<String> {
            let mut names = self.names("web");
            names.extend(self.names("web/snapshots"));
            names.sort();
            names
        }

        async fn labels(&self) -> Vec<String> {
            let found = self.rootfs.snapshots().await.expect("listed");
            found.iter().map(|one| one.label.to_string()).collect()
        }
    }

    fn web() -> GuestName {
        test_guest("web").name
    }

    fn label(text: &str) -> SnapshotLabel {
        SnapshotLabel::parse(text).expect("valid")
    }

    fn copy(snapshot: Option<&str>) -> Guest {
        let snapshot = snapshot.map(label);
        Guest {
            file_work: Some(FileWork::CopyOf(Origin {
                guest: web(),
                snapshot,
            })),
            ..test_guest("copy")
        }
    }

    #[tokio::test]
    async fn restore_is_idempotent() {
        let temp = TempRootfs::with_web("before").await;
        let (web, one) = (web(), label("one"));
        temp.rootfs.snapshot(&web, &one).await.expect("takes");
        for _ in 0..2 {
            temp.write("after");
            temp.rootfs.restore(&web, &one).await.expect("restores");
            assert_eq!(temp.read("web/rootfs"), "before");
        }
        assert_eq!(temp.entries(), ["one", "rootfs", "snapshots"]);
        temp.rootfs
            .delete_snapshot(&web, &one)
            .await
            .expect("deletes");
        temp.rootfs
            .delete_snapshot(&web, &one)
            .await
            .expect("is gone");
        assert_eq!(temp.entries(), ["rootfs", "snapshots"]);
        let gone = temp.rootfs.restore(&web, &one).await;
        assert_eq!(gone.expect_err("refused").code(), Code::SnapshotNotFound);
        temp.rootfs.remove(&web).await.expect("removes");
        assert_eq!(fs::read_dir(temp.at("")).expect("lists").count(), 0);
    }

    #[tokio::test]
    async fn copy_preserves_attributes_links_and_devices() {
        let temp = TempRootfs::with_web("before").await;
        let at = |path: &str| temp.at("web/rootfs/home").join(path);
        fs::hard_link(at("work"), at("same")).expect("link");
        symlink("/etc/shadow", at("link")).expect("link");
        let file = fs::File::create(at("holes")).expect("creates");
        file.set_len(1 << 30).expect("grows");
        std::os::unix::fs::chown(at("holes"), Some(1000), Some(100)).expect("chown");
        rustix::fs::mkfifoat(CWD, at("fifo"), 0o640.into()).expect("FIFO");
        // The second is what lets a program open raw sockets (capabilities(7), "File capability extended attributes").
        let raw_sockets = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        let attributes: [(&str, &[u8]); 2] = [
            ("user.mark", b"kept"),
            ("security.capability", &raw_sockets),
        ];
        let flags = rustix::fs::XattrFlags::empty();
        let set =
            attributes.map(|(name, value)| rustix::fs::setxattr(at("work"), name, value, flags));

        temp.rootfs
            .snapshot(&web(), &label("one"))
            .await
            .expect("takes");
        let copied = |name: &str| {
            let path = temp.at("web/snapshots/one/home").join(name);
            (fs::symlink_metadata(&path).expect(name), path)
        };
        assert_eq!(copied("work").0.ino(), copied("same").0.ino());
        let target = fs::read_link(copied("link").1).expect("a link");
        assert_eq!(target, Path::new("/etc/shadow"));
        let (holes, _) = copied("holes");
        assert_eq!(
            (holes.len(), holes.uid(), holes.gid()),
            (1 << 30, 1000, 100)
        );
        assert!(holes.blocks() < 1024, "{} blocks", holes.blocks());
        assert!(copied("fifo").0.file_type().is_fifo());
        for ((name, value), set) in attributes.into_iter().zip(set) {
            if let Err(error) = set {
                eprintln!("INNKEEPER-NOT-RUN: copies of the attribute {name}: {error}");
                continue;
            }
            let mut copy = [0; 32];
            let length = rustix::fs::getxattr(copied("work").1, name, &mut copy).expect(name);
            assert_eq!(&copy[..length], value, "{name}");
        }
    }

    #[tokio::test]
    async fn ensure_copies_another_guests_files() {
        let temp = TempRootfs::with_web("before").await;
        temp.rootfs
            .snapshot(&web(), &label("one"))
            .await
            .expect("takes");
        temp.write("after");
        for (snapshot, files) in [(None, "after"), (Some("one"), "before")] {
            fs::create_dir_all(temp.at(".copy.new/rootfs/half")).expect("left by a crash");
            temp.rootfs.ensure(&copy(snapshot)).await.expect("copies");
            assert_eq!(temp.read("copy/rootfs"), files);
            assert!(!temp.at("copy/rootfs/half").exists());
            assert!(!temp.at("copy/snapshots").exists());
            fs::write(temp.at("copy/rootfs/home/work"), "its own").expect("writes");
            temp.rootfs.ensure(&copy(snapshot)).await.expect("is there");
            assert_eq!(temp.read("copy/rootfs"), "its own");
            temp.rootfs.remove(&copy(None).name).await.expect("removes");
        }
        let gone = temp.rootfs.ensure(&copy(Some("two"))).await;
        assert_eq!(gone.expect_err("refused").code(), Code::SnapshotNotFound);
        assert!(!temp.at("copy").exists() && !temp.at(".copy.new").exists());
    }

    #[tokio::test]
    async fn copies_replace_remains_of_a_crash() {
        let temp = TempRootfs::with_web("before").await;
        let (web, one) = (web(), label("one"));
        fs::create_dir_all(temp.at("web/snapshots/.one.new/half")).expect("left");
        fs::create_dir_all(temp.at("web/snapshots/one/half")).expect("left");
        assert_eq!(temp.labels().await, ["one"]);
        temp.rootfs.snapshot(&web, &one).await.expect("takes");
        assert!(!temp.at("web/snapshots/one/half").exists());
        fs::create_dir_all(temp.at("web/.rootfs.new/half")).expect("left");
        temp.rootfs.restore(&web, &one).await.expect("restores");
        assert_eq!(temp.entries(), ["one", "rootfs", "snapshots"]);
        assert!(!temp.at("web/rootfs/half").exists());
    }

    #[tokio::test]
    async fn failed_copy_leaves_no_remains_and_keeps_the_tree() {
        let temp = TempRootfs::with_web("before").await;
        let (web, one) = (web(), label("one"));
        temp.rootfs.snapshot(&web, &one).await.expect("takes");
        temp.write("after");
        let full = temp.full();
        let refusals = [
            full.require_room().await,
            full.snapshot(&web, &label("two")).await,
            full.restore(&web, &one).await,
            full.ensure(&copy(None)).await,
        ];
        for refusal in refusals {
            assert_eq!(refusal.expect_err("no room").code(), Code::DiskFull);
        }
        assert!(full.pool().await.expect("reports").remedy.is_some());
        assert_eq!(temp.entries(), ["one", "rootfs", "snapshots"]);
        assert_eq!(temp.read("web/rootfs"), "after");
        let (from, target) = (temp.at("web/missing"), temp.at("web/other"));
        let torn = temp
            .rootfs
            .copy(from, target.clone(), target.clone(), target);
        assert_eq!(torn.await.expect_err("fails").code(), Code::RootfsFailed);
        assert_eq!(temp.entries(), ["one", "rootfs", "snapshots"]);
    }

    #[tokio::test]
    async fn snapshots_outlive_a_removed_tree_and_are_swept_singly() {
        let temp = TempRootfs::with_web("before").await;
        let web = web();
        for text in ["one", "two"] {
            temp.rootfs
                .snapshot(&web, &label(text))
                .await
                .expect("takes");
        }
        fs::create_dir_all(temp.at("web/snapshots/Foreign")).expect("foreign");
        let found = temp.rootfs.snapshots().await.expect("lists");
        let orphan = innkeeper_facilities::Found::ours(None, found[0].object.clone());
        temp.rootfs.sweep(&orphan).await.expect("sweeps");
        assert_eq!(temp.labels().await, ["two"]);
        assert_eq!(temp.read("web/rootfs"), "before");

        tree::remove(&temp.at("web/rootfs")).expect("removes");
        temp.rootfs.ensure(&test_guest("web")).await.expect("makes");
        assert_eq!(temp.labels().await, ["two"]);
        assert!(temp.at("web/rootfs/usr").is_dir() && !temp.at(".web.new").exists());
    }
}
