//! Marks of hosts that have changed, and links whose access times show visits of settled hosts.
//!
//! ```text
//! <table>/changed/<generation>/<label>   the host has changed since the configuration of this generation was rendered
//! <table>/visited/<label>                -> ../changed, the way to the mark
//! ```
//!
//! A mark is created before the change, so that neither a crash nor a configuration that Caddy still runs makes a former address
//! valid. No mark is ever removed alone: the next configuration has another generation.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::files::{create, make_dir, names};
use super::render::{CHANGED_DIR, SettledPart, VISITED_DIR, listing_digest};
use crate::{FileError, FileErrorExt, tree};

/// Number of generations whose marks are kept: that in force, that before it, and one whose load failed.
const KEPT: usize = 3;

/// Access time, in seconds, of a directory or link that was not used since the last check.
pub(super) const UNVISITED: i64 = 0;

/// The two directories. The caller must serialize writers.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    changed: PathBuf,
    pub(super) visited: PathBuf,
}

impl Marks {
    pub(super) fn new(table: &Path) -> Self {
        Self {
            changed: table.join(CHANGED_DIR),
            visited: table.join(VISITED_DIR),
        }
    }

    /// Marks hosts as changed in all generations.
    pub(super) fn mark_changed<'a>(
        &self,
        labels: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), FileError> {
        let generations = names(&self.changed)?;
        for label in labels {
            for generation in &generations {
                mark(&self.changed.join(generation), label)?;
            }
        }
        Ok(())
    }

    /// Marks the hosts of a preview's directory, such as one that is about to be removed.
    pub(super) fn mark_preview(&self, dir: &Path) -> Result<(), FileError> {
        let hosts = names(&dir.join("hosts"))?;
        self.mark_changed(hosts.iter().map(|host| label(host)))
    }

    /// Reports whether a generation's marks are recorded: they are lost with the table.
    pub(super) fn has(&self, generation: u64) -> bool {
        self.dir(generation).is_dir()
    }

    /// Returns the marked hosts of a generation.
    pub(super) fn marked(&self, generation: u64) -> Result<BTreeSet<String>, FileError> {
        Ok(names(&self.dir(generation))?.into_iter().collect())
    }

    /// Marks the hosts whose routes in the configuration are not those of the table, for example after a restored backup.
    pub(super) fn mark_differences(
        &self,
        part: &SettledPart,
        listings: &BTreeMap<String, String>,
    ) -> Result<(), FileError> {
        let Some(generation) = part.generation() else {
            return Ok(());
        };
        for (label, digest) in part.hosts() {
            let is_same = listings
                .get(&label)
                .is_some_and(|listing| listing_digest(listing) == digest);
            if !is_same {
                mark(&self.dir(generation), &label)?;
            }
        }
        Ok(())
    }

    /// Returns the number of a new generation, whose marks are recorded from now on.
    pub(super) fn begin_generation(&self, labels: &BTreeSet<String>) -> Result<u64, FileError> {
        let next = self.generations()?.last().map_or(1, |last| last + 1);
        make_dir(&self.dir(next))?;
        make_dir(&self.visited)?;
        for label in labels {
            let link = self.visited.join(label);
            match symlink(format!("../{CHANGED_DIR}"), &link) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                outcome => {
                    outcome.on("create", &link)?;
                    set_unvisited(&link)?;
                }
            }
        }
        Ok(next)
    }

    /// Removes the marks of former generations and the links of hosts that are not settled.
    pub(super) fn end_generations(&self, part: &SettledPart) -> Result<(), FileError> {
        let generations = self.generations()?;
        let former = generations.len().saturating_sub(KEPT);
        for generation in generations.into_iter().take(former) {
            if Some(generation) != part.generation() {
                tree::remove(&self.dir(generation))?;
            }
        }
        let hosts = part.hosts();
        for label in names(&self.visited)? {
            if !hosts.contains_key(&label) {
                tree::remove(&self.visited.join(label))?;
            }
        }
        Ok(())
    }

    fn dir(&self, generation: u64) -> PathBuf {
        self.changed.join(generation.to_string())
    }

    /// Returns the numbers of the generations in ascending order.
    fn generations(&self) -> Result<Vec<u64>, FileError> {
        let names = names(&self.changed)?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Returns the label of a host.
pub(super) fn label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

fn mark(dir: &Path, label: &str) -> Result<(), FileError> {
    let path = dir.join(label);
    if path.is_file() {
        return Ok(());
    }
    create(&path, b"").map(drop)
}

/// Resets the access time of a directory or a link.
pub(super) fn set_unvisited(path: &Path) -> Result<(), FileError> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: UNVISITED,
            tv_nsec: 0,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).on("change the times of", path)
}
