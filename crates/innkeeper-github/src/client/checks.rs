//! Checks of commits, which branch protection can require: check runs of an App, commit statuses of a token.

use hyper::Method;
use innkeeper_model::preview::{CheckResult, CommitSha, RepoName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{ApiCall, repo_path, segment};
use super::{Credentials, Github, GithubError};
use crate::wire;

/// Maximum length of a commit status's description, in characters ("Create a commit status").
const MAX_DESCRIPTION: usize = 140;

/// A check of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, which branch protection refers to.
    pub name: String,
    /// The result.
    pub result: CheckResult,
    /// A few words.
    pub title: String,
    /// One line.
    pub summary: String,
    /// The page with details; may be empty.
    pub url: String,
}

/// A check that GitHub shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCheck {
    /// GitHub's id of a check run. Commit statuses are never changed, only replaced.
    run: Option<u64>,
    /// Its contents, as they would be sent again.
    sent: Value,
}

#[derive(Deserialize)]
struct CheckRuns {
    check_runs: Vec<CheckRun>,
}

#[derive(Deserialize)]
struct CheckRun {
    id: u64,
    status: String,
    conclusion: Option<String>,
    details_url: Option<String>,
    app: Option<AppView>,
    output: Output,
}

#[derive(Deserialize)]
struct AppView {
    slug: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    title: Option<String>,
    summary: Option<String>,
}

#[derive(Deserialize)]
struct CommitStatus {
    state: String,
    context: String,
    description: Option<String>,
    target_url: Option<String>,
    creator: Option<wire::Account>,
}

impl Check {
    /// Returns the fields of a check run that change, as GitHub receives and returns them.
    fn run(&self) -> Value {
        let conclusion = match self.result {
            CheckResult::Pending => None,
            CheckResult::Success => Some("success"),
            CheckResult::Neutral => Some("neutral"),
            CheckResult::Failure => Some("failure"),
        };
        let status = match conclusion {
            None => "in_progress",
            Some(_) => "completed",
        };
        let mut run = json!({
            "status": status,
            "output": { "title": self.title, "summary": self.summary },
        });
        if let Some(conclusion) = conclusion {
            run["conclusion"] = conclusion.into();
        }
        if !self.url.is_empty() {
            run["details_url"] = self.url.as_str().into();
        }
        run
    }

    /// Returns the commit status, as GitHub receives and returns it. It knows no neutral result.
    fn status(&self) -> Value {
        let state = match self.result {
            CheckResult::Pending => "pending",
            CheckResult::Success | CheckResult::Neutral => "success",
            CheckResult::Failure => "failure",
        };
        let description: String = self.summary.chars().take(MAX_DESCRIPTION).collect();
        let mut status = json!({
            "state": state,
            "context": self.name,
            "description": description,
        });
        if !self.url.is_empty() {
            status["target_url"] = self.url.as_str().into();
        }
        status
    }

    /// Reports whether GitHub shows this check.
    #[must_use]
    pub fn is_shown_by(&self, published: &PublishedCheck) -> bool {
        let own = match published.run {
            Some(_) => self.run(),
            None => self.status(),
        };
        own == published.sent
    }
}

impl PublishedCheck {
    fn of_run(run: CheckRun) -> Self {
        let mut sent = json!({
            "status": run.status,
            "output": { "title": run.output.title, "summary": run.output.summary },
        });
        if let Some(conclusion) = run.conclusion {
            sent["conclusion"] = conclusion.into();
        }
        if let Some(url) = run.details_url.filter(|url| !url.is_empty()) {
            sent["details_url"] = url.into();
        }
        Self {
            run: Some(run.id),
            sent,
        }
    }

    fn of_status(status: CommitStatus) -> Self {
        let mut sent = json!({
            "state": status.state,
            "context": status.context,
            "description": status.description.unwrap_or_default(),
        });
        if let Some(url) = status.target_url.filter(|url| !url.is_empty()) {
            sent["target_url"] = url.into();
        }
        Self { run: None, sent }
    }

    fn is_completed(&self) -> bool {
        self.sent["status"] == "completed"
    }
}

impl Github {
    /// Returns Innkeeper's newest check of a commit with a name. Those of other Apps and accounts do not count.
    ///
    /// # Errors
    /// [`GithubError`].
    pub async fn check(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        name: &str,
    ) -> Result<Option<PublishedCheck>, GithubError> {
        let login = self.login().await?;
        let action = format!("look up the check '{name}' of {repo} at {sha}");
        match self.session().credentials() {
            Credentials::App(_) => {
                let below = format!(
                    "/commits/{sha}/check-runs?check_name={}&filter=latest&per_page=100",
                    segment(name)
                );
                let call = ApiCall::get(action, repo_path(repo, &below));
                let found: CheckRuns = self.json(&call).await?;
                let is_own = |run: &CheckRun| {
                    let slug = run.app.as_ref().and_then(|app| app.slug.as_deref());
                    slug.is_some_and(|slug| login.eq_ignore_ascii_case(&format!("{slug}[bot]")))
                };
                let own = found.check_runs.into_iter().filter(is_own);
                Ok(own.max_by_key(|run| run.id).map(PublishedCheck::of_run))
            }
            Credentials::Token(_) => {
                let below = format!("/commits/{sha}/statuses?per_page=100");
                let call = ApiCall::get(action, repo_path(repo, &below));
                let newest_first: Vec<CommitStatus> = self.json(&call).await?;
                let is_own = |status: &CommitStatus| {
                    let creator = status.creator.as_ref();
                    status.context == name
                        && creator.is_some_and(|by| by.login.eq_ignore_ascii_case(login))
                };
                let own = newest_first.into_iter().find(is_own);
                Ok(own.map(PublishedCheck::of_status))
            }
        }
    }

    /// Shows a check. `former` is the one that GitHub shows now: a check run that has not ended is changed.
    ///
    /// # Errors
    /// [`GithubError`]. The check may be shown nevertheless.
    pub async fn set_check(
        &self,
        repo: &RepoName,
        sha: &CommitSha,
        check: &Check,
        former: Option<&PublishedCheck>,
    ) -> Result<(), GithubError> {
        let action = format!("set the check '{}' of {repo} at {sha}", check.name);
        let call = match self.session().credentials() {
            Credentials::Token(_) => {
                let path = repo_path(repo, &format!("/statuses/{sha}"));
                // A second equal status changes nothing.
                ApiCall::with_body(Method::POST, action, path, &check.status())?.idempotent()
            }
            Credentials::App(_) => {
                let mut run = check.run();
                let is_open = |former: &&PublishedCheck| {
                    // A run that has ended cannot be in progress again.
                    !former.is_completed() || check.result != CheckResult::Pending
                };
                match former.filter(is_open).and_then(|former| former.run) {
                    Some(id) => {
                        let path = repo_path(repo, &format!("/check-runs/{id}"));
                        ApiCall::with_body(Method::PATCH, action, path, &run)?
                    }
                    None => {
                        run["name"] = check.name.as_str().into();
                        run["head_sha"] = sha.as_str().into();
                        let path = repo_path(repo, "/check-runs");
                        ApiCall::with_body(Method::POST, action, path, &run)?
                    }
                }
            }
        };
        self.send(&call).await?.success(&call).map(drop)
    }
}
