//! The parts of GitHub's JSON that webhooks and the API share.

use innkeeper_model::preview::{BranchName, CommitSha, PullRequestEvent, RepoName};
use jiff::Timestamp;
use serde::Deserialize;

/// Who GitHub names when an account was deleted.
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
    labels: serde_json::Value,
    #[serde(default)]
    updated_at: serde_json::Value,
    /// Not there in lists.
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
    pub(crate) full_name: RepoName,
}

impl Repository {
    /// GitHub's number of it.
    pub(crate) fn id(&self) -> Option<u64> {
        let id = self.id.as_u64();
        id.filter(|id| i64::try_from(*id).is_ok())
    }
}

/// A person, an organisation or an App's robot.
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

    /// The names of its labels.
    pub(crate) fn labels(&self) -> Vec<String> {
        let labels = self.labels.as_array().into_iter().flatten();
        labels
            .filter_map(|label| label["name"].as_str())
            .map(str::to_owned)
            .collect()
    }

    /// Whether the commit comes from another repository than `base`, and the name of that repository: none for a fork
    /// that is gone, and never that of `base`. Both name and number must be the same for it to be no fork.
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
