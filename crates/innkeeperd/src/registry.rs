//! The registry of this host's daemons and their claims.
//!
//! `<daemons_dir>/<identity>.json` contains a daemon's claims. The daemon writes it before it changes anything on the host.
//! The file stays while the daemon does not run, because its guests and other objects remain. It is stale when the
//! daemon's database is gone. A running daemon holds a lock on its file: this prevents a copy of its state directory, which
//! has the same identity, from running beside it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use innkeeper_host::{FileError, FileErrorExt};
use innkeeper_model::DaemonId;
use serde::{Deserialize, Serialize};

use crate::claims::{self, Claim, Conflict};
use crate::lock;

/// The content of a daemon's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The daemon's identity.
    pub(crate) daemon: DaemonId,
    /// The directory of its database.
    pub(crate) state_dir: PathBuf,
    /// Its claims.
    pub(crate) claims: Vec<Claim>,
}

/// The lock on the daemon's file. The kernel releases it when the process ends.
#[derive(Debug)]
pub(crate) struct Registration(#[expect(dead_code, reason = "held, never read")] File);

/// A reason why a daemon may not run beside the others of the host.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another daemon uses a resource that this one is configured to use.
    #[error(
        "another daemon of this host, with its state in {others}, uses what this one is configured to use: {shared}"
    )]
    Shared {
        /// The state directories of the other daemons.
        others: String,
        /// The settings, with both values if they differ.
        shared: String,
        /// The suggested values.
        remedy: String,
    },
    /// The state directory is a copy.
    #[error("{} is a copy of {}: both are the same daemon ({daemon})", copy.display(), origin.display())]
    Copied {
        /// This daemon's state directory.
        copy: PathBuf,
        /// The other one.
        origin: PathBuf,
        /// The identity of both.
        daemon: DaemonId,
    },
    /// A file of the registry is malformed.
    #[error("cannot read the claims of another daemon of this host from {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The parse error.
        #[source]
        source: serde_json::Error,
    },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

impl RegistryError {
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Shared { remedy, others, .. } => Some(format!(
                "{remedy} If the other daemon is no longer used, destroy its guests with it, then remove {others}."
            )),
            Self::Copied { copy, origin, .. } => Some(format!(
                "Keep one of them: remove {} if the directory was moved, otherwise remove {}; a second daemon starts with an empty state_dir.",
                origin.display(),
                copy.display()
            )),
            Self::Unreadable { path, .. } => Some(format!(
                "Remove {}, then start the daemon that it belongs to first: it writes the file again.",
                path.display()
            )),
            Self::File(error) => error.remedy(),
        }
    }
}

/// Registers a daemon, unless another daemon has a conflicting claim.
pub(crate) fn join(dir: &Path, entry: &Entry) -> Result<Registration, RegistryError> {
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(dir).on("create", dir)?;
    let _lock = lock_directory(dir)?;
    let mut others = Vec::new();
    for (path, found) in entries(dir)? {
        if found.daemon == entry.daemon {
            require_original(&path, &found, entry)?;
        } else if is_stale(&found) || same_directory(&found.state_dir, &entry.state_dir) {
            fs::remove_file(&path).on("remove", &path)?;
        } else {
            others.push(found);
        }
    }
    refuse_shared(&others, &entry.claims)?;
    let path = dir.join(format!("{}.json", entry.daemon));
    write(&path, entry)?;
    let file = File::open(&path).on("open", &path)?;
    match lock::exclusive(&file) {
        // Locked by another program, for example an editor: the state directory's lock still protects the identity.
        Ok(()) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(Registration(file)),
        Err(error) => Err(error).on("lock", &path).map_err(Into::into),
    }
}

/// Returns the settings in conflict with any daemon of the host, and the remedy: for the error of a second daemon in one
/// state directory. `None` without a conflict, or if the registry cannot be read.
pub(crate) fn shared(dir: &Path, claims: &[Claim]) -> Option<(String, String)> {
    let others: Vec<_> = entries(dir)
        .ok()?
        .into_iter()
        .map(|(_, entry)| entry)
        .collect();
    let conflicts = conflicts(&others, claims);
    (!conflicts.is_empty()).then(|| {
        (
            join_conflicts(&conflicts),
            claims::remedy(&conflicts, &all(&others)),
        )
    })
}

fn join_conflicts(conflicts: &[Conflict]) -> String {
    let mut listed: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    listed.dedup();
    listed.join(", ")
}

fn refuse_shared(others: &[Entry], claims: &[Claim]) -> Result<(), RegistryError> {
    let conflicts = conflicts(others, claims);
    if conflicts.is_empty() {
        return Ok(());
    }
    let with: Vec<_> = others
        .iter()
        .filter(|other| {
            conflicts
                .iter()
                .any(|one| other.claims.contains(&one.other))
        })
        .map(|other| other.state_dir.display().to_string())
        .collect();
    Err(RegistryError::Shared {
        others: with.join(" and "),
        shared: join_conflicts(&conflicts),
        remedy: claims::remedy(&conflicts, &all(others)),
    })
}

fn all(others: &[Entry]) -> Vec<Claim> {
    others
        .iter()
        .flat_map(|other| other.claims.clone())
        .collect()
}

fn conflicts(others: &[Entry], claims: &[Claim]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for own in claims {
        for other in others.iter().flat_map(|entry| &entry.claims) {
            if own.excludes(other) {
                conflicts.push(Conflict {
                    own: own.clone(),
                    other: other.clone(),
                });
            }
        }
    }
    conflicts
}

/// Rejects a copy of a state directory, also while the original's daemon does not run.
fn require_original(path: &Path, found: &Entry, entry: &Entry) -> Result<(), RegistryError> {
    let file = File::open(path).on("open", path)?;
    // This daemon holds the lock of its state directory, so a running one has another directory.
    let runs = matches!(lock::exclusive(&file), Err(rustix::io::Errno::WOULDBLOCK));
    let is_elsewhere = !same_directory(&found.state_dir, &entry.state_dir);
    if is_elsewhere && (runs || !is_stale(found)) {
        return Err(RegistryError::Copied {
            copy: entry.state_dir.clone(),
            origin: found.state_dir.clone(),
            daemon: entry.daemon.clone(),
        });
    }
    Ok(())
}

/// Reports whether the daemon's database is gone.
fn is_stale(entry: &Entry) -> bool {
    let database = entry.state_dir.join("innkeeper.db");
    // With any other error, the database may exist.
    matches!(fs::symlink_metadata(database), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

fn same_directory(one: &Path, two: &Path) -> bool {
    let id = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    one == two || id(one).is_some_and(|one| Some(one) == id(two))
}

fn lock_directory(dir: &Path) -> Result<File, RegistryError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).on("open", &path)?;
    // Held briefly. The attempts are limited, because a hanging daemon must not block all others.
    lock::exclusive(&file).on("lock", &path)?;
    Ok(file)
}

fn entries(dir: &Path) -> Result<Vec<(PathBuf, Entry)>, RegistryError> {
    let mut entries = Vec::new();
    let listed = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(entries),
        listed => listed.on("list", dir)?,
    };
    for found in listed {
        let path = found.on("list", dir)?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.on("read", &path)?,
        };
        let entry = serde_json::from_slice(&text).map_err(|source| RegistryError::Unreadable {
            path: path.clone(),
            source,
        })?;
        entries.push((path, entry));
    }
    entries.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(entries)
}

/// Writes a daemon's file atomically. Skips an unchanged file, so that a daemon also starts on a full disk.
fn write(path: &Path, entry: &Entry) -> Result<(), RegistryError> {
    let text = serde_json::to_vec_pretty(entry).map_err(|source| RegistryError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    if fs::read(path).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).on("create", &temporary)?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .on("write", &temporary)?;
    fs::rename(&temporary, path).on("create", path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("directory"))
        }

        /// A daemon that has run, with its state in a directory of this name.
        fn daemon(&self, digit: char, name: &str, table: &str) -> Entry {
            let state_dir = self.0.path().join(name);
            fs::create_dir_all(&state_dir).expect("directory");
            fs::write(state_dir.join("innkeeper.db"), "").expect("database");
            let claim = |setting: &str, value: String| Claim {
                setting: setting.to_owned(),
                value,
            };
            Entry {
                daemon: DaemonId::parse(&digit.to_string().repeat(32)).expect("identity"),
                claims: vec![
                    claim("state_dir", state_dir.display().to_string()),
                    claim("network.table", table.to_owned()),
                ],
                state_dir,
            }
        }

        fn join(&self, entry: &Entry) -> Result<Registration, RegistryError> {
            join(&self.0.path().join("daemons"), entry)
        }
    }

    #[test]
    fn claims_of_running_and_stopped_daemons_are_protected() {
        let host = Host::new();
        let (first, second) = (
            host.daemon('a', "one", "innkeeper"),
            host.daemon('b', "two", "innkeeper"),
        );
        let running = host.join(&first).expect("alone");
        let refusals = [host.join(&second), {
            drop(running);
            host.join(&second)
        }];
        for refused in refusals {
            let error = refused.expect_err("shared");
            let text = error.to_string();
            assert!(text.contains("network.table = \"innkeeper\""), "{text}");
            assert!(!text.contains("state_dir ="), "{text}");
            let remedy = error.remedy().expect("one");
            assert!(
                remedy.contains("network.table = \"innkeeper_2\""),
                "{remedy}"
            );
        }
        let third = host.daemon('b', "two", "innkeeper_2");
        let _beside = host.join(&third).expect("nothing is shared");
        host.join(&first).expect("as before");
    }

    #[test]
    fn claims_of_a_removed_daemon_are_free() {
        let host = Host::new();
        let first = host.daemon('a', "one", "innkeeper");
        drop(host.join(&first).expect("alone"));
        fs::remove_file(first.state_dir.join("innkeeper.db")).expect("removed");
        host.join(&host.daemon('b', "two", "innkeeper"))
            .expect("the other is gone");
        assert!(
            !host
                .0
                .path()
                .join("daemons")
                .join(format!("{}.json", first.daemon))
                .exists()
        );
    }

    #[test]
    fn a_new_database_replaces_its_predecessors_claims() {
        let host = Host::new();
        drop(
            host.join(&host.daemon('a', "one", "innkeeper"))
                .expect("alone"),
        );
        host.join(&host.daemon('b', "one", "innkeeper"))
            .expect("in its place");
    }

    #[test]
    fn copied_state_directory_is_rejected_and_moved_one_accepted() {
        let host = Host::new();
        let original = host.daemon('a', "one", "innkeeper");
        let copy = host.daemon('a', "two", "innkeeper_2");
        let running = host.join(&original).expect("alone");
        let refused = host.join(&copy).expect_err("copied");
        assert!(matches!(refused, RegistryError::Copied { .. }), "{refused}");
        drop(running);
        host.join(&copy).expect_err("the original is only stopped");
        fs::remove_file(original.state_dir.join("innkeeper.db")).expect("removed");
        host.join(&copy).expect("it was moved");
    }

    #[test]
    fn a_malformed_file_is_an_error() {
        let host = Host::new();
        drop(
            host.join(&host.daemon('a', "one", "innkeeper"))
                .expect("alone"),
        );
        let file = host.0.path().join("daemons/odd.json");
        fs::write(&file, "{").expect("written");
        let error = host
            .join(&host.daemon('b', "two", "other"))
            .expect_err("unreadable");
        assert!(matches!(error, RegistryError::Unreadable { .. }), "{error}");
        assert!(error.remedy().expect("one").contains("odd.json"));
    }
}
