//! Paths of the host's store that a guest's own Nix uses without copying them.
//!
//! A guest that builds with Nix puts a writable layer over the host's store (`local-overlay-store`). Its Nix needs to know
//! the valid paths of the host's store. Neither the host's Nix daemon nor its database is visible in a guest, so the daemon
//! writes a database of the paths that the guest may use:
//!
//! | path | object |
//! | --- | --- |
//! | `<gcroots>/.nix/<guest>/roots/<hash>-<name>` | GC root of a path that the guest may use, with all that it refers to |
//! | `<gcroots>/.nix/<guest>/state/db/db.sqlite` | Nix's database of these paths, bound read-only into the guest |
//!
//! The guest may use its closure, and what the host's GC roots keep at the time of its start. Roots precede the database that
//! lists their paths. They are only added while the guest exists: its files, and snapshots of them, may refer to any path that
//! it ever could use.
//!
//! The closure of an agent requests this with the file [`REQUEST`]. Previews get nothing of it, whatever their closure contains: it
//! is the work of strangers, and a guest with user ids of its own in the store reads files that only their owner can read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use innkeeper_facilities::Found;
use innkeeper_model::{GuestKind, GuestName, Ownership, STORE_DIR, StorePath};

use super::ClosureError;
use super::roots::owner;
use super::store::{Resolved, resolve};
use crate::identity::Identity;
use crate::{FileErrorExt, tree};

mod database;
mod kept;

pub(super) use database::DatabaseError;

/// The file of a closure whose guest builds with Nix.
const REQUEST: &str = "etc/innkeeper/nix";

/// The name of the directory of all guests. No GC root of another program is expected below such a directory.
const PARENT: &str = ".nix";

/// The directories that a read-only store of Nix expects to exist.
const STATE: [&str; 4] = ["db", "profiles/per-user", "gcroots/per-user", "temproots"];

/// Reports whether a guest of this kind, with this closure, builds with Nix.
pub(crate) fn is_requested(kind: GuestKind, closure: &StorePath) -> bool {
    match kind {
        GuestKind::Agent => has_request(closure),
        GuestKind::Preview => false,
    }
}

/// Reports whether the database of the host's Nix lists a path as valid. `None` if that cannot be read without Nix.
pub(super) fn lists(state: &Path, path: &StorePath) -> Option<bool> {
    database::lists(&state.join("db"), path)
}

fn has_request(closure: &StorePath) -> bool {
    let request = closure.as_path().join(REQUEST);
    matches!(
        resolve(Path::new(STORE_DIR), &request),
        Ok(Resolved::Inside(_))
    )
}

/// Returns the directory of a guest's database, which is bound into the guest.
pub(crate) fn state_dir(gcroots: &Path, guest: &GuestName) -> PathBuf {
    GuestDir::of(gcroots, guest).state()
}

/// The directory of a guest.
struct GuestDir(PathBuf);

impl GuestDir {
    fn of(gcroots: &Path, guest: &GuestName) -> Self {
        Self(parent(gcroots).join(guest.as_str()))
    }

    fn roots(&self) -> PathBuf {
        self.0.join("roots")
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// Creates the directory for GC roots, and marks it.
    fn create(&self, identity: &Identity) -> Result<(), ClosureError> {
        if owner(identity, &self.0)? == Some(Ownership::Other) {
            return Err(ClosureError::OtherDaemon(self.0.display().to_string()));
        }
        let roots = self.roots();
        fs::create_dir_all(&roots).on("create", &roots)?;
        identity.mark(&self.0).on("mark", &self.0)?;
        Ok(())
    }

    /// Adds GC roots. They are on disk when this returns.
    fn keep(&self, paths: &BTreeSet<StorePath>) -> Result<(), ClosureError> {
        let roots = self.roots();
        let mut changed = false;
        for path in paths {
            let Some(name) = path.as_path().file_name() else {
                continue;
            };
            let root = roots.join(name);
            match symlink(path.as_path(), &root) {
                Ok(()) => changed = true,
                // The name contains the target.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Ok(Err(error).on("create", &root)?),
            }
        }
        if changed {
            let sync = || fs::File::open(&roots)?.sync_all();
            sync().on("write to the disk", &roots)?;
        }
        Ok(())
    }

    /// Returns the paths with GC roots.
    fn kept(&self) -> Result<BTreeSet<StorePath>, ClosureError> {
        let roots = self.roots();
        let entries = match fs::read_dir(&roots) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.on("list", &roots)?,
        };
        let mut paths = BTreeSet::new();
        for entry in entries {
            let name = entry.on("list", &roots)?.file_name();
            let path = StorePath::parse(&format!("{STORE_DIR}/{}", name.to_string_lossy()));
            paths.extend(path);
        }
        Ok(paths)
    }
}

/// Gives a guest's Nix a current database.
pub(super) fn ensure(
    gcroots: &Path,
    nix_state: &Path,
    identity: &Identity,
    guest: &GuestName,
    closure: &StorePath,
) -> Result<(), ClosureError> {
    let dir = GuestDir::of(gcroots, guest);
    dir.create(identity)?;
    let mut paths = kept::paths(nix_state, PARENT)?;
    paths.insert(closure.clone());
    dir.keep(&paths)?;
    paths.extend(dir.kept()?);
    let state = dir.state();
    for name in STATE {
        let path = state.join(name);
        fs::create_dir_all(&path).on("create", &path)?;
    }
    Ok(database::write(
        &nix_state.join("db"),
        &state.join("db"),
        &paths,
    )?)
}

/// Gives a guest that is a copy of another one the same GC roots.
pub(super) fn inherit(
    gcroots: &Path,
    identity: &Identity,
    origin: &GuestName,
    guest: &GuestName,
) -> Result<(), ClosureError> {
    let paths = GuestDir::of(gcroots, origin).kept()?;
    if paths.is_empty() {
        return Ok(());
    }
    let dir = GuestDir::of(gcroots, guest);
    dir.create(identity)?;
    dir.keep(&paths)
}

/// Removes a guest's directory unless it belongs to another daemon.
pub(super) fn remove(
    gcroots: &Path,
    identity: &Identity,
    guest: &GuestName,
) -> Result<(), ClosureError> {
    let GuestDir(dir) = GuestDir::of(gcroots, guest);
    if owner(identity, &dir)? != Some(Ownership::Other) {
        tree::remove(&dir)?;
    }
    Ok(())
}

/// Lists the directories of guests.
pub(super) fn observe(gcroots: &Path, identity: &Identity) -> Result<Vec<Found>, ClosureError> {
    let parent = parent(gcroots);
    let entries = match fs::read_dir(&parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", &parent)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.on("list", &parent)?.path();
        let Some(guest) = parse(gcroots, &path) else {
            continue;
        };
        // Skips a directory that is removed meanwhile.
        if let Some(ownership) = owner(identity, &path)? {
            found.push(Found {
                guest: Some(guest),
                object: path.display().to_string(),
                ownership,
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a directory that [`observe`] found.
pub(super) fn sweep(identity: &Identity, found: &Found) -> Result<(), ClosureError> {
    let dir = Path::new(&found.object);
    // The owner may have changed since the observation.
    let is_same = owner(identity, dir)? == Some(found.ownership);
    if is_same && found.ownership != Ownership::Other {
        tree::remove(dir)?;
    }
    Ok(())
}

/// Reports whether an object is a guest's directory.
pub(super) fn is_guest_dir(gcroots: &Path, found: &Found) -> bool {
    parse(gcroots, Path::new(&found.object)).is_some()
}

/// Returns the guest of a directory.
fn parse(gcroots: &Path, path: &Path) -> Option<GuestName> {
    let name = path.file_name()?.to_str()?;
    let guest = GuestName::parse(name).ok()?;
    (path == GuestDir::of(gcroots, &guest).0).then_some(guest)
}

/// Returns the directory of all guests. Nix finds GC roots at any depth.
fn parent(gcroots: &Path) -> PathBuf {
    gcroots.join(PARENT)
}

#[cfg(test)]
mod tests;
