//! What programs ask the daemon about previews: the bodies of its API. The calls stand in [`crate::api`].

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BranchName, CommitSha, PreviewRecord, PullRequest, PullRequestEvent, RepoName};
use crate::api::Verdict;
use crate::{Failure, GuestName, OperationId};

/// Asks for a preview of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePreview {
    /// The repository.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
    /// The preview's name, read by [`super::parse_slug`] so that a refusal has the code of slugs; one is
    /// made from the repository and the branch when none is given.
    #[serde(default)]
    pub slug: Option<String>,
}

/// Asks for a commit of a fork to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovePreview {
    /// The commit that was looked at. The approval is for it alone: when another one is wanted by then, the
    /// call is refused.
    pub sha: CommitSha,
}

/// Asks for the closure of a branch's newest commit to be built, without a preview of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildPreview {
    /// The repository.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
}

/// The intent is on disk and will be carried out, whatever happens to the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewAccepted {
    /// The preview that it concerns.
    pub slug: GuestName,
    /// The operation to follow, once there is one: a preview that waits for its turn has none yet.
    #[serde(default)]
    pub operation: Option<OperationId>,
}

/// One link of the chain from a preview's URL to the delivery that asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The URL: does it answer?
    Url,
    /// The route: does the web server know the host name, and where it leads?
    Route,
    /// The guest's address: can it be reached?
    Address,
    /// The guest's unit and the services in it: do they run?
    Unit,
    /// The closure: is it there, and is it the one that the guest runs?
    Closure,
    /// The commit: is the live one the wanted one?
    Commit,
    /// The delivery: was the last one acted on?
    Delivery,
}

impl LinkKind {
    /// Every link, in the order of the chain.
    pub const ALL: [Self; 7] = [
        Self::Url,
        Self::Route,
        Self::Address,
        Self::Unit,
        Self::Closure,
        Self::Commit,
        Self::Delivery,
    ];

    /// The link's name as shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Route => "route",
            Self::Address => "address",
            Self::Unit => "unit",
            Self::Closure => "closure",
            Self::Commit => "commit",
            Self::Delivery => "delivery",
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What was found at one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Which link.
    pub link: LinkKind,
    /// What it is here: the URL, the file of the route, the address, the commit. Empty when there is none.
    pub object: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, as a sentence.
    pub finding: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What `preview explain` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewExplanation {
    /// The preview.
    pub slug: GuestName,
    /// Every link, in the order of the chain.
    pub chain: Vec<Link>,
}

impl PreviewExplanation {
    /// The first broken link, seen from the URL.
    #[must_use]
    pub fn first_broken(&self) -> Option<&Link> {
        self.chain.iter().find(|l| l.verdict == Verdict::Broken)
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It is on disk, and nothing was done for it yet.
    Pending,
    /// What it asks for is being done.
    Running,
    /// What it asks for was done.
    Done,
    /// A newer delivery for the same pull request came before this one's turn.
    Superseded,
    /// It asks for nothing that concerns previews.
    Ignored,
    /// What it asks for failed, and trying again would not help.
    Failed,
}

impl DeliveryState {
    /// The state as shown and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Superseded => "superseded",
            Self::Ignored => "ignored",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A delivery of GitHub's webhook as `innkeeper deliveries` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// Its id (`X-GitHub-Delivery`).
    pub id: String,
    /// When it was on disk.
    pub received_at: Timestamp,
    /// The event, such as `pull_request`.
    pub event: String,
    /// The action, such as `synchronize`.
    #[serde(default)]
    pub action: Option<String>,
    /// The pull request that it concerns.
    #[serde(default)]
    pub pull_request: Option<PullRequest>,
    /// The commit that it is about.
    #[serde(default)]
    pub head_sha: Option<CommitSha>,
    /// The preview that it concerns.
    #[serde(default)]
    pub slug: Option<GuestName>,
    /// What became of it.
    pub state: DeliveryState,
    /// How often it was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When it will be tried again.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// When the last was done for it.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// Why it is in this state, as a sentence.
    #[serde(default)]
    pub explanation: Option<String>,
    /// The delivery for the same pull request because of which this one came to nothing: the newer one that
    /// took its place, or the `closed` that had arrived before it.
    #[serde(default)]
    pub yields_to: Option<String>,
    /// Why it failed, the last time that it was tried.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// All that is known of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryDetails {
    /// The delivery, and what became of it.
    #[serde(flatten)]
    pub delivery: DeliveryView,
    /// The event that it reports.
    #[serde(rename = "said")]
    pub event: PullRequestEvent,
    /// The preview that it concerns as it is now, if it is there.
    #[serde(default)]
    pub preview: Option<PreviewRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_broken_link_is_the_one_nearest_to_the_url() {
        let link = |link, verdict| Link {
            link,
            object: String::new(),
            verdict,
            finding: String::new(),
            remedy: None,
        };
        let explanation = PreviewExplanation {
            slug: GuestName::parse("web-7").expect("valid"),
            chain: vec![
                link(LinkKind::Url, Verdict::Warning),
                link(LinkKind::Route, Verdict::Broken),
                link(LinkKind::Unit, Verdict::Broken),
            ],
        };
        let broken = explanation.first_broken().expect("one is broken");
        assert_eq!(broken.link, LinkKind::Route);
    }

    #[test]
    fn words_are_written_as_they_are_shown() {
        for link in LinkKind::ALL {
            assert_eq!(
                serde_json::to_string(&link).expect("serialises"),
                format!("\"{link}\"")
            );
        }
        let state = DeliveryState::Superseded;
        assert_eq!(
            serde_json::to_string(&state).expect("serialises"),
            format!("\"{state}\"")
        );
    }

    #[test]
    fn a_misspelt_field_of_a_request_is_refused() {
        let body = r#"{"repo":"octo/web","branch":"main","slugg":"x"}"#;
        assert!(serde_json::from_str::<CreatePreview>(body).is_err());
    }
}
