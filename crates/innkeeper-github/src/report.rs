//! What is said on GitHub about a preview: links in the pull request's text or one comment that is kept up
//! to date, and a deployment with its statuses.
//!
//! [`Report`] says what should be there, [`Published`] what is, and [`plan`] compares the two without asking
//! anybody. [`Github::tell`] looks, plans and carries out; doing it again changes nothing.

use std::fmt;

use innkeeper_model::preview::text::{self, COMMENT_MARKER};
use innkeeper_model::preview::{CommitSha, PreviewState, PreviewView, PullRequest};
use innkeeper_model::{Code, Failure, Kind};
use tracing::debug;

use crate::client::{Comment, Deployment, DeploymentState, DeploymentStatus, Github, GithubError};

/// How many deployments of a preview are looked at. Older ones were ended when these came.
const DEPLOYMENTS: u8 = 5;

/// The most characters of a pull request's text that GitHub takes.
const MAX_BODY: usize = 65_536;

/// Where it is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReportTarget {
    /// In one comment of ours.
    #[default]
    Comment,
    /// As links in the pull request's own text, by the contract's marker. A comment is there only while
    /// there is something that links cannot say: a failure, or a commit that waits for approval.
    Text,
    /// Nowhere.
    Nowhere,
}

/// How a host reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportSettings {
    /// Where people read it.
    pub target: ReportTarget,
    /// Whether there are deployments as well.
    pub deployments: bool,
    /// What somebody with write access does to approve a commit, as in "add the label `preview`".
    pub approve: String,
}

/// What should be on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pull_request: PullRequest,
    comment: Part<String>,
    links: Part<Links>,
    environment: Option<String>,
    /// The commit whose deployment this is, and its status.
    deployment: Option<(CommitSha, DeploymentStatus)>,
    /// The commit that goes on serving meanwhile.
    live: Option<CommitSha>,
}

/// Something that people can read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<T> {
    /// It should be there, like this.
    Present(T),
    /// Like this in the place of what is there; nothing where nothing is.
    IfPresent(T),
    /// It should not be there.
    Absent,
    /// It is not ours to say: not looked at.
    Unmanaged,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Links {
    url: String,
    extra: Vec<String>,
}

/// What is on GitHub. Nothing is planned for a part that was not looked at or could not be seen: what may be
/// there already must not be made twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Our own comments, the oldest first.
    pub comments: Option<Vec<Comment>>,
    /// The pull request's text.
    pub body: Option<String>,
    /// The newest deployments, the newest first, with their newest statuses.
    pub deployments: Option<Vec<(Deployment, Option<DeploymentStatus>)>>,
}

/// One call to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write the comment.
    CreateComment(String),
    /// Replace its text.
    UpdateComment {
        /// Its number.
        id: u64,
        /// The new text.
        body: String,
    },
    /// Delete a comment that is not needed (any more).
    DeleteComment(u64),
    /// Replace the pull request's text.
    SetBody(String),
    /// Make a deployment, and give it its first status.
    Deploy(CommitSha, DeploymentStatus),
    /// Give a deployment a new status.
    SetStatus(u64, DeploymentStatus),
}

/// The calls that failed. The others were made.
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
    /// What should be said about a preview as it is; nothing for one that has no pull request.
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
        let needs_words = preview.fault.is_some()
            || matches!(
                preview.state,
                PreviewState::WaitingForApproval | PreviewState::Expired
            );
        let comment = match settings.target {
            ReportTarget::Comment => Part::Present(text::comment(view, &settings.approve)),
            ReportTarget::Text if needs_words => {
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

    /// What should be said about a preview that was removed.
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

/// The status of the deployment of the wanted commit; nothing while it must not be deployed.
fn status(view: &PreviewView) -> Option<DeploymentStatus> {
    let preview = &view.preview;
    let sha = preview.wanted_sha.short();
    let (state, words) = match preview.state {
        PreviewState::WaitingForApproval | PreviewState::Expired | PreviewState::Closing => {
            return None;
        }
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
            failed_words(sha, preview.fault.as_ref()),
        ),
    };
    let url = match state {
        DeploymentState::Success => view.url.as_str(),
        _ => "",
    };
    Some(DeploymentStatus::new(state, &words, url))
}

fn failed_words(sha: &str, fault: Option<&Failure>) -> String {
    // Only the code: the message may hold what the pull request's author wrote, and has its place in the
    // comment.
    match fault {
        Some(fault) => format!("{sha} failed: {}", fault.code),
        None => format!("{sha} failed"),
    }
}

/// Who is at fault: `Failure` is the repository, `Error` the host.
fn blame(fault: &Failure) -> DeploymentState {
    match fault.code.kind() {
        _ if fault.code == Code::InvalidConfig => DeploymentState::Error,
        Kind::Build | Kind::Invalid | Kind::NotFound => DeploymentState::Failure,
        _ if fault.code == Code::AppUnhealthy => DeploymentState::Failure,
        _ => DeploymentState::Error,
    }
}

/// The calls that make what is seen into what is reported. Nothing when it is the same already.
#[must_use]
pub fn plan(report: &Report, seen: &Published) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(there) = &seen.comments {
        steps.extend(plan_comment(&report.comment, there));
    }
    if let Some(there) = &seen.body {
        steps.extend(plan_links(&report.links, there));
    }
    if let (Some(_), Some(there)) = (&report.environment, &seen.deployments) {
        steps.extend(plan_deployments(report, there));
    }
    steps
}

fn plan_links(said: &Part<Links>, there: &str) -> Option<Step> {
    let body = match said {
        Part::IfPresent(_) if !text::has_links(there) => return None,
        Part::Present(links) | Part::IfPresent(links) => {
            text::with_links(there, &links.url, &links.extra)
        }
        Part::Absent => text::without_links(there),
        Part::Unmanaged => return None,
    };
    // GitHub would refuse a longer one, each time again.
    (body != there && body.chars().count() <= MAX_BODY).then_some(Step::SetBody(body))
}

fn plan_comment(said: &Part<String>, there: &[Comment]) -> Vec<Step> {
    let wanted = match said {
        Part::Unmanaged => return Vec::new(),
        Part::Absent => None,
        Part::Present(body) | Part::IfPresent(body) => Some(body),
    };
    let mut there = there.iter();
    let mut steps = Vec::new();
    if let Some(body) = wanted {
        match there.next() {
            None if matches!(said, Part::IfPresent(_)) => {}
            None => steps.push(Step::CreateComment(body.clone())),
            // GitHub may drop white space at the end.
            Some(first) if first.body.trim_end() == body.trim_end() => {}
            Some(first) => steps.push(Step::UpdateComment {
                id: first.id,
                body: body.clone(),
            }),
        }
    }
    // A second one comes from a crash between writing the first and hearing of it.
    steps.extend(there.map(|comment| Step::DeleteComment(comment.id)));
    steps
}

fn plan_deployments(
    report: &Report,
    there: &[(Deployment, Option<DeploymentStatus>)],
) -> Vec<Step> {
    let wanted = report.deployment.as_ref();
    let current = wanted.and_then(|(sha, _)| there.iter().find(|(d, _)| d.sha == *sha));
    let mut steps = Vec::new();
    match (wanted, current) {
        (None, _) => {}
        (Some((sha, status)), None) => steps.push(Step::Deploy(sha.clone(), status.clone())),
        (Some((_, status)), Some((_, Some(last)))) if last == status => {}
        (Some((_, status)), Some((deployment, _))) => {
            steps.push(Step::SetStatus(deployment.id, status.clone()));
        }
    }
    for (deployment, last) in there {
        let is_current = current.is_some_and(|(current, _)| current.id == deployment.id);
        let last = last.as_ref().map(|status| status.state);
        let serves = wanted.is_none_or(|(_, status)| status.state != DeploymentState::Success)
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
    /// Makes GitHub say what the report says. When that is there already, nothing is written.
    ///
    /// # Errors
    /// [`ReportError`] with every call that failed; one that fails does not keep the others from being made.
    pub async fn publish(&self, report: &Report) -> Result<(), ReportError> {
        let (seen, mut errors) = self.look(report).await;
        for step in plan(report, &seen) {
            if let Err(error) = self.carry_out(report, step).await {
                errors.push(error);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ReportError(errors))
        }
    }

    /// What is there of what the report is about.
    async fn look(&self, report: &Report) -> (Published, Vec<GithubError>) {
        let mut errors = Vec::new();
        let pull_request = &report.pull_request;
        let mut seen = Published::default();
        if report.comment != Part::Unmanaged {
            let comments = self.own_comments(pull_request, COMMENT_MARKER).await;
            seen.comments = kept(comments, &mut errors);
        }
        if report.links != Part::Unmanaged {
            let view = kept(self.pull_request(pull_request).await, &mut errors);
            seen.body = view.flatten().map(|view| view.body);
        }
        if let Some(environment) = &report.environment {
            let there = self.deployments_with_status(report, environment).await;
            seen.deployments = kept(there, &mut errors);
        }
        (seen, errors)
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

    async fn carry_out(&self, report: &Report, step: Step) -> Result<(), GithubError> {
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
                    // The commit is no longer there, or is one of a fork that GitHub does not deploy.
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

/// The result, or its error kept for later.
fn kept<T>(result: Result<T, GithubError>, errors: &mut Vec<GithubError>) -> Option<T> {
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

    /// What GitHub would have after these steps.
    fn carry_out(seen: &Published, steps: Vec<Step>) -> Published {
        let mut comments = seen.comments.clone().expect("seen");
        let mut deployments = seen.deployments.clone().expect("seen");
        let mut body = seen.body.clone();
        for step in steps {
            match step {
                Step::CreateComment(body) => comments.push(Comment { id: 900, body }),
                Step::UpdateComment { id, body } => {
                    let comment = comments.iter_mut().find(|c| c.id == id);
                    comment.expect("there").body = body;
                }
                Step::DeleteComment(id) => comments.retain(|comment| comment.id != id),
                Step::SetBody(text) => body = Some(text),
                Step::Deploy(sha, status) => {
                    deployments.insert(0, (Deployment { id: 900, sha }, Some(status)));
                }
                Step::SetStatus(id, status) => {
                    let deployment = deployments.iter_mut().find(|(d, _)| d.id == id);
                    deployment.expect("there").1 = Some(status);
                }
            }
        }
        Published {
            comments: Some(comments),
            body,
            deployments: Some(deployments),
        }
    }

    fn any_said<T: fmt::Debug + Clone + 'static>(
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
        (state, "[ab]").prop_map(|(state, words)| DeploymentStatus::new(state, &words, ""))
    }

    fn any_report() -> impl Strategy<Value = Report> {
        let links = "[ab]".prop_map(|url| Links { url, extra: vec![] });
        let deployment = prop::option::of((0..3u8, any_status()));
        let live = prop::option::of(0..3u8);
        (
            any_said("[abc]".boxed()),
            any_said(links.boxed()),
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

    fn any_seen() -> impl Strategy<Value = Published> {
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
        fn after_a_plan_was_carried_out_nothing_is_left_to_do(report in any_report(), seen in any_seen()) {
            let after = carry_out(&seen, plan(&report, &seen));
            prop_assert_eq!(plan(&report, &after), []);
            let comments = after.comments.expect("seen");
            match &report.comment {
                Part::Present(body) => prop_assert!(comments.len() == 1 && comments[0].body == *body),
                Part::IfPresent(_) => prop_assert!(comments.len() <= 1),
                Part::Absent => prop_assert!(comments.is_empty()),
                Part::Unmanaged => prop_assert_eq!(Some(comments), seen.comments),
            }
        }

        #[test]
        fn at_most_what_serves_and_what_comes_is_not_ended(report in any_report(), seen in any_seen()) {
            let after = carry_out(&seen, plan(&report, &seen));
            let current = report.deployment.as_ref().map(|(sha, _)| sha);
            for (deployment, status) in after.deployments.expect("seen") {
                let ended = status.is_some_and(|s| s.state == DeploymentState::Inactive);
                let sha = Some(&deployment.sha);
                prop_assert!(ended || sha == current || sha == report.live.as_ref());
            }
        }

        #[test]
        fn what_was_not_seen_is_not_touched(report in any_report()) {
            prop_assert_eq!(plan(&report, &Published::default()), []);
        }
    }
}
