//! What a delivery says has happened to a pull request.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{BranchName, CommitSha, PullRequest, RepoName};

/// What happened to a repository (the field `action` of GitHub's `repository` event).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryAction {
    /// It has another name.
    Renamed,
    /// It has another owner.
    Transferred,
    /// It is gone.
    Deleted,
}

/// A `repository` event, as far as previews need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryEvent {
    /// The delivery that brought it (`X-GitHub-Delivery`).
    pub delivery: String,
    /// What happened.
    pub action: RepositoryAction,
    /// GitHub's number of the repository.
    pub id: u64,
    /// Its name when GitHub wrote the event.
    pub name: RepoName,
}

/// What happened (the field `action` of GitHub's `pull_request` event).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrAction {
    /// It was opened.
    Opened,
    /// Its branch has other commits now.
    Synchronize,
    /// It was opened again after it was closed.
    Reopened,
    /// It was closed or merged.
    Closed,
    /// Its title, its text or the branch that it wants to change was edited.
    Edited,
    /// It was given this label.
    Labeled(String),
    /// A label was taken from it.
    Unlabeled,
    /// Something else, by GitHub's name: nothing for previews to do.
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
            Self::Other(name) => name,
        })
    }
}

/// A `pull_request` event, as far as previews need it. Everything in it was said by GitHub under a signature;
/// the names, the title and the commits were chosen by whoever opened the pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestEvent {
    /// The delivery that brought it (`X-GitHub-Delivery`). GitHub uses it again when it delivers again.
    pub delivery: String,
    /// What happened.
    pub action: PrAction,
    /// The pull request.
    pub pull_request: PullRequest,
    /// GitHub's number of the repository that it wants to change. Names change, numbers do not.
    #[serde(default)]
    pub repo_id: Option<u64>,
    /// The repository that its commits are in. `None` when that fork was deleted.
    pub head_repo: Option<RepoName>,
    /// The commit that it proposes: what is deployed.
    pub head_sha: CommitSha,
    /// The branch of that commit, in `head_repo`.
    pub head_branch: BranchName,
    /// The branch that it wants to change.
    pub base_branch: BranchName,
    /// Whether its commits come from another repository than the one it wants to change; see
    /// [`PullRequestEvent::is_from_fork`].
    pub is_fork: bool,
    /// Who opened it (login).
    pub author: String,
    /// Who did what happened now (login).
    pub sender: String,
    /// Whether the title was edited.
    #[serde(default)]
    pub title_changed: bool,
    /// Whether the text was edited.
    #[serde(default)]
    pub body_changed: bool,
    /// Whether it was made to want to change another branch.
    #[serde(default)]
    pub base_changed: bool,
    /// Whether it was merged.
    #[serde(default)]
    pub merged: bool,
    /// When GitHub last saw the pull request change, by its own clock: about when it said this, however late it
    /// arrives.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
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
    /// The same event under another name of the repository. Only the repository's own branches follow: a fork that had
    /// this name stays a fork.
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

    /// Whether GitHub's times leave open if this happened before or after another event of the pull request, and it
    /// makes a difference: one reopens what the other closes, or they show different commits.
    ///
    /// A closed pull request is neither opened nor pushed to, so `closed` comes after these.
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

    /// Whether commits of `head` are from a fork for a pull request to `base`. A repository that is gone
    /// counts as a fork: nothing says who could write to it.
    ///
    /// GitHub's `head.repo.fork` answers another question: whether that repository is a fork of some other.
    /// It is true for every pull request within a forked repository.
    #[must_use]
    pub fn is_from_fork(base: &RepoName, head: Option<&RepoName>) -> bool {
        head != Some(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_another_repository_or_one_that_is_gone() {
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
    fn actions_are_written_as_github_writes_them() {
        insta::assert_snapshot!(serde_json::to_string(&[
            PrAction::Opened,
            PrAction::Synchronize,
            PrAction::Labeled("preview".into()),
            PrAction::Other("assigned".into()),
        ]).expect("serialises"), @r#"["opened","synchronize",{"labeled":"preview"},{"other":"assigned"}]"#);
        assert_eq!(PrAction::Other("assigned".into()).to_string(), "assigned");
    }
}
