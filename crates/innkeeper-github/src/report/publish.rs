//! Publishes reports: observes, plans and executes.

use tracing::debug;

use super::{Part, Published, Report, ReportError, Step, plan};
use crate::client::{Deployment, DeploymentStatus, Github, GithubError};

/// Number of deployments of a preview that are examined. Older ones were ended when these were created.
const DEPLOYMENTS: u8 = 5;

impl Github {
    /// Publishes a report. Writes only differences.
    ///
    /// # Errors
    /// [`ReportError`] with all failed calls. The other calls are made nevertheless.
    pub async fn publish(&self, report: &Report) -> Result<(), ReportError> {
        let (published, mut errors) = self.observe(report).await;
        for step in plan(report, &published) {
            let is_comment = matches!(step, Step::CreateComment(_) | Step::UpdateComment { .. });
            if let Err(error) = self.execute(report, step).await {
                errors.push(self.cause_of(report, error, is_comment).await);
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(ReportError(errors))
        }
    }

    /// Replaces a refusal by its cause, if GitHub tells it elsewhere.
    async fn cause_of(&self, report: &Report, error: GithubError, is_comment: bool) -> GithubError {
        if !matches!(error, GithubError::Forbidden { .. }) {
            return error;
        }
        let pull_request = &report.pull_request;
        let repo = self.repo(&pull_request.repo).await;
        if repo.is_ok_and(|repo| repo.archived) {
            return GithubError::Archived(pull_request.repo.clone());
        }
        if is_comment
            && let Ok(Some(view)) = self.pull_request(pull_request).await
            && view.locked
        {
            return GithubError::Locked(pull_request.clone());
        }
        error
    }

    /// Observes the parts that the report manages.
    async fn observe(&self, report: &Report) -> (Published, Vec<GithubError>) {
        let mut errors = Vec::new();
        let pull_request = &report.pull_request;
        let mut published = Published::default();
        if report.comment != Part::Unmanaged {
            let comments = self.own_comments(pull_request, &report.marker).await;
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
        if let Some((sha, check)) = &report.check {
            let existing = self.check(&pull_request.repo, sha, &check.name).await;
            published.check = collect(existing, &mut errors);
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
            Step::SetCheck(former) => {
                let Some((sha, check)) = &report.check else {
                    return Ok(());
                };
                match self.set_check(repo, sha, check, former.as_ref()).await {
                    // The commit no longer exists.
                    Err(GithubError::Refused { status: 422, .. }) => Ok(()),
                    set => set,
                }
            }
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
