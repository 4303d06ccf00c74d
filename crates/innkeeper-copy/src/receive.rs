//! The receiving side.

use std::ffi::{OsStr, OsString};
use std::fs::{File, FileTimes, Permissions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::{Attributes, CopyError, Dir, Entry, MAX_CHUNK, MAX_DEPTH, Reader, Target, Totals};

/// The owner of received files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user of this process.
    Process,
    /// The owner and the group of the directory that contains the file. Needs the capabilities of root.
    Directory,
}

/// Receives a stream.
///
/// - An existing directory keeps its attributes, and its other files.
/// - Another existing file is replaced as a whole; a symbolic link is replaced, not followed. A directory is never replaced.
/// - Symbolic links are created as they are sent, and not resolved afterwards.
#[derive(Debug)]
pub struct Receiver<D> {
    target: Target<D>,
    owner: Owner,
    /// The names of the sources that this side has requested.
    expected: Option<Vec<Option<OsString>>>,
    sources: usize,
    totals: Totals,
}

/// A directory of the stream.
struct Level<D> {
    dir: D,
    /// For messages.
    path: PathBuf,
    /// For a directory that this copy has created.
    attributes: Option<Attributes>,
}

impl<D: Dir> Receiver<D> {
    /// Creates a receiver of any sources.
    pub fn new(target: Target<D>, owner: Owner) -> Self {
        Self {
            target,
            owner,
            expected: None,
            sources: 0,
            totals: Totals::default(),
        }
    }

    /// Accepts only sources of these names, in this order ([`source_name`](crate::source_name)).
    #[must_use]
    pub fn expecting(self, names: Vec<Option<OsString>>) -> Self {
        Self {
            expected: Some(names),
            ..self
        }
    }

    /// Receives a stream to its end.
    ///
    /// # Errors
    /// At the first file that cannot be created. All files before it are complete, and no part of it remains.
    pub fn receive(mut self, from: impl Read) -> Result<Totals, CopyError> {
        let mut reader = Reader::new(from)?;
        let mut levels: Vec<Level<D>> = Vec::new();
        loop {
            let entry = reader.entry()?;
            if let Entry::Up = entry {
                let level = levels
                    .pop()
                    .ok_or(CopyError::Invalid("the end of no directory"))?;
                level.finish()?;
                continue;
            }
            let is_root = levels.is_empty();
            if is_root {
                self.check_source(&entry)?;
            }
            match entry {
                Entry::End if is_root => return Ok(self.totals),
                Entry::End => return Err(CopyError::Interrupted),
                Entry::Up => {}
                Entry::Directory(name, attributes) => {
                    if levels.len() >= MAX_DEPTH {
                        return Err(CopyError::Invalid("too many directories below each other"));
                    }
                    let level = self.directory(levels.last(), name, attributes)?;
                    levels.push(level);
                }
                Entry::File(name, attributes) => {
                    let (dir, name, path) = place(&self.target, levels.last(), name)?;
                    let bytes = file(dir, &name, &path, attributes, self.owner, &mut reader)?;
                    self.totals.files += 1;
                    self.totals.bytes += bytes;
                }
                Entry::Link(name, target) => {
                    let (dir, name, path) = place(&self.target, levels.last(), name)?;
                    link(dir, &name, &path, &target)?;
                    self.totals.links += 1;
                }
            }
        }
    }

    /// Checks that a source is the next one that this side has requested, and that it fits the target.
    fn check_source(&mut self, entry: &Entry) -> Result<(), CopyError> {
        let name = match entry {
            Entry::Directory(name, _) => name.as_ref(),
            Entry::File(name, _) | Entry::Link(name, _) => Some(name),
            Entry::Up => None,
            Entry::End => {
                let is_complete =
                    (self.expected.as_ref()).is_none_or(|names| names.len() == self.sources);
                return match is_complete {
                    true => Ok(()),
                    false => Err(CopyError::Interrupted),
                };
            }
        };
        if let Some(names) = &self.expected
            && names.get(self.sources).map(Option::as_ref) != Some(name)
        {
            return Err(CopyError::Invalid("a file that was not requested"));
        }
        self.sources += 1;
        match &self.target {
            Target::Into { .. } => Ok(()),
            Target::As { .. } if self.sources > 1 => {
                Err(CopyError::Invalid("several files for one name"))
            }
            Target::As {
                is_directory: true,
                path,
                ..
            } if !matches!(entry, Entry::Directory(..)) => {
                Err(CopyError::refused(path, "is not a directory"))
            }
            Target::As { .. } => Ok(()),
        }
    }

    /// Opens a directory of the stream, after creating it if it does not exist.
    fn directory(
        &mut self,
        level: Option<&Level<D>>,
        name: Option<OsString>,
        attributes: Attributes,
    ) -> Result<Level<D>, CopyError> {
        let (parent, name, path) = match (name, level, &self.target) {
            (Some(name), ..) => place(&self.target, level, name)?,
            (None, Some(_), _) => return Err(CopyError::Invalid("a directory without a name")),
            (
                None,
                None,
                Target::As {
                    parent, name, path, ..
                },
            ) => (parent, name.clone(), path.clone()),
            // The contents of a source go to the target itself.
            (None, None, Target::Into { directory, path }) => {
                let file = directory.file().try_clone();
                return Ok(Level {
                    dir: D::new(file.map_err(|error| CopyError::file("open", path, error))?),
                    path: path.clone(),
                    attributes: None,
                });
            }
        };
        let is_new = match parent.create_dir(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            result => {
                result.map_err(|error| CopyError::file("create the directory", &path, error))?;
                true
            }
        };
        let dir = match parent.open_dir(&name) {
            Err(_) if !is_new => {
                return Err(CopyError::refused(
                    &path,
                    "exists and is not a directory; a directory cannot replace it",
                ));
            }
            dir => dir.map_err(|error| CopyError::file("open the directory", &path, error))?,
        };
        if is_new {
            let given = self.owner.give(dir.file(), parent);
            given.map_err(|error| CopyError::file("set the owner of", &path, error))?;
            self.totals.directories += 1;
        }
        Ok(Level {
            dir,
            path,
            attributes: is_new.then_some(attributes),
        })
    }
}

impl<D: Dir> Level<D> {
    /// Sets the attributes, after the last change in the directory.
    fn finish(&self) -> Result<(), CopyError> {
        let Some(attributes) = self.attributes else {
            return Ok(());
        };
        set_attributes(self.dir.file(), attributes)
            .map_err(|error| CopyError::file("set the attributes of", &self.path, error))
    }
}

impl Owner {
    fn give<D: Dir>(self, file: &File, dir: &D) -> io::Result<()> {
        match self {
            Self::Process => Ok(()),
            Self::Directory => {
                let owner = dir.file().metadata()?;
                fchown(file, Some(owner.uid()), Some(owner.gid()))
            }
        }
    }
}

/// Returns the directory, the name and the path of an entry.
fn place<'d, D: Dir>(
    target: &'d Target<D>,
    level: Option<&'d Level<D>>,
    name: OsString,
) -> Result<(&'d D, OsString, PathBuf), CopyError> {
    Ok(match (level, target) {
        (Some(level), _) => {
            let path = level.path.join(&name);
            (&level.dir, name, path)
        }
        (None, Target::Into { directory, path }) => {
            let path = path.join(&name);
            (directory, name, path)
        }
        (
            None,
            Target::As {
                parent, name, path, ..
            },
        ) => (parent, name.clone(), path.clone()),
    })
}

/// Receives the contents of a file and returns their length in bytes.
fn file<D: Dir>(
    dir: &D,
    name: &OsStr,
    path: &Path,
    attributes: Attributes,
    owner: Owner,
    reader: &mut Reader<impl Read>,
) -> Result<u64, CopyError> {
    let on = |error| CopyError::file("write", path, error);
    let mut file = None;
    let temporary = Temporary::create(dir, |name| {
        file = Some(dir.create_file(name)?);
        Ok(())
    });
    let (temporary, Some(mut file)) = (temporary.map_err(on)?, file) else {
        return Err(on(ErrorKind::NotFound.into()));
    };
    let mut length = 0;
    let mut chunk = Vec::with_capacity(MAX_CHUNK);
    loop {
        reader.chunk(&mut chunk)?;
        if chunk.is_empty() {
            break;
        }
        file.write_all(&chunk).map_err(on)?;
        length += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
    }
    // The owner first: a change of it removes permissions.
    owner.give(&file, dir).map_err(on)?;
    set_attributes(&file, attributes).map_err(on)?;
    temporary.rename(name, path)?;
    Ok(length)
}

fn link<D: Dir>(dir: &D, name: &OsStr, path: &Path, target: &Path) -> Result<(), CopyError> {
    let temporary = Temporary::create(dir, |name| dir.create_link(target, name));
    let temporary =
        temporary.map_err(|error| CopyError::file("create the symbolic link", path, error))?;
    temporary.rename(name, path)
}

fn set_attributes(file: &File, attributes: Attributes) -> io::Result<()> {
    if let Some(modified) = attributes.modified() {
        // A file system without such a time keeps the present one.
        drop(file.set_times(FileTimes::new().set_modified(modified)));
    }
    file.set_permissions(Permissions::from_mode(attributes.mode.into()))
}

/// A file under a temporary name, removed on drop.
struct Temporary<'d, D: Dir> {
    dir: &'d D,
    name: Option<OsString>,
}

impl<'d, D: Dir> Temporary<'d, D> {
    fn create(dir: &'d D, mut create: impl FnMut(&OsStr) -> io::Result<()>) -> io::Result<Self> {
        loop {
            let name = temporary_name();
            match create(&name) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    created?;
                    return Ok(Self {
                        dir,
                        name: Some(name),
                    });
                }
            }
        }
    }

    fn rename(mut self, name: &OsStr, path: &Path) -> Result<(), CopyError> {
        let Some(temporary) = &self.name else {
            return Ok(());
        };
        match self.dir.rename(temporary, name) {
            Ok(()) => {
                self.name = None;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::IsADirectory => Err(CopyError::refused(
                path,
                "is a directory; a file cannot replace it",
            )),
            Err(error) => Err(CopyError::file("create", path, error)),
        }
    }
}

impl<D: Dir> Drop for Temporary<'_, D> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            drop(self.dir.remove(name));
        }
    }
}

/// Returns a name that is unlikely to exist.
fn temporary_name() -> OsString {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let time = time.map_or(0, |time| time.as_nanos());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(".innkeeper-cp-{}-{time}-{count}", std::process::id()).into()
}
