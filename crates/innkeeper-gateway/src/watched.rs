//! A file that innkeeperd replaces as a whole. Each change takes effect with the next request.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use innkeeper_service::LogThrottle;
use parking_lot::Mutex;
use tracing::{error, info};

/// The maximum length of a file, in bytes.
const MAX_LENGTH: u64 = 16 << 20;

/// The contents of a file, read again when the file has changed.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    path: PathBuf,
    state: Mutex<State<T>>,
    warnings: LogThrottle,
}

/// Contents that are read from the text of a file.
pub(crate) trait Parse: Sized {
    /// The noun for the contents in the log.
    const NOUN: &'static str;

    /// Parses the whole file.
    ///
    /// # Errors
    /// When any part of it is invalid.
    fn parse(text: &[u8]) -> io::Result<Self>;

    /// Returns the number of entries.
    fn count(&self) -> usize;
}

#[derive(Debug)]
struct State<T> {
    read: Option<Stamp>,
    /// `None` while they are unknown.
    contents: Option<Arc<T>>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            read: None,
            contents: None,
        }
    }
}

/// The identity of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T: Parse> Watched<T> {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
            warnings: LogThrottle::default(),
        }
    }

    /// Returns the contents of the file as it is now, or `None` while it cannot be read. While the file does not exist, the
    /// former ones stay: a daemon that restarts writes it again.
    pub(crate) fn current(&self) -> Option<Arc<T>> {
        let mut state = self.state.lock();
        match fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata)) {
            Ok(stamp) if state.read == Some(stamp) => {}
            Ok(_) => *state = self.read(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.warn(&error);
                *state = State::default();
            }
        }
        state.contents.clone()
    }

    fn read(&self) -> State<T> {
        match read(&self.path) {
            Ok((stamp, contents)) => {
                let count = T::count(&contents);
                info!(count, "read the {} of innkeeperd", T::NOUN);
                State {
                    read: Some(stamp),
                    contents: Some(Arc::new(contents)),
                }
            }
            Err(error) => {
                self.warn(&error);
                State::default()
            }
        }
    }

    fn warn(&self, error: &io::Error) {
        if self.warnings.count(Instant::now()).is_some() {
            let path = self.path.display();
            error!(%error, %path, "cannot read the {} of innkeeperd; no request that needs them is accepted", T::NOUN);
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read<T: Parse>(path: &Path) -> io::Result<(Stamp, T)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut text)?;
    Ok((stamp, T::parse(&text)?))
}

/// Returns the error of a file with another version of its format.
pub(crate) fn unknown_version(version: u32) -> io::Error {
    io::Error::other(format!(
        "version {version} of the file is unknown; install the gateway and innkeeperd of one release"
    ))
}

/// Parses a digest: 64 hexadecimal digits.
pub(crate) fn parse_digest(text: &str) -> io::Result<[u8; 32]> {
    let invalid = || io::Error::other("a digest is invalid");
    if text.len() != 64 {
        return Err(invalid());
    }
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
            .ok_or_else(invalid)
    };
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else {
            return Err(invalid());
        };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(digest)
}
