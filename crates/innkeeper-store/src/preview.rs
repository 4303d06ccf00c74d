//! The record of a preview, and the changes that can be made to it.

use innkeeper_model::preview::{
    BranchName, CommitSha, Meta, PackageChanges, PreviewRecord, PreviewState, PullDetails,
    PullRequestEvent, RepoName, Visibility,
};
use innkeeper_model::{Failure, GuestName, StorePath};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock::RunningTime;

/// The desired existence of a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Its wanted commit should be served.
    Present,
    /// All of it should be removed, and then its record.
    Absent,
}

/// The record of a preview, with the daemon's own columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The part that the API shows.
    pub record: PreviewRecord,
    /// The desired existence.
    pub desired: Presence,
    /// The key of the wanted commit's [`Evaluation`](crate::Evaluation), once it is known.
    pub evaluation: Option<String>,
    /// The closure of the wanted commit, once it is known.
    pub closure: Option<StorePath>,
    /// The meta of the wanted commit, once it is known.
    pub meta: Option<Meta>,
    /// The live closure.
    pub live_closure: Option<StorePath>,
    /// The live meta.
    pub live_meta: Option<Meta>,
    /// True while the guest may contain another version than the live one.
    pub dirty: bool,
    /// The explicit request for the preview, if any.
    pub request: Option<PreviewRequest>,
    /// True while the database is to be dropped and created again.
    pub reset_database: bool,
    /// True if a label approved the commit in `approved_sha`.
    pub approved_by_label: bool,
    /// The commit that was announced on GitHub as waiting for approval, if any.
    pub announced_sha: Option<CommitSha>,
    /// The last delivery that had arrived before the announcement, by its [`Delivery::seq`](crate::Delivery::seq).
    pub announced_after: i64,
    /// Time of the last visit through its URL.
    pub visited_at: Option<Timestamp>,
    /// True once a commit with a `preview-config.nix` was found. Before, the pull request is not reported on.
    pub config_seen: bool,
    /// The running time since which the file or the branch of the preview is gone: its grace period counts from here.
    pub removal_running: Option<RunningTime>,
    /// The running time of its last use or of its expiry: its age counts from here.
    pub active_running: RunningTime,
    /// GitHub's number of our comment on the pull request.
    pub comment_id: Option<u64>,
    /// GitHub's number of our deployment.
    pub deployment_id: Option<u64>,
    /// Title and author of its pull request, and whether its repository is private.
    pub details: PullDetails,
    /// Its visitors by command; `None` means those of its repository.
    pub visibility: Option<Visibility>,
}

/// An explicit request for the preview of a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreviewRequest {
    /// A label. The request lasts as long as the label does.
    Label,
    /// A command in a comment.
    Command,
}

/// The source of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// A label. The approval lasts as long as the label does.
    Label,
    /// A command, on the host or in a comment.
    Command,
}

/// A preview to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPreview {
    /// The repository.
    pub repo: RepoName,
    /// The pull request's number; `None` for a preview that is created by hand.
    pub number: Option<u64>,
    /// The head's branch.
    pub branch: BranchName,
    /// The head's repository; `None` when it was deleted.
    pub head_repo: Option<RepoName>,
    /// The commit that should be live.
    pub wanted_sha: CommitSha,
}

impl NewPreview {
    /// Returns the preview that an event requests.
    #[must_use]
    pub fn of(event: &PullRequestEvent) -> Self {
        Self {
            repo: event.pull_request.repo.clone(),
            number: Some(event.pull_request.number),
            branch: event.head_branch.clone(),
            head_repo: event.head_repo.clone(),
            wanted_sha: event.head_sha.clone(),
        }
    }

    /// Names the pull request or branch for errors.
    pub(crate) fn owner(&self) -> String {
        owner(&self.repo, self.number, &self.branch)
    }
}

/// Names the pull request or, without a number, the branch of a preview for errors.
pub(crate) fn owner(repo: &RepoName, number: Option<u64>, branch: &BranchName) -> String {
    match number {
        Some(number) => format!("{repo}#{number}"),
        None => format!("{repo}, branch {:?}", branch.as_str()),
    }
}

/// A change of a preview's record; see [`Store::set_preview`](crate::Store::set_preview).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviewFact {
    /// The desired existence. An intent.
    Desired(Presence),
    /// The head that should be served. An intent.
    Head {
        /// The repository; `None` when it was deleted.
        repo: Option<RepoName>,
        /// The branch.
        branch: BranchName,
        /// The commit.
        sha: CommitSha,
    },
    /// The state.
    State(PreviewState),
    /// The result of evaluating and building the wanted commit's configuration.
    Evaluated {
        /// The key of the evaluation.
        key: String,
        /// The closure.
        closure: StorePath,
        /// The meta.
        meta: Box<Meta>,
    },
    /// The version that is served from now on. Recorded before the old version is given up, so an intent.
    Live {
        /// The commit.
        sha: CommitSha,
        /// The closure.
        closure: StorePath,
        /// The meta.
        meta: Box<Meta>,
    },
    /// No version is served any more.
    NotLive,
    /// An attempt to bring the wanted commit up begins. Counts it.
    Attempt,
    /// The wanted commit came up.
    CameUp,
    /// The packages of the live version that differ from the one before.
    Changes(Option<PackageChanges>),
    /// True while the guest may contain another version than the live one. An intent: recorded before that version's setup
    /// begins, and cleared when one of the two has come up.
    Dirty(bool),
    /// GitHub's number of our comment, if it exists. An intent: a forgotten comment would be written twice.
    Comment(Option<u64>),
    /// GitHub's number of our deployment, if it exists. An intent, for the same reason.
    Deployment(Option<u64>),
    /// Title and author of its pull request, and whether its repository is private. An intent: the page must not show a
    /// repository that is private by now.
    Details(PullDetails),
    /// Its visitors by command; `None` means those of its repository. An intent: a stricter setting must hold after a crash.
    Visibility(Option<Visibility>),
    /// The actor that created it by command. An intent: it counts against the actor's quota.
    Owner(String),
    /// The obstacle to the desired state; `None` when it is gone.
    Fault(Option<Failure>),
    /// The id of the delivery that was processed last.
    LastDelivery(String),
    /// Time of a use. The preview's age counts from now.
    Active(Timestamp),
    /// The explicit request for the preview. An intent.
    Request(Option<PreviewRequest>),
    /// True if the database is to be dropped and created again. An intent: recorded before it is dropped, and cleared when
    /// it is empty.
    ResetDatabase(bool),
    /// The preview is to be stopped; its files and database stay. An intent.
    Stopped,
    /// The wanted commit has a `preview-config.nix`. An intent: recorded before the first report on the pull request.
    ConfigFound,
    /// The wanted commit has no `preview-config.nix` any more; with that as the failure. The preview is stopped; its files
    /// and database stay. An intent. Its grace period counts from the first such commit.
    Dropped(Failure),
    /// True while the branch of the preview is gone. Its grace period counts from the first time.
    BranchGone(bool),
    /// Time of a visit through its URL.
    Visited(Timestamp),
    /// The preview was stopped because it was unused; its files and database stay. An intent. Its age counts from now,
    /// until it is removed.
    Expired,
}

/// The changes of one preview that a command in a comment causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandChange {
    /// The preview.
    pub slug: GuestName,
    /// Changes of its record.
    pub facts: Vec<PreviewFact>,
    /// The commit to approve.
    pub approved: Option<CommitSha>,
}

impl PreviewFact {
    /// Reports whether the change is an intent, which must be on disk before it is acted on.
    pub(crate) fn is_intent(&self) -> bool {
        match self {
            Self::Desired(_)
            | Self::Head { .. }
            | Self::Live { .. }
            | Self::Dirty(_)
            | Self::Comment(_)
            | Self::Deployment(_)
            | Self::Request(_)
            | Self::ResetDatabase(_)
            | Self::Stopped
            | Self::ConfigFound
            | Self::Dropped(_)
            | Self::BranchGone(_)
            | Self::Details(_)
            | Self::Visibility(_)
            | Self::Owner(_)
            | Self::Expired => true,
            Self::State(_)
            | Self::Evaluated { .. }
            | Self::NotLive
            | Self::Attempt
            | Self::CameUp
            | Self::Changes(_)
            | Self::Fault(_)
            | Self::LastDelivery(_)
            | Self::Active(_)
            | Self::Visited(_) => false,
        }
    }

    /// Reports whether the preview's age counts from this change.
    pub(crate) fn restarts_age(&self) -> bool {
        matches!(self, Self::Active(_) | Self::Expired)
    }
}
