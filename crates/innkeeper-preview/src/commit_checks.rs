//! Checks of commits on GitHub: each one that begins is recorded, so that it ends.
//!
//! A check that branch protection requires blocks a merge until it ends. The store holds the checks that have not ended: a
//! preview ends that of its wanted commit. A replaced commit, a removed preview and a commit without a preview are ended
//! here, again after each failure.

use std::sync::Arc;

use innkeeper_github::client::{Check, Github, GithubError};
use innkeeper_github::report::{Report, check_name, check_without_preview};
use innkeeper_model::chain;
use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{CommitSha, PreviewRecord, PullRequest, Situation};
use innkeeper_store::{OpenCheck, Presence, Preview, Store};
use tracing::warn;

use crate::{PreviewError, PreviewsConfig};

/// Ends checks.
#[derive(Clone)]
pub(crate) struct CommitChecks {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
}

impl CommitChecks {
    pub(crate) fn new(config: Arc<PreviewsConfig>, store: Store, github: Option<Github>) -> Self {
        Self {
            config,
            store,
            github,
        }
    }

    /// Records the check of a preview's wanted commit if the report begins it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn begin(
        &self,
        record: &PreviewRecord,
        report: Option<&Report>,
    ) -> Result<(), PreviewError> {
        if let Some(check) = of_preview(record)
            && report.is_some_and(Report::is_pending)
        {
            self.store.open_check(check).await?;
        }
        Ok(())
    }

    /// Follows a report that GitHub has accepted: forgets the check of the wanted commit if the report ended it, and ends
    /// those of the commits before.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn end(
        &self,
        record: &PreviewRecord,
        report: Option<&Report>,
    ) -> Result<(), PreviewError> {
        let Some(wanted) = of_preview(record) else {
            return Ok(());
        };
        for check in self.open_like(&wanted).await? {
            if check.sha != wanted.sha {
                self.settle(check, Situation::Superseded).await?;
            } else if !report.is_some_and(Report::is_pending) {
                self.store.close_check(check).await?;
            }
        }
        Ok(())
    }

    /// Ends all checks of a preview that was removed.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn end_all_of(&self, record: &PreviewRecord) -> Result<(), PreviewError> {
        let Some(wanted) = of_preview(record) else {
            return Ok(());
        };
        for check in self.open_like(&wanted).await? {
            let situation = match check.sha == wanted.sha {
                true => Situation::Removed,
                false => Situation::Superseded,
            };
            self.settle(check, situation).await?;
        }
        Ok(())
    }

    /// Ends the check of a commit without a preview of a configuration.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn conclude(
        &self,
        pull_request: &PullRequest,
        config_path: Option<&SourcePath>,
        sha: &CommitSha,
        situation: Situation,
    ) -> Result<(), PreviewError> {
        if !self.config.style.checks {
            return Ok(());
        }
        let check = OpenCheck {
            pull_request: pull_request.clone(),
            name: check_name(config_path),
            sha: sha.clone(),
            situation: None,
        };
        self.settle(check, situation).await
    }

    /// Ends the checks that no preview ends: of failed attempts, and of previews that are gone.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub(crate) async fn conclude_orphans(&self) -> Result<(), PreviewError> {
        for check in self.store.open_checks().await? {
            let situation = match check.situation {
                Some(situation) => situation,
                None => match self.preview_of(&check).await? {
                    Some(preview) if preview.record.wanted_sha != check.sha => {
                        Situation::Superseded
                    }
                    Some(preview)
                        if self.config.style.checks && preview.desired == Presence::Present =>
                    {
                        continue;
                    }
                    _ => Situation::Removed,
                },
            };
            self.settle(check, situation).await?;
        }
        Ok(())
    }

    /// Returns the open checks of all commits with the pull request and the name of a check.
    async fn open_like(&self, like: &OpenCheck) -> Result<Vec<OpenCheck>, PreviewError> {
        let mut open = self.store.open_checks().await?;
        open.retain(|check| check.pull_request == like.pull_request && check.name == like.name);
        Ok(open)
    }

    /// Returns the preview that ends a check.
    async fn preview_of(&self, check: &OpenCheck) -> Result<Option<Preview>, PreviewError> {
        let first = self.store.preview_of(&check.pull_request).await?;
        let additional = self.store.additional_previews(&check.pull_request).await?;
        let mut all = first.into_iter().chain(additional);
        Ok(all.find(|preview| check_name(preview.record.config_path.as_ref()) == check.name))
    }

    /// Records the last situation of a check, ends it on GitHub, and forgets it. Without a connection it stays recorded for
    /// the next time.
    async fn settle(&self, mut check: OpenCheck, situation: Situation) -> Result<(), PreviewError> {
        check.situation = Some(situation);
        self.store.open_check(check.clone()).await?;
        let Some(github) = &self.github else {
            return Ok(());
        };
        let last = check_without_preview(&check.name, &check.sha, situation);
        match show(github, &check, &last).await {
            Err(error) if error.is_transient() => {
                warn!(pull_request = %check.pull_request, "a check has not ended yet: {}", chain(&error));
                return Ok(());
            }
            Err(error) => {
                warn!(pull_request = %check.pull_request, "a check does not end: {}", chain(&error));
            }
            Ok(()) => {}
        }
        Ok(self.store.close_check(check).await?)
    }
}

/// Shows a check, unless GitHub shows it already.
async fn show(github: &Github, check: &OpenCheck, last: &Check) -> Result<(), GithubError> {
    let repo = &check.pull_request.repo;
    let former = github.check(repo, &check.sha, &check.name).await?;
    if former
        .as_ref()
        .is_some_and(|former| last.is_shown_by(former))
    {
        return Ok(());
    }
    github
        .set_check(repo, &check.sha, last, former.as_ref())
        .await
}

/// Returns the check of a preview's wanted commit. `None` for a preview without a pull request.
fn of_preview(record: &PreviewRecord) -> Option<OpenCheck> {
    Some(OpenCheck {
        pull_request: record.pull_request()?,
        name: check_name(record.config_path.as_ref()),
        sha: record.wanted_sha.clone(),
        situation: None,
    })
}
