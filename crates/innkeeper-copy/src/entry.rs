//! The stream: its format, and its bounds.
//!
//! A stream begins with [`MAGIC`]. Each entry begins with its kind, one byte. A directory, a file and a link continue with a
//! header: mode (2 bytes), time of modification (seconds, 8 bytes, and nanoseconds, 4 bytes), length of the name and of a link's
//! target (2 bytes each), name and target. A file continues with chunks: the length (4 bytes) and as many bytes; a chunk of
//! length 0 ends the file. Numbers are big-endian. The entries of a directory follow it up to [`Entry::Up`].

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::CopyError;

/// The first bytes of a stream: its format and the version of that.
const MAGIC: &[u8] = b"innkeeper-copy 1\n";

/// Maximum length of a chunk of a file, in bytes.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Maximum number of directories below each other. Each one is held open.
pub const MAX_DEPTH: usize = 128;

/// Maximum number of entries of a stream.
const MAX_ENTRIES: u64 = 50_000_000;

/// Maximum length of a name (`NAME_MAX`) and of a link's target (`PATH_MAX`), in bytes.
const MAX_NAME: usize = 255;
const MAX_TARGET: usize = 4096;

/// The bits of a mode that are copied: no set-user-id, set-group-id or sticky bit.
const MODE_BITS: u16 = 0o777;

const DIRECTORY: u8 = b'D';
const FILE: u8 = b'F';
const LINK: u8 = b'L';
const UP: u8 = b'U';
const END: u8 = b'E';

/// A part of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory, which the following entries are in. Without a name, its contents are for the target itself.
    Directory(Option<OsString>, Attributes),
    /// A file. Its contents follow as chunks.
    File(OsString, Attributes),
    /// A symbolic link and its target.
    Link(OsString, PathBuf),
    /// The end of a directory.
    Up,
    /// The end of the stream.
    End,
}

/// The attributes that a copy keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions.
    pub mode: u16,
    /// Time of the last modification, in seconds since 1970.
    pub seconds: i64,
    /// The fraction of that second, in nanoseconds.
    pub nanoseconds: u32,
}

impl Attributes {
    /// Returns the time of the last modification, if it is a time of this system.
    #[must_use]
    pub fn modified(self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let second = match self.seconds < 0 {
            true => SystemTime::UNIX_EPOCH.checked_sub(whole),
            false => SystemTime::UNIX_EPOCH.checked_add(whole),
        };
        second?.checked_add(Duration::from_nanos(self.nanoseconds.into()))
    }
}

impl From<&Metadata> for Attributes {
    fn from(metadata: &Metadata) -> Self {
        let mode = u16::try_from(metadata.mode() & u32::from(MODE_BITS)).unwrap_or(0);
        Self {
            mode,
            seconds: metadata.mtime(),
            nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        }
    }
}

/// Writes a stream.
#[derive(Debug)]
pub struct Writer<W>(W);

impl<W: Write> Writer<W> {
    /// Begins a stream.
    ///
    /// # Errors
    /// [`CopyError::Gone`], as all methods.
    pub fn new(mut to: W) -> Result<Self, CopyError> {
        to.write_all(MAGIC).map_err(CopyError::Gone)?;
        Ok(Self(to))
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`CopyError::Refused`] for a name or a target that is too long for the format.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), CopyError> {
        let none = (OsStr::new(""), Path::new(""), Attributes::default());
        let (kind, (name, target, attributes)) = match entry {
            Entry::Up => (UP, none),
            Entry::End => (END, none),
            Entry::Directory(name, attributes) => {
                let name = name.as_deref().unwrap_or_default();
                (DIRECTORY, (name, none.1, *attributes))
            }
            Entry::File(name, attributes) => (FILE, (name.as_os_str(), none.1, *attributes)),
            Entry::Link(name, target) => (LINK, (name.as_os_str(), target.as_path(), none.2)),
        };
        let mut bytes = vec![kind];
        if !matches!(entry, Entry::Up | Entry::End) {
            let target = target.as_os_str();
            let length = |text: &OsStr, limit: usize| match u16::try_from(text.len()) {
                Ok(length) if text.len() <= limit => Ok(length),
                _ => Err(CopyError::refused(Path::new(name), "has too long a name")),
            };
            bytes.extend(attributes.mode.to_be_bytes());
            bytes.extend(attributes.seconds.to_be_bytes());
            bytes.extend(attributes.nanoseconds.to_be_bytes());
            bytes.extend(length(name, MAX_NAME)?.to_be_bytes());
            bytes.extend(length(target, MAX_TARGET)?.to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(target.as_bytes());
        }
        self.write(&bytes)
    }

    /// Writes a chunk of a file, of at most [`MAX_CHUNK`] bytes. An empty one ends the file.
    ///
    /// # Errors
    /// [`CopyError::Gone`].
    pub fn chunk(&mut self, chunk: &[u8]) -> Result<(), CopyError> {
        let length = u32::try_from(chunk.len()).map_err(|_| CopyError::Invalid("a long chunk"))?;
        self.write(&length.to_be_bytes())?;
        self.write(chunk)
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// [`CopyError::Gone`].
    pub fn finish(mut self) -> Result<(), CopyError> {
        self.entry(&Entry::End)?;
        self.0.flush().map_err(CopyError::Gone)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        self.0.write_all(bytes).map_err(CopyError::Gone)
    }
}

/// Reads a stream, which may come from a stranger.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    entries: u64,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a stream.
    ///
    /// # Errors
    /// [`CopyError::Interrupted`] if the stream ends, [`CopyError::Invalid`] if it violates the format; as all methods.
    pub fn new(mut from: R) -> Result<Self, CopyError> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(ended)?;
        if magic != MAGIC {
            return Err(CopyError::Invalid("it is not a copy of this version"));
        }
        Ok(Self { from, entries: 0 })
    }

    /// Reads the next entry.
    ///
    /// # Errors
    /// [`CopyError::Interrupted`], [`CopyError::Invalid`].
    pub fn entry(&mut self) -> Result<Entry, CopyError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(CopyError::Invalid("too many files"));
        }
        let [kind] = self.array()?;
        match kind {
            UP => return Ok(Entry::Up),
            END => return Ok(Entry::End),
            DIRECTORY | FILE | LINK => {}
            _ => return Err(CopyError::Invalid("an entry of unknown kind")),
        }
        let attributes = Attributes {
            mode: u16::from_be_bytes(self.array()?) & MODE_BITS,
            seconds: i64::from_be_bytes(self.array()?),
            nanoseconds: u32::from_be_bytes(self.array()?),
        };
        let name = usize::from(u16::from_be_bytes(self.array()?));
        let target = usize::from(u16::from_be_bytes(self.array()?));
        if name > MAX_NAME || target > MAX_TARGET || attributes.nanoseconds >= 1_000_000_000 {
            return Err(CopyError::Invalid("a header beyond its limits"));
        }
        let name = self.text(name)?;
        let target = self.text(target)?;
        match kind {
            DIRECTORY if name.is_empty() => Ok(Entry::Directory(None, attributes)),
            DIRECTORY => Ok(Entry::Directory(Some(component(name)?), attributes)),
            FILE => Ok(Entry::File(component(name)?, attributes)),
            _ if target.is_empty() || target.as_bytes().contains(&0) => {
                Err(CopyError::Invalid("a link with an invalid target"))
            }
            _ => Ok(Entry::Link(component(name)?, target.into())),
        }
    }

    /// Reads a chunk of a file into `chunk`, which is empty at the end of the file.
    ///
    /// # Errors
    /// [`CopyError::Interrupted`], [`CopyError::Invalid`].
    pub fn chunk(&mut self, chunk: &mut Vec<u8>) -> Result<(), CopyError> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        if length > MAX_CHUNK {
            return Err(CopyError::Invalid("a chunk beyond its limit"));
        }
        chunk.resize(length, 0);
        self.from.read_exact(chunk).map_err(ended)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CopyError> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(ended)?;
        Ok(bytes)
    }

    fn text(&mut self, length: usize) -> Result<OsString, CopyError> {
        let mut bytes = vec![0; length];
        self.from.read_exact(&mut bytes).map_err(ended)?;
        Ok(OsString::from_vec(bytes))
    }
}

/// Returns the error for a stream that cannot be read.
fn ended(error: io::Error) -> CopyError {
    match error.kind() {
        ErrorKind::UnexpectedEof => CopyError::Interrupted,
        _ => CopyError::Gone(error),
    }
}

/// Checks that a name is a single component of a path.
fn component(name: OsString) -> Result<OsString, CopyError> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(CopyError::Invalid("a name that is a path"));
    }
    Ok(name)
}
