//! Collects the files that a configuration may read, within limits.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use innkeeper_github::client::{GitKind, ObjectId};
use innkeeper_model::Code;
use innkeeper_model::preview::sources::{
    FileTypes, OmittedReason, References, SourcePath, SourceTree, references,
};

use super::walk::{GitFile, Place, Walker};
use crate::PreviewError;

/// Maximum size of a Nix file, in bytes.
const MAX_NIX: usize = 256 << 10;

/// Maximum size of another file, in bytes.
const MAX_FILE: usize = 1 << 20;

/// Limits of one configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Maximum number of files.
    pub(super) files: usize,
    /// Maximum total size of the files, in bytes.
    pub(super) size: usize,
    /// Maximum number of paths in Nix files, and of links in folders.
    pub(super) paths: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            files: 1000,
            size: 7 << 20,
            paths: 5000,
        }
    }
}

/// Number of concurrent requests for files.
const CONCURRENT: usize = 6;

/// A collection in progress.
pub(super) struct Collector<'a> {
    walker: Walker<'a>,
    types: &'a FileTypes,
    limits: Limits,
    /// Paths to look at.
    pending: VecDeque<SourcePath>,
    /// Paths that were looked at, and files that were added.
    seen: BTreeSet<SourcePath>,
    files: BTreeSet<SourcePath>,
    size: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(walker: Walker<'a>, types: &'a FileTypes, limits: Limits) -> Self {
        Self {
            walker,
            types,
            limits,
            pending: VecDeque::new(),
            seen: BTreeSet::new(),
            files: BTreeSet::new(),
            size: 0,
        }
    }

    /// Returns a configuration. `None` if the commit has no such file.
    pub(super) async fn collect(
        mut self,
        main: &SourcePath,
    ) -> Result<Option<SourceTree>, PreviewError> {
        match self.walker.walk(main).await?.place {
            Place::File(file) if file.size > MAX_NIX as u64 => {
                return Err(PreviewError::new(
                    Code::PreviewConfigInvalid,
                    format!("{main} has {} bytes, and the limit is {MAX_NIX}", file.size),
                    "Move parts of it into other Nix files, and import these.",
                ));
            }
            Place::File(_) => {}
            _ => return Ok(None),
        }
        let mut tree = SourceTree::new(main.clone());
        self.pending.push_back(main.clone());
        while let Some(path) = self.pending.pop_front() {
            if self.seen.len() == self.limits.paths {
                tree.omit(path, OmittedReason::Limit);
            } else if self.seen.insert(path.clone()) {
                let files = self.look_at(&path, &mut tree).await?;
                self.read(files, &mut tree).await?;
            }
        }
        Ok(Some(tree))
    }

    /// Returns the files at a path, and adds the links on the way.
    async fn look_at(
        &mut self,
        path: &SourcePath,
        tree: &mut SourceTree,
    ) -> Result<Vec<GitFile>, PreviewError> {
        let walk = self.walker.walk(path).await?;
        if matches!(walk.place, Place::Missing) {
            if let Some((link, _)) = walk.links.first() {
                tree.omit(link.clone(), OmittedReason::Link);
            }
            return Ok(Vec::new());
        }
        for (link, target) in walk.links {
            tree.add_link(link, target);
        }
        match walk.place {
            Place::File(file) => Ok(vec![file]),
            Place::Folder(folder, id) => self.list(&folder, &id, tree).await,
            Place::Submodule => {
                tree.omit(path.clone(), OmittedReason::Submodule);
                Ok(Vec::new())
            }
            Place::Missing => Ok(Vec::new()),
        }
    }

    /// Returns the files of a folder and the folders below it that are of the right types. Its links are looked at later.
    async fn list(
        &mut self,
        folder: &SourcePath,
        id: &ObjectId,
        tree: &mut SourceTree,
    ) -> Result<Vec<GitFile>, PreviewError> {
        let objects = self.walker.objects;
        let listing = objects.below(self.walker.repo, id).await?;
        let mut files = Vec::new();
        let mut truncated = listing.truncated;
        for entry in &listing.entries {
            let path = match folder.as_str() {
                "" => SourcePath::parse(&entry.path),
                folder => SourcePath::parse(&format!("{folder}/{}", entry.path)),
            };
            let Ok(path) = path else {
                truncated = true;
                continue;
            };
            match entry.kind {
                GitKind::Folder => {}
                GitKind::Submodule => tree.omit(path, OmittedReason::Submodule),
                GitKind::File | GitKind::Program | GitKind::Link
                    if !self.types.include(path.file_name())
                        && (entry.kind != GitKind::Link || path.file_name().contains('.')) =>
                {
                    tree.omit(path, OmittedReason::Type);
                }
                GitKind::Link => self.pending.push_back(path),
                GitKind::File | GitKind::Program => files.push(GitFile {
                    path,
                    id: entry.id.clone(),
                    size: entry.size,
                    executable: entry.kind == GitKind::Program,
                }),
            }
        }
        if truncated && let Ok(rest) = folder.entry("…") {
            tree.omit(rest, OmittedReason::Limit);
        }
        // Nix files first, then those near the top: they matter most if a limit is reached.
        files.sort_by_key(|file| {
            let is_nix = file.path.as_str().ends_with(".nix");
            (!is_nix, file.path.components().count(), file.path.clone())
        });
        Ok(files)
    }

    /// Adds files, and looks at the paths in them later.
    async fn read(
        &mut self,
        files: Vec<GitFile>,
        tree: &mut SourceTree,
    ) -> Result<(), PreviewError> {
        let mut accepted = Vec::new();
        for file in files {
            if self.files.contains(&file.path) {
                continue;
            }
            let size = usize::try_from(file.size).unwrap_or(usize::MAX);
            if size > limit_of(&file.path) {
                tree.omit(file.path, OmittedReason::TooLarge);
            } else if self.files.len() == self.limits.files || self.size + size > self.limits.size {
                tree.omit(file.path, OmittedReason::Limit);
            } else {
                self.size += size;
                self.files.insert(file.path.clone());
                accepted.push(file);
            }
        }
        let (objects, repo) = (self.walker.objects, self.walker.repo);
        let read = async |file: GitFile| {
            let (name, limit) = (file.path.as_str(), limit_of(&file.path));
            let contents = objects.file(repo, &file.id, name, limit).await?;
            Ok::<_, PreviewError>((file, contents))
        };
        let mut contents = stream::iter(accepted.into_iter().map(read)).buffered(CONCURRENT);
        while let Some((file, contents)) = contents.try_next().await? {
            let path = file.path.clone();
            tree.add_file(file.path, contents.to_vec(), file.executable);
            if path.as_str().ends_with(".nix") {
                let found = paths_in(path, contents).await?;
                self.pending.extend(found.paths);
                if found.any {
                    self.pending.push_back(SourcePath::root());
                }
            }
        }
        Ok(())
    }
}

fn limit_of(path: &SourcePath) -> usize {
    if path.as_str().ends_with(".nix") {
        MAX_NIX
    } else {
        MAX_FILE
    }
}

/// Parses a Nix file on a blocking thread.
async fn paths_in(file: SourcePath, contents: Arc<Vec<u8>>) -> Result<References, PreviewError> {
    let invalid = |problem: &str, remedy| {
        let message = format!("{file} {problem}");
        PreviewError::new(Code::PreviewConfigInvalid, message, remedy)
    };
    let Ok(text) = String::from_utf8(contents.to_vec()) else {
        return Err(invalid("is not UTF-8", "Save it as UTF-8."));
    };
    let path = file.clone();
    let parsed = tokio::task::spawn_blocking(move || references(&path, &text)).await;
    parsed.map_err(|_| invalid("cannot be parsed", "Correct its syntax and push again."))
}
