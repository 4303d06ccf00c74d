//! The lock of a state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_host::{FileError, FileErrorExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A failure to lock the state directory.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds the lock.
    #[error("another innkeeperd{holder} uses {}", directory.display())]
    Held {
        /// The state directory.
        directory: PathBuf,
        /// ` (process N)`, if the lock file contains it.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The lock. The kernel releases it when the process ends.
#[derive(Debug)]
pub(crate) struct StateLock(#[expect(dead_code, reason = "held, never read")] File);

impl StateLock {
    /// Acquires the lock of a state directory.
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .on("open", &path)?;
        match exclusive(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).on("read", &path)?;
                let pid = pid.trim();
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder: if pid.is_empty() {
                        String::new()
                    } else {
                        format!(" (process {pid})")
                    },
                });
            }
            Err(error) => return Err(error).on("lock", &path).map_err(Into::into),
        }
        file.set_len(0).on("truncate", &path)?;
        file.rewind().on("rewind", &path)?;
        // Best effort, for the error message: on a full disk the lock is valid without it.
        drop(writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}

/// Attempts before the lock counts as held, and the pause between them. A program that a killed daemon was starting holds
/// the lock until its exec.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Locks a file, or fails with [`Errno::WOULDBLOCK`].
pub(crate) fn exclusive(file: &File) -> Result<(), Errno> {
    for _ in 1..ATTEMPTS {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}
