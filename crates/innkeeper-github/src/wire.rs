//! GitHub's JSON types that webhooks and the API share.

use innkeeper_model::preview::{BranchName, CommitSha, PullDetails, PullRequestEvent, RepoName};
use jiff::Timestamp;
use serde::Deserialize;

/// The login of deleted accounts.
const GHOST: &str = "ghost";

/// A pull request ("Pulls" in GitHub's REST reference).
#[derive(Deserialize)]
pub(crate) struct PullRequest {
    pub(crate) number: u64,
    pub(crate) state: String,
    pub(crate) user: Option<Account>,
    pub(crate) head: Side,
    pub(crate) base: Side,
    #[serde(default)]
    pub(crate) body: Option<String>,
    #[serde(default)]
    pub(crate) draft: Option<bool>,
    #[serde(default)]
    pub(crate) locked: Option<bool>,
    #[serde(default)]
    title: serde_json::Value,
    #[serde(default)]
    labels: serde_json::Value,
    #[serde(default)]
    updated_at: serde_json::Value,
    /// Missing in lists.
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_at: Option<String>,
}

/// One side of a pull request.
#[derive(Deserialize)]
pub(crate) struct Side {
    #[serde(rename = "ref")]
    pub(crate) branch: BranchName,
    pub(crate) sha: CommitSha,
    /// Null when the repository was deleted.
    #[serde(default)]
    pub(crate) repo: Option<Repository>,
}

/// A repository.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Repository {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    private: serde_json::Value,
    pub(crate) full_name: RepoName,
    #[serde(default)]
    pub(crate) archived: Option<bool>,
    #[serde(default)]
    pub(crate) default_branch: Option<String>,
}

impl Repository {
    /// Returns GitHub's id of it.
    pub(crate) fn id(&self) -> Option<u64> {
        let id = self.id.as_u64();
        id.filter(|id| i64::try_from(*id).is_ok())
    }

    /// Reports whether it is private. `None` if GitHub does not report it.
    pub(crate) fn is_private(&self) -> Option<bool> {
        self.private.as_bool()
    }
}

/// A user, an organization or an App's bot.
#[derive(Deserialize)]
pub(crate) struct Account {
    pub(crate) login: String,
}

impl PullRequest {
    pub(crate) fn author(&self) -> String {
        self.user
            .as_ref()
            .map_or(GHOST, |user| &user.login)
            .to_owned()
    }

    pub(crate) fn is_merged(&self) -> bool {
        self.merged.unwrap_or(self.merged_at.is_some())
    }

    pub(crate) fn updated_at(&self) -> Option<Timestamp> {
        self.updated_at.as_str()?.parse().ok()
    }

    /// Returns its title and author, and whether its repository is private.
    pub(crate) fn details(&self, base: Option<&Repository>) -> PullDetails {
        PullDetails {
            title: self.title.as_str().map(PullDetails::bounded_title),
            author: Some(self.author()),
            private: base.and_then(Repository::is_private),
        }
    }

    /// Returns the names of its labels.
    pub(crate) fn labels(&self) -> Vec<String> {
        let labels = self.labels.as_array().into_iter().flatten();
        labels
            .filter_map(|label| label["name"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// Reports whether the head repository is a fork, and returns its name: `None` for a deleted fork, and never that of
    /// `base`. It is not a fork only if both its name and its id are those of `base`.
    pub(crate) fn head_of(&self, base: &Repository) -> (bool, Option<RepoName>) {
        let head = self.head.repo.as_ref();
        let is_another = match (head.and_then(Repository::id), base.id()) {
            (Some(head), Some(base)) => head != base,
            _ => false,
        };
        let name = head.map(|head| &head.full_name);
        let is_fork = is_another || PullRequestEvent::is_from_fork(&base.full_name, name);
        if !is_fork {
            return (false, Some(base.full_name.clone()));
        }
        let other = head.map(|head| head.full_name.clone());
        (true, other.filter(|name| *name != base.full_name))
    }
}
