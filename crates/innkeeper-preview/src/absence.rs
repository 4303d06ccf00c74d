//! Repositories with previews that GitHub does not show under their name (any more).
//!
//! Nothing is removed for that: GitHub answers the same for a repository that was deleted and for a token that
//! lost a right. People are told, and `preview destroy` asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use innkeeper_github::client::{Github, GithubError};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::RepoName;
use innkeeper_store::RepoIdentity;
use jiff::Timestamp;
use tracing::{info, warn};

use crate::PreviewError;
use crate::previews::Inner;

/// Why nothing is heard of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    /// Its name now, if it has another one.
    now: Option<RepoName>,
    /// When that was first noticed, by this daemon.
    since: Timestamp,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.now {
            Some(now) => write!(f, "the repository is {now} now"),
            None => f.write_str("GitHub does not show the repository: it was deleted, or the token or App has no right to it"),
        }
    }
}

/// The repositories that are absent, as of the last round.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    of: Mutex<BTreeMap<RepoName, Absence>>,
}

impl Absences {
    pub(crate) fn of(&self, repo: &RepoName) -> Option<Absence> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.get(repo).cloned()
    }

    /// Records a repository as absent, under this name now if it has another.
    fn add(&self, repo: &RepoName, now: Option<RepoName>) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let absence = of.entry(repo.clone()).or_insert_with(|| {
            warn!(%repo, "GitHub does not show a repository with previews under its name");
            Absence {
                now: None,
                since: Timestamp::now(),
            }
        });
        absence.now = now;
    }

    fn remove(&self, repo: &RepoName) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.remove(repo);
    }

    fn retain(&self, repos: &BTreeSet<RepoName>) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|repo, _| repos.contains(repo));
    }

    fn all(&self) -> BTreeMap<RepoName, Absence> {
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.clone()
    }
}

impl Inner {
    /// Looks whether GitHub shows the repositories that have previews, and has previews follow those that were
    /// renamed.
    ///
    /// # Errors
    /// When the store cannot be read, or GitHub does not answer.
    pub(crate) async fn look_for_repositories(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let previews = self.store.previews().await?.into_iter();
        let repos: BTreeSet<RepoName> = previews.map(|preview| preview.record.repo).collect();
        self.absences.retain(&repos);
        for repo in repos {
            self.look_for(github, &repo).await?;
        }
        Ok(())
    }

    /// Looks for the repositories of which GitHub wrote that they have another name, and for those whose name another
    /// one has taken over.
    ///
    /// # Errors
    /// When the store cannot be read or written, or GitHub does not answer.
    pub(crate) async fn look_for_renamed(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let _one = self.renaming.lock().await;
        for repo in self.store.repos_to_check().await? {
            self.step("look-for-repository", self.look_for(github, &repo))
                .await?;
        }
        Ok(())
    }

    async fn look_for(&self, github: &Github, repo: &RepoName) -> Result<(), PreviewError> {
        let known = self.store.repo_identity(repo).await?;
        let there = match known.id {
            Some(id) => github.repo_by_id(id, repo).await,
            None => github.repo(repo).await,
        };
        match there {
            // Under a name that the host does not allow it stays as it is: nothing of it is taken from there.
            Ok(there) if there.name != *repo && !self.config.allows(&there.name) => {
                self.absences.add(repo, Some(there.name));
                self.was_looked_for(known).await?;
            }
            Ok(there) => {
                if let Some(id) = there.id {
                    let now = &there.name;
                    let moved = self.store.record_repo_name(id, repo, now).await?;
                    if moved > 0 {
                        info!(%repo, %now, moved, "previews follow a repository that was renamed");
                    }
                }
                self.absences.remove(repo);
            }
            Err(GithubError::RepoNotAccessible(_)) => {
                self.absences.add(repo, None);
                self.was_looked_for(known).await?;
            }
            // It says nothing about anybody.
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => warn!(%repo, "{}", innkeeper_model::chain(&error)),
        }
        Ok(())
    }

    /// Leaves a repository to the periodic look.
    async fn was_looked_for(&self, repo: RepoIdentity) -> Result<(), PreviewError> {
        if let Some(id) = repo.id {
            self.store.set_repo_to_check(id, false).await?;
        }
        Ok(())
    }

    /// What a person should know of absent repositories.
    pub(crate) async fn check_repositories(&self) -> Vec<Check> {
        let previews = self.store.previews().await.unwrap_or_default();
        let mut checks = Vec::new();
        for (repo, absence) in self.absences.all() {
            let of = previews
                .iter()
                .filter(|preview| preview.record.repo == repo);
            let slugs: Vec<_> = of.map(|preview| preview.record.slug.to_string()).collect();
            if slugs.is_empty() {
                continue;
            }
            let since = absence.since.strftime("%F %R UTC");
            let remove = format!("`preview destroy {}` removes them", slugs.join(" "));
            let keep = match &absence.now {
                None => "give the token or App access to the repository".to_owned(),
                Some(now) => format!(
                    "they follow it when webhook.allowed_repos has {now} and it has no previews of the same pull requests"
                ),
            };
            checks.push(Check {
                subject: format!("repository {repo}"),
                verdict: Verdict::Warning,
                finding: format!("since {since}: {absence}; previews: {}", slugs.join(", ")),
                remedy: Some(format!("{remove}; or {keep}.")),
            });
        }
        checks
    }
}
