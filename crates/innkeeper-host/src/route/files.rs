//! File operations of routes.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{FileError, FileErrorExt, tree};

/// Returns the first line of a file with its line feed, or `None` if the file does not exist or the line is not UTF-8.
pub(super) fn first_line(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.on("open", path)?,
    };
    let mut line = Vec::new();
    // Longer than any mark. Foreign files may have lines of any length.
    BufReader::new(file.take(256))
        .read_until(b'\n', &mut line)
        .on("read", path)?;
    Ok(String::from_utf8(line).ok())
}

/// Exchanges `new` and `current` atomically. Renames `new` if `current` does not exist.
pub(super) fn exchange(new: &Path, current: &Path) -> Result<(), FileError> {
    match renameat_with(CWD, new, CWD, current, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::NOENT) => fs::rename(new, current).on("create", current),
        outcome => outcome.on("replace", current),
    }
}

pub(super) fn temporary_name(name: &str) -> String {
    format!(".{name}.new")
}

/// Lists the names in a directory, sorted. An absent directory is empty. Skips names that are not UTF-8, which Innkeeper
/// never creates.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.on("list", dir)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.on("list", dir)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Reads a file, or returns `None` if it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        contents => contents.on("read", path).map(Some),
    }
}

/// Creates a directory that Caddy can read. An existing directory keeps its owner and mode.
pub(super) fn make_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(dir).on("create", dir)?;
    // Independent of the umask.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).on("change", dir)
}

/// Writes a file atomically and durably, unless it has these contents already.
pub(super) fn write(dir: &Path, name: &str, contents: &[u8]) -> Result<(), FileError> {
    let path = dir.join(name);
    if read(&path)?.as_deref() == Some(contents) {
        return Ok(());
    }
    let temporary = dir.join(temporary_name(name));
    tree::remove(&temporary)?;
    let file = create(&temporary, contents)?;
    file.sync_all().on("write", &temporary)?;
    fs::rename(&temporary, &path).on("create", &path)
}

/// Creates a file that Caddy can read.
pub(super) fn create(path: &Path, contents: &[u8]) -> Result<File, FileError> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o644);
    let mut file = options.open(path).on("create", path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .on("change", path)?;
    file.write_all(contents).on("write", path)?;
    Ok(file)
}
