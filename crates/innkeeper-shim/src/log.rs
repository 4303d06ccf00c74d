//! A log with a size limit that never blocks its writer.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Appends to a file. A full file is rotated to `<file>.1`, so the log takes at most twice its limit.
pub(crate) struct Log {
    path: PathBuf,
    limit: u64,
    /// The open file and its length. `None` while it cannot be written.
    open: Option<(File, u64)>,
}

impl Log {
    /// Opens a log at `path` with at most `limit` bytes in each of its two files, and creates the file.
    pub(crate) fn new(path: &Path, limit: u64) -> Self {
        let mut log = Self {
            path: path.to_owned(),
            limit,
            open: None,
        };
        // On failure, `append` retries.
        log.open = log.reopen().ok();
        log
    }

    /// Copies all of `source`. Drops bytes that cannot be written, for example to a full disk: the log must not block
    /// the guest.
    pub(crate) fn drain(&mut self, mut source: impl Read) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if self.append(&buffer[..length]).is_err() {
                        // Reopened with the next chunk: the disk may have space by then.
                        self.open = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (mut file, length) = match self.open.take() {
                Some(open) => open,
                None => self.reopen()?,
            };
            let room = self.limit.saturating_sub(length);
            if room == 0 && length > 0 {
                fs::rename(&self.path, self.rotated())?;
                continue;
            }
            let room = usize::try_from(room.max(1)).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            file.write_all(now)?;
            self.open = Some((file, length + now.len() as u64));
            bytes = later;
        }
        Ok(())
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn rotated(&self) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(".1");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("shim-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        #[expect(clippy::disallowed_methods, reason = "no guest writes here")]
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("removed");
        }
    }

    #[test]
    fn a_log_keeps_the_newest_bytes_within_twice_its_limit() {
        let scratch = Scratch::new("newest");
        let path = scratch.0.join("log");
        let text: Vec<u8> = (0..1000u32)
            .map(|n| b'a' + u8::try_from(n % 26).expect("small"))
            .collect();
        Log::new(&path, 64).drain(&text[..300]);
        Log::new(&path, 64).drain(&text[300..]);
        let rotated = fs::read(scratch.0.join("log.1")).expect("a rotated log");
        let current = fs::read(&path).expect("a log");
        assert_eq!(rotated.len(), 64);
        assert!(current.len() <= 64);
        let kept = [rotated, current].concat();
        assert_eq!(kept, text[text.len() - kept.len()..]);
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_block() {
        let mut source = io::Cursor::new(vec![b'x'; 100_000]);
        Log::new(Path::new("/dev/full"), u64::MAX).drain(&mut source);
        assert_eq!(source.position(), 100_000);
        source.set_position(0);
        Log::new(Path::new("/proc/no such directory/log"), 10).drain(&mut source);
        assert_eq!(source.position(), 100_000);
    }
}
