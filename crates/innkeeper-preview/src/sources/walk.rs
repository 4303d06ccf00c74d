//! Finds paths in a commit, following symbolic links inside the repository only.

use std::collections::VecDeque;
use std::sync::Arc;

use innkeeper_github::client::{GitKind, GitTree, ObjectId};
use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{CommitSha, RepoName};

use super::objects::Objects;
use crate::PreviewError;

/// Maximum number of links in one path.
const MAX_LINKS: usize = 32;

/// Maximum length of a link's target, in bytes.
const MAX_TARGET: usize = 1024;

/// Walks through the folders of a commit.
pub(super) struct Walker<'a> {
    pub(super) objects: &'a Objects,
    pub(super) repo: &'a RepoName,
    root: Arc<GitTree>,
    root_id: ObjectId,
}

/// A regular file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitFile {
    pub(super) path: SourcePath,
    pub(super) id: ObjectId,
    pub(super) size: u64,
    pub(super) executable: bool,
}

/// The end of a walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A regular file.
    File(GitFile),
    /// A folder.
    Folder(SourcePath, ObjectId),
    /// Nothing.
    Missing,
    /// A submodule.
    Submodule,
}

/// A walk with the links that it followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Walk {
    pub(super) place: Place,
    /// Each link's path and target.
    pub(super) links: Vec<(SourcePath, String)>,
}

impl<'a> Walker<'a> {
    pub(super) async fn at(
        objects: &'a Objects,
        repo: &'a RepoName,
        sha: &CommitSha,
    ) -> Result<Self, PreviewError> {
        Ok(Self {
            root: objects.root(repo, sha).await?,
            objects,
            repo,
            // GitHub accepts a commit in place of its root folder.
            root_id: sha.clone().into(),
        })
    }

    /// Follows a path from the root. A link to a place outside the repository leads to [`Place::Missing`].
    pub(super) async fn walk(&self, path: &SourcePath) -> Result<Walk, PreviewError> {
        let mut links = Vec::new();
        let mut pending: VecDeque<String> = path.components().map(str::to_owned).collect();
        // The folders on the way, below the root.
        let mut folders: Vec<(SourcePath, ObjectId)> = Vec::new();
        let missing = |links| Walk {
            place: Place::Missing,
            links,
        };
        while let Some(name) = pending.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." if folders.pop().is_none() => return Ok(missing(links)),
                ".." => continue,
                _ => {}
            }
            let (folder, listing) = match folders.last() {
                Some((path, id)) => (path.clone(), self.objects.folder(self.repo, id).await?),
                None => (SourcePath::root(), Arc::clone(&self.root)),
            };
            let entry = listing.entries.iter().find(|entry| entry.path == name);
            let (Some(entry), Ok(path)) = (entry, folder.entry(&name)) else {
                return Ok(missing(links));
            };
            match entry.kind {
                GitKind::Folder => folders.push((path, entry.id.clone())),
                GitKind::File | GitKind::Program if pending.is_empty() => {
                    let file = GitFile {
                        path,
                        id: entry.id.clone(),
                        size: entry.size,
                        executable: entry.kind == GitKind::Program,
                    };
                    return Ok(Walk {
                        place: Place::File(file),
                        links,
                    });
                }
                GitKind::File | GitKind::Program => return Ok(missing(links)),
                GitKind::Submodule => {
                    return Ok(Walk {
                        place: Place::Submodule,
                        links,
                    });
                }
                GitKind::Link => {
                    let target = self.target(&path, &entry.id, entry.size).await?;
                    let Some(target) = target.filter(|_| links.len() < MAX_LINKS) else {
                        links.push((path, String::new()));
                        return Ok(missing(links));
                    };
                    for component in target.rsplit('/') {
                        pending.push_front(component.to_owned());
                    }
                    links.push((path, target));
                }
            }
        }
        let (path, id) = folders
            .pop()
            .unwrap_or_else(|| (SourcePath::root(), self.root_id.clone()));
        Ok(Walk {
            place: Place::Folder(path, id),
            links,
        })
    }

    /// Returns the target of a link, if it is relative.
    async fn target(
        &self,
        path: &SourcePath,
        id: &ObjectId,
        size: u64,
    ) -> Result<Option<String>, PreviewError> {
        if size > MAX_TARGET as u64 {
            return Ok(None);
        }
        let name = path.as_str();
        let target = self.objects.file(self.repo, id, name, MAX_TARGET).await?;
        Ok(String::from_utf8(target.to_vec())
            .ok()
            .filter(|target| !target.starts_with('/') && !target.contains('\0')))
    }
}
