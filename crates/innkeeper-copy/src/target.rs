//! The place that a copy is received in.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::{CopyError, Dir};

/// The place that a copy is received in. Resolved once, through symbolic links.
#[derive(Debug)]
pub enum Target<D> {
    /// An existing directory: sources keep their names in it.
    Into {
        /// The directory.
        directory: D,
        /// Its path, for messages.
        path: PathBuf,
    },
    /// A new name for the only source.
    As {
        /// The directory of the name.
        parent: D,
        /// The name in it.
        name: OsString,
        /// Its path, for messages.
        path: PathBuf,
        /// True if only a directory may have the name: the path ends with `/`.
        is_directory: bool,
    },
}

impl<D: Dir> Target<D> {
    /// Resolves the path that the user wrote. With `is_directory`, the path must be an existing directory, as for several sources.
    ///
    /// # Errors
    /// [`CopyError::File`] if the directory does not exist or is inaccessible, [`CopyError::Refused`] if it is none.
    pub fn resolve(path: &Path, is_directory: bool) -> Result<Self, CopyError> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let on = |error| CopyError::file("write to", path, error);
        let has_slash = path.as_os_str().as_bytes().ends_with(b"/");
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Into {
                directory: D::new(File::open(path).map_err(on)?),
                path: path.to_owned(),
            }),
            Ok(_) if is_directory || has_slash => {
                Err(CopyError::refused(path, "is not a directory"))
            }
            Err(error) if is_directory || error.kind() != ErrorKind::NotFound => Err(on(error)),
            _ => Self::in_parent(path, has_slash),
        }
    }

    fn in_parent(path: &Path, has_slash: bool) -> Result<Self, CopyError> {
        let Some(Component::Normal(name)) = path.components().next_back() else {
            let error = io::Error::from(ErrorKind::NotFound);
            return Err(CopyError::file("write to", path, error));
        };
        let parent = match path.parent() {
            Some(parent) if parent != OsStr::new("") => parent,
            _ => Path::new("."),
        };
        let on = |error| CopyError::file("write to the directory", parent, error);
        if !fs::metadata(parent).map_err(on)?.is_dir() {
            return Err(CopyError::refused(parent, "is not a directory"));
        }
        Ok(Self::As {
            parent: D::new(File::open(parent).map_err(on)?),
            name: name.to_owned(),
            path: path.to_owned(),
            is_directory: has_slash,
        })
    }
}
