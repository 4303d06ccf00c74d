//! A cache of Git objects. They never change, so that entries never expire.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use innkeeper_github::client::{GitTree, Github, GithubError, ObjectId};
use innkeeper_model::preview::{CommitSha, RepoName};
use parking_lot::Mutex;

use crate::PreviewError;

/// Maximum memory of the cache, in bytes.
const CAPACITY: usize = 32 << 20;

/// Memory of an entry in addition to its texts, in bytes.
const OVERHEAD: usize = 200;

/// Reads objects from GitHub, each once while it is cached.
pub(super) struct Objects {
    github: Option<Github>,
    cache: Mutex<Cache>,
}

/// A repository's object. The repository is part of it: an object of one is no proof of access to another.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    repo: String,
    what: What,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum What {
    Root(CommitSha),
    Folder(ObjectId),
    Below(ObjectId),
    File(ObjectId),
}

#[derive(Clone)]
enum Object {
    Folder(Arc<GitTree>),
    File(Arc<Vec<u8>>),
}

impl Object {
    fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Folder(tree) => {
                    let entry =
                        |entry: &innkeeper_github::client::GitEntry| entry.path.len() + OVERHEAD;
                    tree.entries.iter().map(entry).sum()
                }
                Self::File(contents) => contents.len(),
            }
    }
}

/// Evicts the oldest entries.
#[derive(Default)]
struct Cache {
    objects: HashMap<Key, Object>,
    order: VecDeque<Key>,
    size: usize,
}

impl Cache {
    fn insert(&mut self, key: Key, object: Object) {
        if object.size() > CAPACITY / 4 || self.objects.contains_key(&key) {
            return;
        }
        self.size += object.size();
        self.order.push_back(key.clone());
        self.objects.insert(key, object);
        while self.size > CAPACITY {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(object) = self.objects.remove(&oldest) {
                self.size -= object.size();
            }
        }
    }
}

impl Objects {
    pub(super) fn new(github: Option<Github>) -> Self {
        Self {
            github,
            cache: Mutex::default(),
        }
    }

    /// Returns the root folder of a commit.
    pub(super) async fn root(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
    ) -> Result<Arc<GitTree>, PreviewError> {
        let github = self.github()?;
        let read = async || github.root_folder(repo, sha).await;
        self.folder_of(repo, What::Root(sha.clone()), read).await
    }

    /// Returns a folder.
    pub(super) async fn folder(
        &self,
        repo: &RepoName,
        id: &ObjectId,
    ) -> Result<Arc<GitTree>, PreviewError> {
        let github = self.github()?;
        let read = async || github.folder(repo, id, false).await;
        self.folder_of(repo, What::Folder(id.clone()), read).await
    }

    /// Returns a folder with all folders below it.
    pub(super) async fn below(
        &self,
        repo: &RepoName,
        id: &ObjectId,
    ) -> Result<Arc<GitTree>, PreviewError> {
        let github = self.github()?;
        let read = async || github.folder(repo, id, true).await;
        self.folder_of(repo, What::Below(id.clone()), read).await
    }

    /// Returns a file's contents, of at most `limit` bytes.
    pub(super) async fn file(
        &self,
        repo: &RepoName,
        id: &ObjectId,
        name: &str,
        limit: usize,
    ) -> Result<Arc<Vec<u8>>, PreviewError> {
        let key = key(repo, What::File(id.clone()));
        if let Some(Object::File(contents)) = self.cached(&key) {
            return Ok(contents);
        }
        let contents = self.github()?.blob(repo, id, name, limit).await?;
        let contents = Arc::new(contents);
        let object = Object::File(Arc::clone(&contents));
        self.cache.lock().insert(key, object);
        Ok(contents)
    }

    async fn folder_of(
        &self,
        repo: &RepoName,
        what: What,
        read: impl AsyncFnOnce() -> Result<GitTree, GithubError>,
    ) -> Result<Arc<GitTree>, PreviewError> {
        let key = key(repo, what);
        if let Some(Object::Folder(tree)) = self.cached(&key) {
            return Ok(tree);
        }
        let tree = Arc::new(read().await?);
        let object = Object::Folder(Arc::clone(&tree));
        self.cache.lock().insert(key, object);
        Ok(tree)
    }

    fn cached(&self, key: &Key) -> Option<Object> {
        self.cache.lock().objects.get(key).cloned()
    }

    fn github(&self) -> Result<&Github, PreviewError> {
        self.github.as_ref().ok_or(PreviewError::NoCredentials)
    }
}

fn key(repo: &RepoName, what: What) -> Key {
    Key {
        repo: repo.key(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_evicts_the_oldest_objects() {
        let repo = crate::fixture::repo();
        let mut cache = Cache::default();
        let object = Object::File(Arc::new(vec![0; CAPACITY / 5]));
        for digit in "abcdef".chars() {
            let what = What::Root(crate::fixture::sha(digit));
            cache.insert(key(&repo, what), object.clone());
        }
        let holds = |digit| {
            let what = What::Root(crate::fixture::sha(digit));
            cache.objects.contains_key(&key(&repo, what))
        };
        assert!(cache.size <= CAPACITY && cache.objects.len() == cache.order.len());
        assert!(!holds('a') && holds('f'));
    }
}
