//! The record of a preview, and its state.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::sources::SourcePath;
use super::{
    BranchName, CommitSha, DatabaseMode, Outlook, PullRequest, RepoName, Rollout, Visibility,
};
use crate::{Failure, GuestName};

/// The state of a preview, in the order of its life cycle. `Failed` can follow all but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PreviewState {
    /// The commit comes from a fork and is not approved yet. No part of it has been evaluated.
    WaitingForApproval,
    /// The commit waits to be processed.
    Queued,
    /// `preview-config.nix` is being evaluated.
    Evaluating,
    /// The closure is being built.
    Building,
    /// The guest is being created, or switched to another closure.
    Starting,
    /// The setup service runs: the app is fetched and built in the guest.
    SettingUp,
    /// The app responded, and its route is in place.
    Live,
    /// The newest commit could not be deployed. The commit that was live before still is.
    Failed,
    /// It is live, and a newer commit is being deployed.
    Updating,
    /// Expired because it was not used: its guest is stopped, its files and database are kept for some time.
    Expired,
    /// Stopped by `/preview stop`: its guest is stopped, its files and database are kept.
    Stopped,
    /// The wanted commit has no `preview-config.nix` any more: its guest is stopped, its files and database are kept for
    /// some time.
    Dropped,
    /// It is being removed with all its resources.
    Closing,
}

impl PreviewState {
    /// All states, in the order of the life cycle.
    pub const ALL: [Self; 13] = [
        Self::WaitingForApproval,
        Self::Queued,
        Self::Evaluating,
        Self::Building,
        Self::Starting,
        Self::SettingUp,
        Self::Live,
        Self::Failed,
        Self::Updating,
        Self::Expired,
        Self::Stopped,
        Self::Dropped,
        Self::Closing,
    ];

    /// Returns the state as shown and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForApproval => "waiting-for-approval",
            Self::Queued => "queued",
            Self::Evaluating => "evaluating",
            Self::Building => "building",
            Self::Starting => "starting",
            Self::SettingUp => "setting-up",
            Self::Live => "live",
            Self::Failed => "failed",
            Self::Updating => "updating",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
            Self::Dropped => "dropped",
            Self::Closing => "closing",
        }
    }

    /// Reports whether the preview is stopped, and keeps its files and its database for a limited time.
    #[must_use]
    pub fn keeps_only_data(self) -> bool {
        matches!(self, Self::Expired | Self::Stopped | Self::Dropped)
    }

    /// Reports whether the state persists until an external event: a push, an approval, a close.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::WaitingForApproval
                | Self::Live
                | Self::Failed
                | Self::Expired
                | Self::Stopped
                | Self::Dropped
        )
    }
}

impl fmt::Display for PreviewState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The record of a preview. It exists from the first delivery or request until every resource of the preview was observed
/// to be gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewRecord {
    /// Its name: also the guest's name, and the first label of its URL.
    pub slug: GuestName,
    /// The repository; the base repository of a pull request.
    pub repo: RepoName,
    /// The pull request's number. `None` for a preview of a branch.
    pub pull_request: Option<u64>,
    /// The branch, in `head_repo`.
    pub branch: BranchName,
    /// The repository with the commits. `None` when that fork was deleted.
    pub head_repo: Option<RepoName>,
    /// The commit that should be live.
    pub wanted_sha: CommitSha,
    /// The commit that is live.
    pub live_sha: Option<CommitSha>,
    /// The approved commit of a fork. No other commit of the fork is evaluated.
    #[serde(default)]
    pub approved_sha: Option<CommitSha>,
    /// Its state.
    pub state: PreviewState,
    /// The reason that the desired commit is not live.
    pub fault: Option<Failure>,
    /// Id of the last delivery that concerned it (`X-GitHub-Delivery`).
    pub last_delivery: Option<String>,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// Time of the last delivery, request through its URL, or command.
    pub last_activity: Timestamp,
    /// How its wanted commit comes up.
    #[serde(default)]
    pub rollout: Rollout,
    /// The path of its configuration, if it is an additional preview of its pull request. `None` for the preview of the
    /// repository's first configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_path: Option<SourcePath>,
    /// The actor that created it by command: `uid:1000`, `token:7`, `github:583231`. `None` for the preview of a pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl PreviewRecord {
    /// Returns its pull request, if it has one.
    #[must_use]
    pub fn pull_request(&self) -> Option<PullRequest> {
        self.pull_request.map(|number| PullRequest {
            repo: self.repo.clone(),
            number,
        })
    }

    /// Returns the pull request whose deliveries it acts on. `None` for an additional preview, which follows the preview of
    /// the first configuration.
    #[must_use]
    pub fn delivery_source(&self) -> Option<PullRequest> {
        self.pull_request().filter(|_| self.config_path.is_none())
    }

    /// Reports whether its commits come from another or a deleted repository. Such a preview never receives secrets.
    #[must_use]
    pub fn is_from_fork(&self) -> bool {
        self.head_repo.as_ref() != Some(&self.repo)
    }
}

/// Reason that the app of a live version is down. It is being started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppTrouble {
    /// Time at which the daemon noticed it.
    pub since: Timestamp,
    /// The finding as a clause, such as `port 3000 refuses connections`.
    pub reason: String,
}

/// A preview in a list: its record and its URLs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewView {
    /// The record.
    #[serde(flatten)]
    pub preview: PreviewRecord,
    /// Its URL, such as `https://web-7.preview.example.com`.
    pub url: String,
    /// The URLs of its extra hosts.
    #[serde(default)]
    pub extra_urls: Vec<String>,
    /// The place of its database, once the commit's metadata is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseMode>,
    /// The reason that no deliveries of its repository arrive, as a clause, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_trouble: Option<String>,
    /// The trouble of the live version's app, if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_trouble: Option<AppTrouble>,
    /// The visitors that its URLs serve.
    #[serde(default)]
    pub visibility: Visibility,
    /// Its use, and what it waits for.
    #[serde(flatten)]
    pub outlook: Outlook,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Code;

    pub(crate) fn view(state: PreviewState) -> PreviewView {
        let sha = |text: &str| CommitSha::parse(&text.repeat(20)).expect("valid");
        let failed = state == PreviewState::Failed;
        PreviewView {
            preview: PreviewRecord {
                slug: GuestName::parse("web-7").expect("valid"),
                repo: RepoName::parse("octo/web").expect("valid"),
                pull_request: Some(7),
                branch: BranchName::parse("feature/x").expect("valid"),
                head_repo: Some(RepoName::parse("octo/web").expect("valid")),
                wanted_sha: sha("1a"),
                live_sha: (state == PreviewState::Live)
                    .then(|| sha("1a"))
                    .or(failed.then(|| sha("2b"))),
                approved_sha: None,
                state,
                fault: failed.then(|| Failure {
                    code: Code::AppUnhealthy,
                    message: "nothing answers on port 3000 @octo".into(),
                    remedy: Some("look at the log".into()),
                    log: vec![
                        "\u{1b}[31mred\u{1b}[0m".into(),
                        "````".into(),
                        "</details> <!--".into(),
                    ],
                    mem_available_percent: None,
                }),
                last_delivery: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958".into()),
                created_at: "2026-11-20T10:00:00Z".parse().expect("a time"),
                last_activity: "2026-11-20T10:05:00Z".parse().expect("a time"),
                rollout: rollout(state),
                config_path: None,
                owner: None,
            },
            url: "https://web-7.preview.example.com".into(),
            extra_urls: vec![format!("https://landing-web-7.preview.example.com")],
            database: None,
            repo_trouble: None,
            app_trouble: None,
            visibility: Visibility::Public,
            outlook: Outlook::default(),
        }
    }

    fn rollout(state: PreviewState) -> Rollout {
        let time = |text: &str| Some(text.parse().expect("a time"));
        Rollout {
            attempt: 2,
            began_at: time("2026-11-20T10:00:00Z"),
            state_since: time("2026-11-20T10:02:03Z"),
            live_at: (state == PreviewState::Live)
                .then(|| time("2026-11-20T10:02:03Z"))
                .flatten(),
            duration_ms: (state == PreviewState::Live).then_some(123_400),
            changes: None,
        }
    }

    #[test]
    fn preview_state_serializes_as_shown() {
        for state in PreviewState::ALL {
            let json = serde_json::to_string(&state).expect("serializes");
            assert_eq!(json, format!("\"{state}\""));
        }
    }

    #[test]
    fn preview_view_is_a_flat_object() {
        let view = view(PreviewState::Live);
        insta::assert_json_snapshot!(view, @r#"
        {
          "slug": "web-7",
          "repo": "octo/web",
          "pull_request": 7,
          "branch": "feature/x",
          "head_repo": "octo/web",
          "wanted_sha": "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a",
          "live_sha": "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a",
          "approved_sha": null,
          "state": "live",
          "fault": null,
          "last_delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
          "created_at": "2026-11-20T10:00:00Z",
          "last_activity": "2026-11-20T10:05:00Z",
          "rollout": {
            "attempt": 2,
            "began_at": "2026-11-20T10:00:00Z",
            "state_since": "2026-11-20T10:02:03Z",
            "live_at": "2026-11-20T10:02:03Z",
            "duration_ms": 123400,
            "changes": null
          },
          "url": "https://web-7.preview.example.com",
          "extra_urls": [
            "https://landing-web-7.preview.example.com"
          ],
          "visibility": "public"
        }
        "#);
        let json = serde_json::to_string(&view).expect("serializes");
        assert_eq!(
            serde_json::from_str::<PreviewView>(&json).expect("reads back"),
            view
        );
    }
}
