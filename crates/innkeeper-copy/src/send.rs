//! The sending side.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::{CopyError, Dir, Entry, Kind, MAX_CHUNK, MAX_DEPTH, Totals, Writer};

/// Returns the name that a source has in the target. Returns `None` if its contents are copied into the target itself: for `/`,
/// and for a path that ends with `.` or `..`.
#[must_use]
pub fn source_name(source: &Path) -> Option<OsString> {
    // `components` skips a dot at the end.
    if source.as_os_str().as_bytes().ends_with(b"/.") {
        return None;
    }
    match source.components().next_back() {
        Some(Component::Normal(name)) => Some(name.to_owned()),
        _ => None,
    }
}

/// Returns the message for a file in a directory that is not sent.
#[must_use]
pub fn skip_message(path: &Path) -> String {
    format!(
        "'{}' was skipped: it is neither a file, a directory nor a symbolic link",
        path.display()
    )
}

/// Sends files and directories, in the order of their paths, and ends the stream. A source that is a symbolic link is followed;
/// links in directories are sent as links.
///
/// Calls `skipped` with the path of each device, socket and named pipe in a directory. They are not sent.
///
/// # Errors
/// At the first source that cannot be read. The stream then has no end, so that the other side fails, too.
pub fn send<D: Dir>(
    to: impl Write,
    sources: &[PathBuf],
    skipped: &mut dyn FnMut(&Path),
) -> Result<Totals, CopyError> {
    let mut sender = Sender {
        writer: Writer::new(to)?,
        totals: Totals::default(),
        buffer: vec![0; MAX_CHUNK],
        skipped,
    };
    for source in sources {
        sender.source::<D>(source)?;
    }
    sender.writer.finish()?;
    Ok(sender.totals)
}

struct Sender<'a, W> {
    writer: Writer<W>,
    totals: Totals,
    buffer: Vec<u8>,
    skipped: &'a mut dyn FnMut(&Path),
}

impl<W: Write> Sender<'_, W> {
    fn source<D: Dir>(&mut self, source: &Path) -> Result<(), CopyError> {
        let on = |error| CopyError::file("read", source, error);
        let name = source_name(source);
        let kind = Kind::from(fs::metadata(source).map_err(on)?.file_type());
        match (kind, name) {
            (Kind::Directory, name) => {
                let dir = D::new(File::open(source).map_err(on)?);
                self.directory(&dir, name, source, 1)
            }
            (Kind::File, Some(name)) => self.file(File::open(source).map_err(on)?, name, source),
            _ => Err(CopyError::refused(
                source,
                "is neither a file nor a directory",
            )),
        }
    }

    fn directory<D: Dir>(
        &mut self,
        dir: &D,
        name: Option<OsString>,
        path: &Path,
        depth: usize,
    ) -> Result<(), CopyError> {
        if depth > MAX_DEPTH {
            return Err(CopyError::refused(path, "is below too many directories"));
        }
        let on = |error| CopyError::file("read", path, error);
        let metadata = dir.file().metadata().map_err(on)?;
        let mut names = dir.names().map_err(on)?;
        names.sort();
        self.totals.directories += 1;
        self.writer
            .entry(&Entry::Directory(name, (&metadata).into()))?;
        for name in names {
            let path = path.join(&name);
            match Opened::of(dir, &name) {
                // Removed since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => {
                    let opened = opened.map_err(|error| CopyError::file("read", &path, error))?;
                    self.opened(opened, name, &path, depth)?;
                }
            }
        }
        self.writer.entry(&Entry::Up)
    }

    fn opened<D: Dir>(
        &mut self,
        opened: Opened<D>,
        name: OsString,
        path: &Path,
        depth: usize,
    ) -> Result<(), CopyError> {
        match opened {
            Opened::Directory(child) => self.directory(&child, Some(name), path, depth + 1),
            Opened::File(file) => self.file(file, name, path),
            Opened::Link(target) => {
                self.totals.links += 1;
                self.writer.entry(&Entry::Link(name, target))
            }
            Opened::Other => {
                (self.skipped)(path);
                Ok(())
            }
        }
    }

    fn file(&mut self, mut file: File, name: OsString, path: &Path) -> Result<(), CopyError> {
        let on = |error| CopyError::file("read", path, error);
        let metadata = file.metadata().map_err(on)?;
        if !metadata.is_file() {
            return Err(CopyError::refused(path, "is no longer a file"));
        }
        self.writer.entry(&Entry::File(name, (&metadata).into()))?;
        self.totals.files += 1;
        loop {
            match file.read(&mut self.buffer) {
                Ok(length) => {
                    self.writer.chunk(&self.buffer[..length])?;
                    self.totals.bytes += u64::try_from(length).unwrap_or(u64::MAX);
                    if length == 0 {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(on(error)),
            }
        }
    }
}

/// A file in a directory.
enum Opened<D> {
    Directory(D),
    File(File),
    Link(PathBuf),
    Other,
}

impl<D: Dir> Opened<D> {
    fn of(dir: &D, name: &OsStr) -> io::Result<Self> {
        Ok(match dir.kind(name)? {
            Kind::Directory => Self::Directory(dir.open_dir(name)?),
            Kind::File => Self::File(dir.open_file(name)?),
            Kind::Link => Self::Link(dir.link_target(name)?),
            Kind::Other => Self::Other,
        })
    }
}
