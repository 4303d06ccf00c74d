//! One daemon for each state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use innkeeper_host::{FileError, FileErrorExt};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Why the state directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon has it.
    #[error("another innkeeperd{holder} works on {}", directory.display())]
    Held {
        /// The state directory.
        directory: PathBuf,
        /// ` (process N)`, if it said so.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The lock. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct StateLock(#[expect(dead_code, reason = "held, never read")] File);

impl StateLock {
    /// Takes the lock of a state directory.
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
        // A courtesy to whoever is refused: on a full disk the lock holds without it.
        drop(writeln!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}

/// How often the lock is tried before somebody else counts as its holder, and the pause in between. A program that a
/// killed daemon was just starting holds it until it runs.
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
