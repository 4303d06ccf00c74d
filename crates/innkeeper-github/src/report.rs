//! Reports of previews on GitHub: links in the pull request's text or one comment that is kept up to date, a deployment
//! with its statuses, and a check of the commit.
//!
//! [`Report`] is the desired state and [`Published`] the observed one. [`plan()`] compares them without I/O.
//! [`publish`](crate::client::Github::publish) observes, plans and executes; it is idempotent.

mod plan;
mod publish;

use std::fmt;

use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::text::{self, CommentStyle, comment_marker};
use innkeeper_model::preview::{
    CheckResult, CommitSha, PreviewState, PreviewView, PullRequest, Situation,
    is_fault_of_repository,
};
use innkeeper_model::{Code, Failure};

use crate::client::{
    Check, Comment, Deployment, DeploymentState, DeploymentStatus, GithubError, PublishedCheck,
};

pub use plan::plan;

/// The name of the check of a pull request's first preview, which branch protection refers to.
pub const CHECK_NAME: &str = "innkeeper/preview";

/// Returns the name of the check of a preview: [`CHECK_NAME`], for an additional preview with the path of its configuration.
#[must_use]
pub fn check_name(config_path: Option<&SourcePath>) -> String {
    match config_path {
        None => CHECK_NAME.to_owned(),
        Some(path) => format!("{CHECK_NAME}: {path}"),
    }
}

/// The place of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportTarget {
    /// One comment.
    #[default]
    Comment,
    /// Links in the pull request's text, with the contract's marker. A comment exists only while it is needed: for a failure,
    /// a commit that waits for approval, an expired preview, or the link to an additional preview.
    Text,
    /// No report.
    Nowhere,
}

/// A host's settings for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSettings {
    /// The place of the report.
    pub target: ReportTarget,
    /// True if deployments are created too.
    pub deployments: bool,
    /// True if the commit gets a check too.
    pub checks: bool,
    /// Contents of the comment.
    pub comment: CommentStyle,
}

/// The desired state on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pull_request: PullRequest,
    /// The first line of the comment, which identifies it.
    marker: String,
    comment: Part<String>,
    links: Part<Links>,
    environment: Option<String>,
    /// The commit whose deployment this is, and its status.
    deployment: Option<(CommitSha, DeploymentStatus)>,
    /// The commit that stays live meanwhile.
    live: Option<CommitSha>,
    /// The desired commit's check.
    check: Option<(CommitSha, Check)>,
}

/// The desired state of one part of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<T> {
    /// It exists, with this content.
    Present(T),
    /// If it exists, it has this content.
    IfPresent(T),
    /// It does not exist.
    Absent,
    /// It is not managed, and not observed.
    Unmanaged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Links {
    url: String,
    extra: Vec<String>,
}

/// The observed state on GitHub. `None` for a part that was not or could not be observed: no step is planned for it, so
/// that an object that may exist is not created twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Innkeeper's comments, the oldest first.
    pub comments: Option<Vec<Comment>>,
    /// The pull request's text.
    pub body: Option<String>,
    /// The newest deployments, the newest first, with their newest statuses.
    pub deployments: Option<Vec<(Deployment, Option<DeploymentStatus>)>>,
    /// The commit's check, if it has one.
    pub check: Option<Option<PublishedCheck>>,
}

/// A planned call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Creates the comment.
    CreateComment(String),
    /// Replaces a comment's text.
    UpdateComment {
        /// Its id.
        id: u64,
        /// The new text.
        body: String,
    },
    /// Deletes a comment that is not needed.
    DeleteComment(u64),
    /// Replaces the pull request's text.
    SetBody(String),
    /// Creates a deployment with its first status.
    Deploy(CommitSha, DeploymentStatus),
    /// Adds a status to a deployment.
    SetStatus(u64, DeploymentStatus),
    /// Shows a check in place of the former one.
    SetCheck(Option<PublishedCheck>),
}

/// The failed calls. All others succeeded.
#[derive(Debug)]
pub struct ReportError(pub Vec<GithubError>);

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> = self.0.iter().map(|e| innkeeper_model::chain(e)).collect();
        f.write_str(&each.join("; "))
    }
}

impl std::error::Error for ReportError {}

impl innkeeper_model::Explain for ReportError {
    fn code(&self) -> Code {
        let first = self.0.first().map(innkeeper_model::Explain::code);
        first.unwrap_or(Code::GithubFailed)
    }

    fn remedy(&self) -> Option<String> {
        self.0.iter().find_map(innkeeper_model::Explain::remedy)
    }
}

impl Report {
    /// Returns the report of a preview's state. `None` for a preview without a pull request.
    #[must_use]
    pub fn of(view: &PreviewView, settings: &ReportSettings) -> Option<Self> {
        let preview = &view.preview;
        if preview.state == PreviewState::Closing {
            let mut report = Self::removed(view, settings)?;
            if let Part::IfPresent(comment) = &mut report.comment {
                *comment = text::comment(view, &settings.comment);
            }
            return Some(report);
        }
        // The text has the links of the first preview only.
        let is_additional = preview.config_path.is_some();
        let needs_comment = is_additional
            || preview.fault.is_some()
            || matches!(
                preview.state,
                PreviewState::WaitingForApproval
                    | PreviewState::Expired
                    | PreviewState::Stopped
                    | PreviewState::Dropped
            );
        let comment = match settings.target {
            ReportTarget::Comment => Part::Present(text::comment(view, &settings.comment)),
            ReportTarget::Text if needs_comment => {
                Part::Present(text::comment(view, &settings.comment))
            }
            ReportTarget::Text => Part::Absent,
            ReportTarget::Nowhere => Part::Unmanaged,
        };
        let links = match settings.target {
            ReportTarget::Text if !is_additional => Part::Present(Links {
                url: view.url.clone(),
                extra: view.extra_urls.clone(),
            }),
            _ => Part::Unmanaged,
        };
        Some(Self {
            comment,
            links,
            deployment: status(view).map(|status| (preview.wanted_sha.clone(), status)),
            live: preview.live_sha.clone(),
            check: settings
                .checks
                .then(|| (preview.wanted_sha.clone(), check(view))),
            ..Self::empty(view, settings)?
        })
    }

    /// Returns the report of a removed preview. `None` for a preview without a pull request.
    #[must_use]
    pub fn removed(view: &PreviewView, settings: &ReportSettings) -> Option<Self> {
        let (comment, links) = match settings.target {
            ReportTarget::Comment => (
                Part::IfPresent(format!(
                    "{}\nThe preview of this pull request was removed.\n",
                    comment_marker(&view.preview)
                )),
                Part::Unmanaged,
            ),
            ReportTarget::Text if view.preview.config_path.is_some() => {
                (Part::Absent, Part::Unmanaged)
            }
            ReportTarget::Text => (Part::Absent, Part::Absent),
            ReportTarget::Nowhere => (Part::Unmanaged, Part::Unmanaged),
        };
        Some(Self {
            comment,
            links,
            ..Self::empty(view, settings)?
        })
    }

    fn empty(view: &PreviewView, settings: &ReportSettings) -> Option<Self> {
        let environment = format!("preview/{}", view.preview.slug);
        Some(Self {
            pull_request: view.preview.pull_request()?,
            marker: comment_marker(&view.preview),
            comment: Part::Unmanaged,
            links: Part::Unmanaged,
            environment: settings.deployments.then_some(environment),
            deployment: None,
            live: None,
            check: None,
        })
    }

    /// Reports whether the check of the desired commit, if it has one, has not ended.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let check = self.check.as_ref();
        check.is_some_and(|(_, check)| check.result == CheckResult::Pending)
    }
}

/// Returns the check for a preview's desired commit.
fn check(view: &PreviewView) -> Check {
    let preview = &view.preview;
    let words = Situation::of(preview).words();
    let is_pending = words.check == CheckResult::Pending;
    // One text for all steps: each change is a request, and GitHub limits them.
    let (title, summary) = match is_pending {
        true => (
            "In progress".to_owned(),
            format!("{} is being deployed", preview.wanted_sha.short()),
        ),
        false => (words.title.to_owned(), words.line_for(&preview.wanted_sha)),
    };
    Check {
        name: check_name(preview.config_path.as_ref()),
        result: words.check,
        title,
        summary,
        url: view.url.clone(),
    }
}

/// Returns the check for a commit without a preview.
#[must_use]
pub fn check_without_preview(name: &str, sha: &CommitSha, situation: Situation) -> Check {
    let words = situation.words();
    Check {
        name: name.to_owned(),
        result: words.check,
        title: words.title.to_owned(),
        summary: words.line_for(sha),
        url: String::new(),
    }
}

/// Returns the status of the desired commit's deployment. `None` while it must not be deployed.
fn status(view: &PreviewView) -> Option<DeploymentStatus> {
    let preview = &view.preview;
    let sha = preview.wanted_sha.short();
    let (state, description) = match preview.state {
        PreviewState::WaitingForApproval
        | PreviewState::Expired
        | PreviewState::Stopped
        | PreviewState::Dropped
        | PreviewState::Closing => return None,
        PreviewState::Queued => (DeploymentState::Queued, "Queued".to_owned()),
        PreviewState::Evaluating
        | PreviewState::Building
        | PreviewState::Starting
        | PreviewState::SettingUp
        | PreviewState::Updating => {
            // One text for all steps, as for the check.
            (
                DeploymentState::InProgress,
                format!("{sha} is being deployed"),
            )
        }
        PreviewState::Live => (DeploymentState::Success, format!("{sha} is live")),
        PreviewState::Failed => (
            preview.fault.as_ref().map_or(DeploymentState::Error, blame),
            failure_description(sha, preview.fault.as_ref()),
        ),
    };
    Some(DeploymentStatus::new(state, &description, &view.url))
}

fn failure_description(sha: &str, fault: Option<&Failure>) -> String {
    // Only the code: the message may contain untrusted text, and is in the comment.
    match fault {
        Some(fault) => format!("{sha} failed: {}", fault.code),
        None => format!("{sha} failed"),
    }
}

/// Attributes a failure: `Failure` to the repository, `Error` to the host.
fn blame(fault: &Failure) -> DeploymentState {
    match is_fault_of_repository(fault.code) {
        true => DeploymentState::Failure,
        false => DeploymentState::Error,
    }
}
