//! The files of a repository that identify its stack.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Limit for files that are read, in bytes. Longer ones are read in part.
const MAX_BYTES: u64 = 1 << 20;

/// A directory with the files of a repository.
#[derive(Debug)]
pub(super) struct Repository {
    root: PathBuf,
}

impl Repository {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Returns the first of these paths that exists.
    pub(super) fn first<'a>(&self, paths: &[&'a str]) -> Option<&'a str> {
        paths.iter().copied().find(|path| self.has(path))
    }

    /// Returns a file's text; the empty string if it cannot be read.
    pub(super) fn text(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        if let Ok(file) = fs::File::open(self.root.join(path)) {
            file.take(MAX_BYTES).read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Returns the directories in which a file exists, sorted.
    pub(super) fn directories_with(&self, file: &str) -> Vec<String> {
        let mut found: Vec<_> = fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join(file).is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_plain(name))
            .collect();
        found.sort();
        found
    }

    /// Returns the names of the directories in a directory, sorted.
    pub(super) fn directories_in(&self, path: &str) -> Vec<String> {
        let mut found: Vec<_> = fs::read_dir(self.root.join(path))
            .into_iter()
            .flatten()
            .filter_map(Result::ok)
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_plain(name))
            .collect();
        found.sort();
        found
    }
}

/// Reports whether a name can be written into a command without quotes.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-./@".contains(&b))
}
