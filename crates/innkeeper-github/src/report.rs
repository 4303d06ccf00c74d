//! Reports of previews on GitHub: links in the pull request's text or one comment that is kept up to date, and a
//! deployment with its statuses.
//!
//! [`Report`] is the desired state and [`Published`] the observed one. [`plan`] compares them without I/O.
//! [`Github::publish`] observes, plans and executes; it is idempotent.

use std::fmt;

use innkeeper_model::preview::text::{self, COMMENT_MARKER};
use innkeeper_model::preview::{CommitSha, PreviewState, PreviewView, PullRequest};
use innkeeper_model::{Code, Failure, Kind};
use tracing::debug;

use crate::client::{Comment, Deployment, DeploymentState, DeploymentStatus, Github, GithubError};

/// Number of deployments of a preview that are examined. Older ones were ended when these were created.
const DEPLOYMENTS: u8 = 5;

/// GitHub's limit for a pull request's text, in characters.
const MAX_BODY: usize = 65_536;

/// The place of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportTarget {
    /// One comment.
    #[default]
    Comment,
    /// Links in the pull request's text, with the contract's marker. A comment exists only while it is needed: for a failure,
    /// a commit that waits for approval, or an expired preview.
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
    /// The instruction for approving a commit, as in "add the label `preview`".
    pub approve: String,
}

/// The desired state on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pull_request: PullRequest,
    comment: Part<String>,
    links: Part<Links>,
    environment: Option<String>,
    /// The commit whose deployment this is, and its status.
    deployment: Option<(CommitSha, DeploymentStatus)>,
    /// The commit that stays live meanwhile.
    live: Option<CommitSha>,
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
                *comment = text::comment(view, &settings.approve);
            }
            return Some(report);
        }
        let needs_comment = preview.fault.is_some()
            || matches!(
                preview.state,
                PreviewState::WaitingForApproval
                    | PreviewState::Expired
                    | PreviewState::Stopped
                    | PreviewState::Dropped
            );
        let comment = match settings.target {
            ReportTarget::Comment => Part::Present(text::comment(view, &settings.approve)),
            ReportTarget::Text if needs_comment => {
                Part::Present(text::comment(view, &settings.approve))
            }
            ReportTarget::Text => Part::Absent,
            ReportTarget::Nowhere => Part::Unmanaged,
        };
        let links = match settings.target {
            ReportTarget::Text => Part::Present(Links {
                url: view.url.clone(),
                extra: view.extra_urls.clone(),
            }),
            ReportTarget::Comment | ReportTarget::Nowhere => Part::Unmanaged,
        };
        Some(Self {
            comment,
            links,
            deployment: status(view).map(|status| (preview.wanted_sha.clone(), status)),
            live: preview.live_sha.clone(),
            ..Self::empty(view, settings)?
        })
    }

    /// Returns the report of a removed preview. `None` for a preview without a pull request.
    #[must_use]
    pub fn removed(view: &PreviewView, settings: &ReportSettings) -> Option<Self> {
        let (comment, links) = match settings.target {
            ReportTarget::Comment => (
                Part::IfPresent(format!(
                    "{COMMENT_MARKER}\nThe preview of this pull request was removed.\n"
                )),
                Part::Unmanaged,
            ),
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
            comment: Part::Unmanaged,
            links: Part::Unmanaged,
            environment: settings.deployments.then_some(environment),
            deployment: None,
            live: None,
        })
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
            let word = preview.state.as_str().replace('-', " ");
            (DeploymentState::InProgress, format!("{sha}: {word}"))
        }
        PreviewState::Live => (DeploymentState::Success, format!("{sha} is live")),
        PreviewState::Failed => (
            preview.fault.as_ref().map_or(DeploymentState::Error, blame),
            failure_description(sha, preview.fault.as_ref()),
        ),
    };
    let url = match state {
        DeploymentState::Success => view.url.as_str(),
        _ => "",
    };
    Some(DeploymentStatus::new(state, &description, url))
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
    match fault.code.kind() {
        _ if fault.code == Code::InvalidConfig => DeploymentState::Error,
        Kind::Build | Kind::Invalid | Kind::NotFound => DeploymentState::Failure,
        _ if fault.code == Code::AppUnhealthy => DeploymentState::Failure,
        _ => DeploymentState::Error,
    }
}

/// Plans the calls that lead from the published to the reported state.
#[must_use]
pub fn plan(report: &Report, published: &Published) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(existing) = &published.comments {
        steps.extend(plan_comment(&report.comment, existing));
    }
    if let Some(existing) = &published.body {
        steps.extend(plan_links(&report.links, existing));
    }
    if let (Some(_), Some(existing)) = (&report.environment, &published.deployments) {
        steps.extend(plan_deployments(report, existing));
    }
    steps
}

fn plan_links(desired: &Part<Links>, existing: &str) -> Option<Step> {
    let body = match desired {
        Part::IfPresent(_) if !text::has_links(existing) => return None,
        Part::Present(links) | Part::IfPresent(links) => {
            text::with_links(existing, &links.url, &links.extra)
        }
        Part::Absent => text::without_links(existing),
        Part::Unmanaged => return None,
    };
    // GitHub would reject a longer text on each attempt.
    (body != existing && body.chars().count() <= MAX_BODY).then_some(Step::SetBody(body))
}

fn plan_comment(desired: &Part<String>, existing: &[Comment]) -> Vec<Step> {
    let body = match desired {
        Part::Unmanaged => return Vec::new(),
        Part::Absent => None,
        Part::Present(body) | Part::IfPresent(body) => Some(body),
    };
    let mut existing = existing.iter();
    let mut steps = Vec::new();
    if let Some(body) = body {
        match existing.next() {
            None if matches!(desired, Part::IfPresent(_)) => {}
            None => steps.push(Step::CreateComment(body.clone())),
            // GitHub may remove white space at the end.
            Some(first) if first.body.trim_end() == body.trim_end() => {}
            Some(first) => steps.push(Step::UpdateComment {
                id: first.id,
                body: body.clone(),
            }),
        }
    }
    // A second comment results from a crash after the first was created and before its id was known.
    steps.extend(existing.map(|comment| Step::DeleteComment(comment.id)));
    steps
}

fn plan_deployments(
    report: &Report,
    existing: &[(Deployment, Option<DeploymentStatus>)],
) -> Vec<Step> {
    let desired = report.deployment.as_ref();
    let current = desired.and_then(|(sha, _)| existing.iter().find(|(d, _)| d.sha == *sha));
    let mut steps = Vec::new();
    match (desired, current) {
        (None, _) => {}
        (Some((sha, status)), None) => steps.push(Step::Deploy(sha.clone(), status.clone())),
        (Some((_, status)), Some((_, Some(last)))) if last == status => {}
        (Some((_, status)), Some((deployment, _))) => {
            steps.push(Step::SetStatus(deployment.id, status.clone()));
        }
    }
    for (deployment, last) in existing {
        let is_current = current.is_some_and(|(current, _)| current.id == deployment.id);
        let last = last.as_ref().map(|status| status.state);
        let serves = desired.is_none_or(|(_, status)| status.state != DeploymentState::Success)
            && report.live.as_ref() == Some(&deployment.sha)
            && last == Some(DeploymentState::Success);
        if !is_current && !serves && last != Some(DeploymentState::Inactive) {
            let ended = DeploymentStatus::new(DeploymentState::Inactive, "Replaced or removed", "");
            steps.push(Step::SetStatus(deployment.id, ended));
        }
    }
    steps
}

impl Github {
    /// Publishes a report. Writes only differences.
    ///
    /// # Errors
    /// [`ReportError`] with all failed calls. The other calls are made nevertheless.
    pub async fn publish(&self, report: &Report) -> Result<(), ReportError> {
        let (published, mut errors) = self.observe(report).await;
        for step in plan(report, &published) {
            if let Err(error) = self.execute(report, step).await {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ReportError(errors))
        }
    }

    /// Observes the parts that the report manages.
    async fn observe(&self, report: &Report) -> (Published, Vec<GithubError>) {
        let mut errors = Vec::new();
        let pull_request = &report.pull_request;
        let mut published = Published::default();
        if report.comment != Part::Unmanaged {
            let comments = self.own_comments(pull_request, COMMENT_MARKER).await;
            published.comments = collect(comments, &mut errors);
        }
        if report.links != Part::Unmanaged {
            let view = collect(self.pull_request(pull_request).await, &mut errors);
            published.body = view.flatten().map(|view| view.body);
        }
        if let Some(environment) = &report.environment {
            let existing = self.deployments_with_status(report, environment).await;
            published.deployments = collect(existing, &mut errors);
        }
        (published, errors)
    }

    async fn deployments_with_status(
        &self,
        report: &Report,
        environment: &str,
    ) -> Result<Vec<(Deployment, Option<DeploymentStatus>)>, GithubError> {
        let repo = &report.pull_request.repo;
        let mut all = Vec::new();
        for deployment in self.deployments(repo, environment, DEPLOYMENTS).await? {
            let status = self.deployment_status(repo, deployment.id).await?;
            all.push((deployment, status));
        }
        Ok(all)
    }

    async fn execute(&self, report: &Report, step: Step) -> Result<(), GithubError> {
        let pull_request = &report.pull_request;
        let repo = &pull_request.repo;
        match step {
            Step::CreateComment(body) => self.create_comment(pull_request, &body).await.map(drop),
            Step::UpdateComment { id, body } => self.update_comment(repo, id, &body).await,
            Step::DeleteComment(id) => self.delete_comment(repo, id).await,
            Step::SetBody(body) => self.set_body(pull_request, &body).await,
            Step::SetStatus(id, status) => self.set_deployment_status(repo, id, &status).await,
            Step::Deploy(sha, status) => {
                let environment = report.environment.as_deref().unwrap_or_default();
                let made = match self.create_deployment(repo, environment, &sha).await {
                    // The commit no longer exists, or is one of a fork that GitHub does not deploy.
                    Err(GithubError::Refused { status: 422, .. }) => {
                        debug!(%repo, %sha, "GitHub has no such commit to deploy");
                        return Ok(());
                    }
                    made => made?,
                };
                self.set_deployment_status(repo, made.id, &status).await
            }
        }
    }
}

/// Returns the value of a result, or collects its error.
fn collect<T>(result: Result<T, GithubError>, errors: &mut Vec<GithubError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

#[cfg(test)]
mod tests {
    use innkeeper_model::preview::RepoName;
    use proptest::prelude::*;

    use super::*;

    fn sha(digit: u8) -> CommitSha {
        CommitSha::parse(&format!("{digit:040x}")).expect("a commit")
    }

    /// Returns the state after these steps.
    fn execute(published: &Published, steps: Vec<Step>) -> Published {
        let mut comments = published.comments.clone().expect("observed");
        let mut deployments = published.deployments.clone().expect("observed");
        let mut body = published.body.clone();
        for step in steps {
            match step {
                Step::CreateComment(body) => comments.push(Comment { id: 900, body }),
                Step::UpdateComment { id, body } => {
                    let comment = comments.iter_mut().find(|c| c.id == id);
                    comment.expect("exists").body = body;
                }
                Step::DeleteComment(id) => comments.retain(|comment| comment.id != id),
                Step::SetBody(text) => body = Some(text),
                Step::Deploy(sha, status) => {
                    deployments.insert(0, (Deployment { id: 900, sha }, Some(status)));
                }
                Step::SetStatus(id, status) => {
                    let deployment = deployments.iter_mut().find(|(d, _)| d.id == id);
                    deployment.expect("exists").1 = Some(status);
                }
            }
        }
        Published {
            comments: Some(comments),
            body,
            deployments: Some(deployments),
        }
    }

    fn any_part<T: fmt::Debug + Clone + 'static>(
        what: impl Strategy<Value = T> + Clone + 'static,
    ) -> impl Strategy<Value = Part<T>> {
        prop_oneof![
            what.clone().prop_map(Part::Present),
            what.prop_map(Part::IfPresent),
            Just(Part::Absent),
            Just(Part::Unmanaged),
        ]
    }

    fn any_status() -> impl Strategy<Value = DeploymentStatus> {
        let state = prop::sample::select(vec![
            DeploymentState::Queued,
            DeploymentState::InProgress,
            DeploymentState::Success,
            DeploymentState::Failure,
            DeploymentState::Inactive,
        ]);
        (state, "[ab]").prop_map(|(state, text)| DeploymentStatus::new(state, &text, ""))
    }

    fn any_report() -> impl Strategy<Value = Report> {
        let links = "[ab]".prop_map(|url| Links { url, extra: vec![] });
        let deployment = prop::option::of((0..3u8, any_status()));
        let live = prop::option::of(0..3u8);
        (
            any_part("[abc]".boxed()),
            any_part(links.boxed()),
            deployment,
            live,
        )
            .prop_map(|(comment, links, deployment, live)| Report {
                pull_request: PullRequest {
                    repo: RepoName::parse("octo/web").expect("a repository"),
                    number: 7,
                },
                comment,
                links,
                environment: Some("preview/web-7".to_owned()),
                deployment: deployment.map(|(commit, status)| (sha(commit), status)),
                live: live.map(sha),
            })
    }

    fn any_published() -> impl Strategy<Value = Published> {
        let comments = prop::collection::vec("[abc]", 0..3);
        let deployments = prop::collection::vec((0..3u8, prop::option::of(any_status())), 0..4);
        (comments, "[ab]{0,3}", deployments).prop_map(|(comments, body, deployments)| Published {
            comments: Some(
                (1..)
                    .zip(comments)
                    .map(|(id, body)| Comment { id, body })
                    .collect(),
            ),
            body: Some(body),
            deployments: Some(
                (1..)
                    .zip(deployments)
                    .map(|(id, (commit, status))| {
                        (
                            Deployment {
                                id,
                                sha: sha(commit),
                            },
                            status,
                        )
                    })
                    .collect(),
            ),
        })
    }

    proptest! {
        #[test]
        fn plan_is_empty_after_execution(report in any_report(), published in any_published()) {
            let after = execute(&published, plan(&report, &published));
            prop_assert_eq!(plan(&report, &after), []);
            let comments = after.comments.expect("observed");
            match &report.comment {
                Part::Present(body) => prop_assert!(comments.len() == 1 && comments[0].body == *body),
                Part::IfPresent(_) => prop_assert!(comments.len() <= 1),
                Part::Absent => prop_assert!(comments.is_empty()),
                Part::Unmanaged => prop_assert_eq!(Some(comments), published.comments),
            }
        }

        #[test]
        fn plan_ends_all_but_live_and_current_deployments(report in any_report(), published in any_published()) {
            let after = execute(&published, plan(&report, &published));
            let current = report.deployment.as_ref().map(|(sha, _)| sha);
            for (deployment, status) in after.deployments.expect("observed") {
                let ended = status.is_some_and(|s| s.state == DeploymentState::Inactive);
                let sha = Some(&deployment.sha);
                prop_assert!(ended || sha == current || sha == report.live.as_ref());
            }
        }

        #[test]
        fn plan_has_no_step_for_unobserved_parts(report in any_report()) {
            prop_assert_eq!(plan(&report, &Published::default()), []);
        }
    }
}
