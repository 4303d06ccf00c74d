//! Bodies of the API's requests and responses about previews. [`crate::api`] lists the calls.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    BranchName, CommitSha, DeliveryEvent, PreviewRecord, PullRequest, RepoName, Visibility,
};
use crate::api::Verdict;
use crate::{Code, Failure, GuestName, OperationId, RestReport};

/// Creates a preview of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreatePreview {
    /// The repository.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
    /// The preview's name; derived from the repository and the branch when omitted. A `String`, so that
    /// [`super::parse_slug`] validates it and errors have the codes of slugs.
    #[serde(default)]
    pub slug: Option<String>,
}

/// Approves a commit of a fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApprovePreview {
    /// The reviewed commit. The approval holds for this commit only: the call fails if the pull request has a newer
    /// one.
    pub sha: CommitSha,
}

/// Builds the closure of a branch's newest commit, without a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct BuildPreview {
    /// The repository.
    pub repo: RepoName,
    /// The branch.
    pub branch: BranchName,
}

/// Sets the visitors of a preview. The stricter one of this, the host's setting and the repository's own file applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetVisibility {
    /// The visitors; `null` leaves them to the other two.
    pub visibility: Option<Visibility>,
}

/// The visitors of a preview, and where they are set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VisibilityReport {
    /// The visitors that its URLs serve: the strictest of the settings below.
    pub visibility: Visibility,
    /// The host's setting for the repository.
    pub host: Visibility,
    /// The setting of the repository's own file: the stricter one of the live and the wanted commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Visibility>,
    /// The setting by command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Visibility>,
    /// True if it is not public and the host has no gateway to check visitors, so that it is closed.
    #[serde(default)]
    pub closed: bool,
}

/// The request is recorded on disk and will be carried out, even if the daemon crashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewAccepted {
    /// The preview that it concerns.
    pub slug: GuestName,
    /// The operation to follow. A queued preview has none yet.
    #[serde(default)]
    pub operation: Option<OperationId>,
}

/// One link of the chain from a preview's URL to the delivery that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// The URL: does it respond?
    Url,
    /// The visitors: can they be checked? Absent for a public preview.
    Visitors,
    /// The route: does the web server have the host name, and its target?
    Route,
    /// The guest's address: can it be reached?
    Address,
    /// The guest's unit and the services in it: do they run?
    Unit,
    /// The closure: does it exist, and does the guest run it?
    Closure,
    /// The commit: is the desired one live?
    Commit,
    /// The report: does GitHub show the state?
    Report,
    /// The delivery: was the last one acted on?
    Delivery,
}

impl LinkKind {
    /// All links, in the order of the chain.
    pub const ALL: [Self; 9] = [
        Self::Url,
        Self::Visitors,
        Self::Route,
        Self::Address,
        Self::Unit,
        Self::Closure,
        Self::Commit,
        Self::Report,
        Self::Delivery,
    ];

    /// Returns the link's name as shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Visitors => "visitors",
            Self::Route => "route",
            Self::Address => "address",
            Self::Unit => "unit",
            Self::Closure => "closure",
            Self::Commit => "commit",
            Self::Report => "report",
            Self::Delivery => "delivery",
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The finding at one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// The link.
    pub link: LinkKind,
    /// The link's object: the URL, the file of the route, the address, the commit. May be empty.
    pub object: String,
    /// The result.
    pub verdict: Verdict,
    /// The finding, as a sentence.
    pub finding: String,
    /// The remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The cause of a preview's situation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SituationCause {
    /// `Ok` if the preview is as desired, `Warning` while it waits or changes.
    pub verdict: Verdict,
    /// The situation with its cause, as a clause.
    pub finding: String,
    /// The code of the failure, if one is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The remedy or the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The decisive lines of the failure's log, each with its number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// The findings of `preview explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewExplanation {
    /// The preview.
    pub slug: GuestName,
    /// The cause of its situation.
    #[serde(default)]
    pub cause: Option<SituationCause>,
    /// All links, in the order of the chain.
    pub chain: Vec<Link>,
    /// What keeps its guest awake, and when it rests; `None` without a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<RestReport>,
}

impl PreviewExplanation {
    /// Returns the first broken link, starting from the URL.
    #[must_use]
    pub fn first_broken(&self) -> Option<&Link> {
        self.chain.iter().find(|l| l.verdict == Verdict::Broken)
    }
}

/// The state of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Recorded; not processed yet.
    Pending,
    /// In progress.
    Running,
    /// Processed.
    Done,
    /// Replaced by a newer delivery for the same pull request before it was processed.
    Superseded,
    /// Does not concern previews.
    Ignored,
    /// Failed permanently: a retry would not help.
    Failed,
}

impl DeliveryState {
    /// Returns the state as shown and stored.
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

/// A webhook delivery from GitHub, as `innkeeper deliveries` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryView {
    /// Its id (`X-GitHub-Delivery`).
    pub id: String,
    /// Time at which it was recorded.
    pub received_at: Timestamp,
    /// The event: `pull_request`, or `issue_comment` for a command.
    pub event: String,
    /// The action, such as `synchronize`, or the command, such as `/preview stop`.
    #[serde(default)]
    pub action: Option<String>,
    /// The pull request that it concerns.
    #[serde(default)]
    pub pull_request: Option<PullRequest>,
    /// The head commit. `None` for a command.
    #[serde(default)]
    pub head_sha: Option<CommitSha>,
    /// The preview that it concerns.
    #[serde(default)]
    pub slug: Option<GuestName>,
    /// Its state.
    pub state: DeliveryState,
    /// Number of attempts.
    #[serde(default)]
    pub attempts: u32,
    /// Time of the next retry.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// Time at which processing ended.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// The reason for its state, as a sentence.
    #[serde(default)]
    pub explanation: Option<String>,
    /// The delivery for the same pull request that overrides this one: a newer one that replaced it, or a `closed` that
    /// arrived before it.
    #[serde(default)]
    pub yields_to: Option<String>,
    /// The failure of the last attempt.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// A delivery in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeliveryDetails {
    /// The delivery and its state.
    #[serde(flatten)]
    pub delivery: DeliveryView,
    /// The event that it reports.
    #[serde(rename = "said")]
    pub event: DeliveryEvent,
    /// The current record of the preview that it concerns, if it exists.
    #[serde(default)]
    pub preview: Option<PreviewRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanation_finds_broken_link_nearest_to_url() {
        let link = |link, verdict| Link {
            link,
            object: String::new(),
            verdict,
            finding: String::new(),
            remedy: None,
        };
        let explanation = PreviewExplanation {
            rest: None,
            slug: GuestName::parse("web-7").expect("valid"),
            cause: None,
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
    fn link_and_state_serialize_as_shown() {
        for link in LinkKind::ALL {
            assert_eq!(
                serde_json::to_string(&link).expect("serializes"),
                format!("\"{link}\"")
            );
        }
        let state = DeliveryState::Superseded;
        assert_eq!(
            serde_json::to_string(&state).expect("serializes"),
            format!("\"{state}\"")
        );
    }

    #[test]
    fn create_preview_rejects_unknown_fields() {
        let body = r#"{"repo":"octo/web","branch":"main","slugg":"x"}"#;
        assert!(serde_json::from_str::<CreatePreview>(body).is_err());
    }
}
