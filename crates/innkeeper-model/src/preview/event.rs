//! Events of GitHub's webhook about pull requests and repositories.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BranchName, CommitSha, PullDetails, PullRequest, RepoName};

/// The field `action` of GitHub's `repository` event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryAction {
    /// The repository has a new name.
    Renamed,
    /// The repository has a new owner.
    Transferred,
    /// The repository was deleted.
    Deleted,
}

/// A `repository` event, reduced to the fields that previews need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryEvent {
    /// Id of its delivery (`X-GitHub-Delivery`).
    pub delivery: String,
    /// The action.
    pub action: RepositoryAction,
    /// GitHub's id of the repository.
    pub id: u64,
    /// Its name at the time of the event.
    pub name: RepoName,
}

/// The field `action` of GitHub's `pull_request` event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PrAction {
    /// The pull request was opened.
    Opened,
    /// Its branch has a new head commit.
    Synchronize,
    /// It was reopened.
    Reopened,
    /// It was closed or merged.
    Closed,
    /// Its title, text or base branch was edited.
    Edited,
    /// This label was added.
    Labeled(String),
    /// A label was removed.
    Unlabeled,
    /// It is no longer a draft.
    ReadyForReview,
    /// It became a draft.
    ConvertedToDraft,
    /// Another action, by GitHub's name. Previews ignore it.
    Other(String),
}

impl fmt::Display for PrAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Opened => "opened",
            Self::Synchronize => "synchronize",
            Self::Reopened => "reopened",
            Self::Closed => "closed",
            Self::Edited => "edited",
            Self::Labeled(_) => "labeled",
            Self::Unlabeled => "unlabeled",
            Self::ReadyForReview => "ready_for_review",
            Self::ConvertedToDraft => "converted_to_draft",
            Self::Other(name) => name,
        })
    }
}

/// A `pull_request` event, reduced to the fields that previews need. GitHub signed it, but names and commits are the
/// choice of the pull request's author, who is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PullRequestEvent {
    /// Id of its delivery (`X-GitHub-Delivery`). Redeliveries have the same id.
    pub delivery: String,
    /// The action.
    pub action: PrAction,
    /// The pull request.
    pub pull_request: PullRequest,
    /// GitHub's id of the base repository. Names change, ids do not.
    #[serde(default)]
    pub repo_id: Option<u64>,
    /// The head repository. `None` when that fork was deleted.
    pub head_repo: Option<RepoName>,
    /// The head commit, which the preview deploys.
    pub head_sha: CommitSha,
    /// The head branch, in `head_repo`.
    pub head_branch: BranchName,
    /// The base branch.
    pub base_branch: BranchName,
    /// True if the head repository is not the base repository; see [`PullRequestEvent::is_from_fork`].
    pub is_fork: bool,
    /// Login of its author.
    pub author: String,
    /// Login of the person who caused the event.
    pub sender: String,
    /// True if the title was edited.
    #[serde(default)]
    pub title_changed: bool,
    /// True if the text was edited.
    #[serde(default)]
    pub body_changed: bool,
    /// True if the base branch was changed.
    #[serde(default)]
    pub base_changed: bool,
    /// True if it was merged.
    #[serde(default)]
    pub merged: bool,
    /// True if it is a draft.
    #[serde(default)]
    pub draft: bool,
    /// Time of the pull request's last change, by GitHub's clock: approximately the time of the event, even if its
    /// delivery is late.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// Its title and author, and whether the repository is private.
    #[serde(default)]
    pub details: PullDetails,
}

/// Resolution of `updated_at`: GitHub reads the pull request some time after the event, so times that differ by less do
/// not order two events.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(10);

/// Reports whether one `updated_at` is certainly before another. Unknown times are not ordered.
#[must_use]
pub fn certainly_before(earlier: Option<Timestamp>, later: Option<Timestamp>) -> bool {
    match (earlier, later) {
        (Some(earlier), Some(later)) => later.duration_since(earlier) > RESOLUTION,
        _ => false,
    }
}

impl PullRequestEvent {
    /// Returns the event with a new name of the base repository. The head repository is renamed only if it is the base
    /// repository: a fork that has this name stays a fork.
    #[must_use]
    pub fn with_repo(mut self, repo: RepoName) -> Self {
        if !self.is_fork {
            self.head_repo = Some(repo.clone());
        } else if self.head_repo.as_ref() == Some(&repo) {
            self.head_repo = None;
        }
        self.pull_request.repo = repo;
        self
    }

    /// Reports whether the order of two events of a pull request matters and GitHub's times do not determine it: one
    /// reopens and the other closes it, or they have different head commits.
    ///
    /// A closed pull request is neither opened nor pushed to, so `closed` is always after these.
    #[must_use]
    pub fn is_concurrent_with(&self, other: &Self) -> bool {
        use PrAction::{Closed, Opened, Reopened, Synchronize};
        let (Some(this), Some(that)) = (self.updated_at, other.updated_at) else {
            return false;
        };
        let differ = match (&self.action, &other.action) {
            (Closed, Reopened) | (Reopened, Closed) => true,
            (Opened | Reopened | Synchronize, Opened | Reopened | Synchronize) => {
                self.head_sha != other.head_sha
            }
            _ => false,
        };
        differ && this.duration_since(that).abs() <= RESOLUTION
    }

    /// Reports whether a pull request to `base` with commits of `head` comes from a fork. A deleted repository counts as
    /// a fork, because its writers are unknown.
    ///
    /// GitHub's `head.repo.fork` is not suitable: it is true for every pull request within a repository that is itself a
    /// fork.
    #[must_use]
    pub fn is_from_fork(base: &RepoName, head: Option<&RepoName>) -> bool {
        head != Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fork_is_another_or_a_deleted_repository() {
        let repo = |text| RepoName::parse(text).expect("valid");
        let base = repo("octo/web");
        assert!(!PullRequestEvent::is_from_fork(
            &base,
            Some(&repo("Octo/Web"))
        ));
        assert!(PullRequestEvent::is_from_fork(
            &base,
            Some(&repo("mallory/web"))
        ));
        assert!(PullRequestEvent::is_from_fork(&base, None));
    }

    #[test]
    fn action_serializes_like_github() {
        insta::assert_snapshot!(serde_json::to_string(&[
            PrAction::Opened,
            PrAction::Synchronize,
            PrAction::Labeled("preview".into()),
            PrAction::ReadyForReview,
            PrAction::ConvertedToDraft,
            PrAction::Other("assigned".into()),
        ]).expect("serializes"), @r#"["opened","synchronize",{"labeled":"preview"},"ready_for_review","converted_to_draft",{"other":"assigned"}]"#);
        assert_eq!(PrAction::Other("assigned".into()).to_string(), "assigned");
    }
}
