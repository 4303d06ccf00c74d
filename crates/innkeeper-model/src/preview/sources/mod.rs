//! The files that a commit's configuration consists of.
//!
//! A repository's configuration is the file `preview-config.nix`, and the files and folders that it refers to, directly or
//! through other Nix files ([`references()`]). A folder contributes its files of the types that configuration needs
//! ([`FileTypes`]). A push that changes none of these files has the same configuration, and evaluates nothing.
//!
//! All of it is untrusted: it comes from a pull request.

mod locate;
mod path;
mod references;
mod types;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};

pub use self::locate::{Place, locate_meta, locate_option};
pub use self::path::SourcePath;
pub use self::references::{References, references};
pub use self::types::FileTypes;

/// A configuration: its main file, and all files that it may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTree {
    main: SourcePath,
    entries: BTreeMap<SourcePath, SourceEntry>,
    partial: BTreeSet<SourcePath>,
    omitted: Vec<Omitted>,
}

/// An entry of a [`SourceTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEntry {
    /// A regular file.
    File {
        /// Its bytes.
        contents: Vec<u8>,
        /// True if it may be executed.
        executable: bool,
    },
    /// A symbolic link to another entry, or a folder with entries.
    Link {
        /// Its target, relative to the link's folder.
        target: String,
    },
}

/// A file that is not part of the configuration although a folder with it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// Its path.
    pub path: SourcePath,
    /// The reason.
    pub reason: OmittedReason,
}

/// The reason for leaving a file out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OmittedReason {
    /// It is of a type that configuration does not need.
    Type,
    /// It exceeds the size limit of a file.
    TooLarge,
    /// The configuration has reached its limits.
    Limit,
    /// A symbolic link that leaves the repository, or leads nowhere.
    Link,
    /// A submodule: another repository.
    Submodule,
}

impl fmt::Display for OmittedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => {
                "it is not of a file type that configuration needs; the setting `previews.file_types` adds types"
            }
            Self::TooLarge => "it is too large for a part of the configuration",
            Self::Limit => "the configuration has too many files, or they are too large",
            Self::Link => "it is a symbolic link to a place outside the repository, or to nothing",
            Self::Submodule => "it is a submodule",
        })
    }
}

impl SourceTree {
    /// Name of the main file, unless a setting names another.
    pub const MAIN: &str = "preview-config.nix";
    /// Maximum number of recorded omissions.
    pub const MAX_OMITTED: usize = 100;

    /// Creates a tree without files.
    #[must_use]
    pub fn new(main: SourcePath) -> Self {
        Self {
            main,
            entries: BTreeMap::new(),
            partial: BTreeSet::new(),
            omitted: Vec::new(),
        }
    }

    /// Creates a tree that consists of a `preview-config.nix` with this text.
    #[must_use]
    pub fn single(text: &str) -> Self {
        let main = SourcePath::parse(Self::MAIN).unwrap_or_default();
        let mut tree = Self::new(main.clone());
        tree.add_file(main, text.as_bytes().to_vec(), false);
        tree
    }

    /// Adds a file. A Nix file has LF line ends afterwards, and no byte order mark: Nix would keep a CR in indented strings,
    /// where it breaks scripts.
    pub fn add_file(&mut self, path: SourcePath, contents: Vec<u8>, executable: bool) {
        let contents = if path.as_str().ends_with(".nix") {
            with_lf(contents)
        } else {
            contents
        };
        let file = SourceEntry::File {
            contents,
            executable,
        };
        self.entries.insert(path, file);
    }

    /// Adds a symbolic link.
    pub fn add_link(&mut self, path: SourcePath, target: String) {
        self.entries.insert(path, SourceEntry::Link { target });
    }

    /// Records that a file is left out. The folders above it are incomplete then.
    pub fn omit(&mut self, path: SourcePath, reason: OmittedReason) {
        let mut folder = path.parent();
        while self.partial.insert(folder.clone()) && !folder.is_root() {
            folder = folder.parent();
        }
        if self.omitted.len() < Self::MAX_OMITTED && self.omitted.iter().all(|o| o.path != path) {
            self.omitted.push(Omitted { path, reason });
        }
    }

    /// Returns the path of the main file.
    #[must_use]
    pub fn main(&self) -> &SourcePath {
        &self.main
    }

    /// Returns all files and links by path.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<SourcePath, SourceEntry> {
        &self.entries
    }

    /// Returns the text of a file, if it is one in UTF-8.
    #[must_use]
    pub fn text(&self, path: &SourcePath) -> Option<&str> {
        match self.entries.get(path)? {
            SourceEntry::File { contents, .. } => std::str::from_utf8(contents).ok(),
            SourceEntry::Link { .. } => None,
        }
    }

    /// Returns the files that were left out, at most [`Self::MAX_OMITTED`].
    #[must_use]
    pub fn omitted(&self) -> &[Omitted] {
        &self.omitted
    }

    /// Reports whether a folder lacks some of the repository's files. The root always does.
    #[must_use]
    pub fn is_partial(&self, folder: &SourcePath) -> bool {
        folder.is_root() || self.partial.contains(folder)
    }

    /// Returns all folders that contain an entry, the root included.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<SourcePath> {
        let mut folders = BTreeSet::from([SourcePath::root()]);
        for path in self.entries.keys() {
            let mut folder = path.parent();
            while folders.insert(folder.clone()) {
                folder = folder.parent();
            }
        }
        folders
    }

    /// Returns the total size of the files, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let size = |entry: &SourceEntry| match entry {
            SourceEntry::File { contents, .. } => contents.len(),
            SourceEntry::Link { target } => target.len(),
        };
        self.entries.values().map(size).sum()
    }

    /// Returns a hash over everything that an evaluation depends on. Equal trees have equal hashes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            // The length first, so that no two lists of texts have the same bytes.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        put(self.main.as_str().as_bytes());
        for (path, entry) in &self.entries {
            put(path.as_str().as_bytes());
            match entry {
                SourceEntry::File {
                    contents,
                    executable: false,
                } => {
                    put(b"file");
                    put(contents);
                }
                SourceEntry::File { contents, .. } => {
                    put(b"program");
                    put(contents);
                }
                SourceEntry::Link { target } => {
                    put(b"link");
                    put(target.as_bytes());
                }
            }
        }
        put(b"partial");
        for folder in &self.partial {
            put(folder.as_str().as_bytes());
        }
        hash.finalize().into()
    }
}

/// Returns a text with LF line ends and without a byte order mark.
fn with_lf(contents: Vec<u8>) -> Vec<u8> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let text = contents.strip_prefix(BYTE_ORDER_MARK);
    let text = text.map_or(Cow::Borrowed(contents.as_slice()), Cow::Borrowed);
    if text.len() == contents.len() && !contents.contains(&b'\r') {
        return contents;
    }
    let mut out = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        if *byte != b'\r' || text.get(at + 1) != Some(&b'\n') {
            out.push(*byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> SourcePath {
        SourcePath::parse(text).expect(text)
    }

    #[test]
    fn nix_files_have_lf_line_ends() {
        let mut tree = SourceTree::new(path("a.nix"));
        tree.add_file(path("a.nix"), b"\xef\xbb\xbfa\r\nb\rc\r\n".to_vec(), false);
        tree.add_file(path("a.sh"), b"a\r\n".to_vec(), true);
        assert_eq!(tree.text(&path("a.nix")), Some("a\nb\rc\n"));
        assert_eq!(tree.text(&path("a.sh")), Some("a\r\n"));
    }

    #[test]
    fn digest_changes_with_each_part() {
        let base = || {
            let mut tree = SourceTree::single("{ }");
            tree.add_file(path("b/a.json"), b"1".to_vec(), false);
            tree
        };
        type Change = fn(&mut SourceTree);
        let changes: [Change; 6] = [
            |tree| tree.main = path("b/a.json"),
            |tree| tree.add_file(path("b/a.json"), b"2".to_vec(), false),
            |tree| tree.add_file(path("b/a.json"), b"1".to_vec(), true),
            |tree| tree.add_file(path("b/c.json"), b"1".to_vec(), false),
            |tree| tree.add_link(path("b/a.json"), "1".to_owned()),
            |tree| tree.omit(path("b/x.png"), OmittedReason::Type),
        ];
        let mut digests: BTreeSet<[u8; 32]> = BTreeSet::from([base().digest()]);
        for change in changes {
            let mut tree = base();
            change(&mut tree);
            assert!(digests.insert(tree.digest()), "{tree:?}");
        }
        assert_eq!(base().digest(), base().digest());
    }

    #[test]
    fn folders_with_omitted_files_are_partial() {
        let mut tree = SourceTree::single("{ }");
        tree.add_file(path("a/b/x.nix"), Vec::new(), false);
        tree.add_file(path("c/x.nix"), Vec::new(), false);
        tree.omit(path("a/b/x.png"), OmittedReason::Type);
        tree.omit(path("a/b/x.png"), OmittedReason::Type);
        let partial: Vec<_> = tree
            .folders()
            .into_iter()
            .filter(|folder| tree.is_partial(folder))
            .map(String::from)
            .collect();
        assert_eq!(partial, ["", "a", "a/b"]);
        assert_eq!(tree.omitted().len(), 1);
    }
}
