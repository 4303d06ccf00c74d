//! Folders and files of commits by Git's hashes.
//!
//! Git names an object by the hash of its contents, so that an object that was read once never has to be read again.

use std::fmt;

use innkeeper_model::preview::{CommitSha, RepoName};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use serde::{Deserialize, Serialize};

use super::call::{ApiCall, repo_path};
use super::contents::RAW;
use super::{Github, GithubError};

/// The hash of a Git object: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "CommitSha", into = "CommitSha")]
pub struct ObjectId(CommitSha);

impl From<CommitSha> for ObjectId {
    fn from(sha: CommitSha) -> Self {
        Self(sha)
    }
}

impl From<ObjectId> for CommitSha {
    fn from(id: ObjectId) -> Self {
        id.0
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A folder of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitTree {
    /// Its entries, in GitHub's order.
    pub entries: Vec<GitEntry>,
    /// True if GitHub left out entries because the folder has too many.
    pub truncated: bool,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitEntry {
    /// Its path relative to the folder. Untrusted: not necessarily a valid path.
    pub path: String,
    /// Its kind.
    pub kind: GitKind,
    /// Its hash.
    pub id: ObjectId,
    /// The size of a file, in bytes.
    pub size: u64,
}

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitKind {
    /// A regular file.
    File,
    /// A regular file that may be executed.
    Program,
    /// A symbolic link. Its contents are the target.
    Link,
    /// A folder.
    Folder,
    /// A commit of another repository.
    Submodule,
}

#[derive(Deserialize)]
struct TreeBody {
    tree: Vec<EntryBody>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct EntryBody {
    path: String,
    mode: String,
    sha: CommitSha,
    #[serde(default)]
    size: Option<u64>,
}

impl Github {
    /// Returns the root folder of a commit.
    ///
    /// A result proves that the credentials can read the commit, so that a file that is not in it does not exist.
    ///
    /// # Errors
    /// [`GithubError`]; [`GithubError::CommitNotFound`] or [`GithubError::RepoNotAccessible`] when the commit or the
    /// repository is missing.
    pub async fn root_folder(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
    ) -> Result<GitTree, GithubError> {
        let call = ApiCall::get(
            format!("list the files of {repo} at {sha}"),
            repo_path(repo, &format!("/git/trees/{sha}")),
        );
        let response = self.send(&call).await?;
        if response.is_missing() {
            // GitHub's response is the same for a missing commit and repository.
            self.check_repo(repo).await?;
            return Err(GithubError::CommitNotFound {
                repo: repo.clone(),
                sha: sha.clone(),
            });
        }
        let body: TreeBody = response.success(&call)?.json(&call)?;
        Ok(body.into())
    }

    /// Returns a folder by its hash, with all folders below it if `recursive`.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn folder(
        &self,
        repo: &RepoName,
        id: &ObjectId,
        recursive: bool,
    ) -> Result<GitTree, GithubError> {
        let query = if recursive { "?recursive=1" } else { "" };
        let call = ApiCall::get(
            format!("list a folder of {repo}"),
            repo_path(repo, &format!("/git/trees/{id}{query}")),
        );
        let body: TreeBody = self.json(&call).await?;
        Ok(body.into())
    }

    /// Returns the contents of a file, of at most `limit` bytes. `name` is the file's name in errors.
    ///
    /// # Errors
    /// [`GithubError`]; [`GithubError::InvalidResponse`] when the contents do not have the hash.
    pub async fn blob(
        &self,
        repo: &RepoName,
        id: &ObjectId,
        name: &str,
        limit: usize,
    ) -> Result<Vec<u8>, GithubError> {
        let call = ApiCall {
            accept: RAW,
            limit,
            ..ApiCall::get(
                format!("read {name} of {repo}"),
                repo_path(repo, &format!("/git/blobs/{id}")),
            )
        };
        let response = self.send(&call).await?.success(&call)?;
        if blob_id(&response.body) != id.0.as_str() {
            return Err(GithubError::InvalidResponse {
                call: call.name,
                source: "the contents do not have the file's hash".into(),
            });
        }
        Ok(response.body.to_vec())
    }
}

impl From<TreeBody> for GitTree {
    fn from(body: TreeBody) -> Self {
        let entry = |entry: EntryBody| {
            let kind = match entry.mode.as_str() {
                "100755" => GitKind::Program,
                "120000" => GitKind::Link,
                "040000" => GitKind::Folder,
                "160000" => GitKind::Submodule,
                _ => GitKind::File,
            };
            GitEntry {
                path: entry.path,
                kind,
                id: entry.sha.into(),
                size: entry.size.unwrap_or_default(),
            }
        };
        Self {
            entries: body.tree.into_iter().map(entry).collect(),
            truncated: body.truncated,
        }
    }
}

/// Returns Git's hash of a file's contents.
fn blob_id(contents: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", contents.len()).as_bytes());
    context.update(contents);
    let digest = context.finish();
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blob_id_is_the_same_as_gits() {
        // `git hash-object --stdin < /dev/null`, and of "hello\n".
        assert_eq!(blob_id(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(
            blob_id(b"hello\n"),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
    }
}
