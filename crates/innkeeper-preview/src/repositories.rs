//! Repositories that have previews: follows renames, and reports those that GitHub does not show under their name.
//!
//! Their previews are not removed: GitHub answers the same for a deleted repository and for a token that lost a
//! permission. `innkeeper doctor` reports them, and `preview destroy` needs no answer from GitHub.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use innkeeper_github::client::{Github, GithubError, RepoView};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::preview::{PullDetails, RepoName};
use innkeeper_store::{PreviewFact, RepoIdentity, Store};
use jiff::Timestamp;
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::journal::Journal;
use crate::{PreviewError, PreviewsConfig};

/// Absence of a repository under its recorded name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    /// The repository's present name, if it has another one.
    now: Option<RepoName>,
    /// Time at which this daemon first noticed it.
    since: Timestamp,
}

impl Absence {
    /// Reports whether GitHub shows the repository under no name.
    pub(crate) fn is_without_name(&self) -> bool {
        self.now.is_none()
    }
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.now {
            Some(now) => write!(f, "the repository is {now} now"),
            None => f.write_str("GitHub does not show the repository: it was deleted, or the token or App has no access to it"),
        }
    }
}

/// The absent repositories, as of the last check.
#[derive(Debug, Default)]
struct Absences {
    of: Mutex<BTreeMap<RepoName, Absence>>,
}

impl Absences {
    fn of(&self, repo: &RepoName) -> Option<Absence> {
        let of = self.of.lock();
        of.get(repo).cloned()
    }

    /// Records a repository as absent. `now` is its present name, if it has another one.
    fn add(&self, repo: &RepoName, now: Option<RepoName>) {
        let mut of = self.of.lock();
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
        let mut of = self.of.lock();
        of.remove(repo);
    }

    fn retain(&self, repos: &BTreeSet<RepoName>) {
        let mut of = self.of.lock();
        of.retain(|repo, _| repos.contains(repo));
    }

    fn all(&self) -> BTreeMap<RepoName, Absence> {
        let of = self.of.lock();
        of.clone()
    }
}

/// Looks repositories up on GitHub. Clones share the absences.
#[derive(Clone)]
pub(crate) struct Repositories {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    journal: Journal,
    absences: Arc<Absences>,
    /// Held while renamed repositories are looked up.
    following: Arc<tokio::sync::Mutex<()>>,
}

impl Repositories {
    pub(crate) fn new(
        config: Arc<PreviewsConfig>,
        store: Store,
        github: Option<Github>,
        journal: Journal,
    ) -> Self {
        Self {
            config,
            store,
            github,
            journal,
            absences: Arc::default(),
            following: Arc::default(),
        }
    }

    /// Returns the absence of a repository, if it is absent.
    pub(crate) fn absence_of(&self, repo: &RepoName) -> Option<Absence> {
        self.absences.of(repo)
    }

    /// Looks up all repositories that have previews. Previews follow a renamed repository.
    ///
    /// # Errors
    /// The store cannot be read, or GitHub does not answer.
    pub(crate) async fn check_all(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let previews = self.store.previews().await?.into_iter();
        let repos: BTreeSet<RepoName> = previews.map(|preview| preview.record.repo).collect();
        self.absences.retain(&repos);
        for repo in repos {
            self.look_up(github, &repo).await?;
        }
        Ok(())
    }

    /// Looks up the repositories that were renamed according to a delivery, and those whose name another one took over.
    ///
    /// # Errors
    /// The store cannot be read or written, or GitHub does not answer.
    pub(crate) async fn follow_renamed(&self) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let _lock = self.following.lock().await;
        for repo in self.store.repos_to_check().await? {
            let looked_up = self.look_up(github, &repo);
            self.journal.step("look-up-repository", looked_up).await?;
        }
        Ok(())
    }

    async fn look_up(&self, github: &Github, repo: &RepoName) -> Result<(), PreviewError> {
        let known = self.store.repo_identity(repo).await?;
        let found = match known.id {
            Some(id) => github.repo_by_id(id, repo).await,
            None => github.repo(repo).await,
        };
        match found {
            // Previews do not follow to a name that the host does not allow.
            Ok(found) if found.name != *repo && !self.config.allows(&found.name) => {
                self.absences.add(repo, Some(found.name));
                self.defer(known).await?;
            }
            Ok(found) => {
                if let Some(id) = found.id {
                    let now = &found.name;
                    let moved = self.store.record_repo_name(id, repo, now).await?;
                    if moved > 0 {
                        info!(%repo, %now, moved, "previews follow a repository that was renamed");
                    }
                }
                self.absences.remove(repo);
                self.record_privacy(&found).await?;
            }
            Err(GithubError::RepoNotAccessible(_)) => {
                self.absences.add(repo, None);
                self.defer(known).await?;
            }
            // No answer is no evidence.
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(error) => warn!(%repo, "{}", innkeeper_model::chain(&error)),
        }
        Ok(())
    }

    /// Records whether a repository is private with its previews: their pages show less then.
    async fn record_privacy(&self, found: &RepoView) -> Result<(), PreviewError> {
        for preview in self.store.previews().await? {
            let record = &preview.record;
            if record.repo == found.name && preview.details.private != found.private {
                let details = PullDetails {
                    private: found.private,
                    ..preview.details
                };
                let facts = vec![PreviewFact::Details(details)];
                self.store.set_preview(&record.slug, facts).await?;
            }
        }
        Ok(())
    }

    /// Leaves a repository to the periodic check.
    async fn defer(&self, repo: RepoIdentity) -> Result<(), PreviewError> {
        if let Some(id) = repo.id {
            self.store.set_repo_to_check(id, false).await?;
        }
        Ok(())
    }

    /// Returns `innkeeper doctor`'s findings on absent repositories.
    pub(crate) async fn checks(&self) -> Vec<Check> {
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
