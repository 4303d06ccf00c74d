//! Redelivery of lost deliveries: GitHub never repeats one by itself, keeps them for three days, and redelivers them on
//! request.
//!
//! The webhooks of this host are recognized by their URL. A repository whose webhooks the token cannot list gets no
//! redeliveries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper_github::client::{FailedDelivery, Github, GithubError, Hook};
use innkeeper_model::preview::RepoName;
use innkeeper_model::{Backoff, chain};
use innkeeper_store::Store;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::{PreviewError, PreviewsConfig};

/// The events that previews depend on.
const EVENTS: [&str; 3] = ["pull_request", "issue_comment", "repository"];

/// Time for which GitHub keeps deliveries.
const KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Deliveries appear in GitHub's list some time after their attempts.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// Number of attempts for a delivery, including GitHub's own.
const ATTEMPTS: usize = 10;

/// Delays before a delivery that failed again is requested again.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5 * 60), Duration::from_secs(24 * 3600));

/// Number of redeliveries that are requested in one round. GitHub allows 80 such requests per minute.
const BATCH: usize = 50;

/// Time for which a repository's list of webhooks is cached.
const CACHED_FOR: Duration = Duration::from_secs(3600);

/// Requests redeliveries.
pub(crate) struct Redelivery {
    config: Arc<PreviewsConfig>,
    store: Store,
    github: Option<Github>,
    hooks: BTreeMap<RepoName, (Instant, Vec<Hook>)>,
    progress: BTreeMap<Hook, Progress>,
}

/// Progress through a webhook's failed deliveries.
#[derive(Debug)]
struct Progress {
    /// Older deliveries arrived, or were given up.
    since: Timestamp,
    /// The attempts after which a redelivery was requested. Each is requested once.
    requested: BTreeSet<u64>,
    /// All deliveries that failed before the daemon's start were requested.
    caught_up: bool,
}

impl Redelivery {
    pub(crate) fn new(config: Arc<PreviewsConfig>, store: Store, github: Option<Github>) -> Self {
        Self {
            config,
            store,
            github,
            hooks: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }

    /// Requests the redelivery of lost deliveries, up to a limit for each round.
    ///
    /// # Errors
    /// GitHub throttles or does not answer, or the store cannot be read.
    pub(crate) async fn request_lost(&mut self) -> Result<(), PreviewError> {
        let Some(github) = self.github.clone() else {
            return Ok(());
        };
        for hook in self.own_hooks(&github).await? {
            let progress = self
                .progress
                .entry(hook.clone())
                .or_insert_with(|| Progress {
                    since: Timestamp::now() - KEPT,
                    requested: BTreeSet::new(),
                    caught_up: false,
                });
            request_lost_of(&self.store, &github, &hook, progress).await?;
        }
        Ok(())
    }

    /// Returns the webhooks that deliver to this host, of all repositories that have or may have previews.
    async fn own_hooks(&mut self, github: &Github) -> Result<BTreeSet<Hook>, PreviewError> {
        let previews = self.store.previews().await?.into_iter();
        let mut repos: BTreeSet<RepoName> = previews.map(|preview| preview.record.repo).collect();
        repos.extend(self.config.repositories.iter().cloned());
        self.hooks
            .retain(|repo, (listed, _)| repos.contains(repo) && listed.elapsed() < CACHED_FOR);
        for repo in repos {
            if self.hooks.contains_key(&repo) {
                continue;
            }
            let hooks = match github.hooks(&repo, &self.config.webhook_url).await {
                Ok(hooks) => hooks,
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    info!(%repo, "lost deliveries are not requested again: {}", chain(&error));
                    Vec::new()
                }
            };
            self.hooks.insert(repo, (Instant::now(), hooks));
        }
        let hooks = self.hooks.values().flat_map(|(_, hooks)| hooks);
        Ok(hooks.cloned().collect())
    }
}

async fn request_lost_of(
    store: &Store,
    github: &Github,
    hook: &Hook,
    progress: &mut Progress,
) -> Result<(), PreviewError> {
    let now = Timestamp::now();
    let mut since = now - OVERLAP;
    progress.since = valid_since(progress.since, now);
    let failed = match github.failed_deliveries(hook, progress.since).await {
        Err(error) if !error.is_transient() => {
            info!(%hook, "lost deliveries are not requested again: {}", chain(&error));
            return Ok(());
        }
        failed => failed?,
    };
    let listed: BTreeSet<u64> = failed.iter().map(|delivery| delivery.id).collect();
    progress.requested.retain(|id| listed.contains(id));
    let mut requests = 0;
    for delivery in failed {
        if !EVENTS.contains(&delivery.event.as_str()) || delivery.attempts >= ATTEMPTS {
            continue;
        }
        // It arrived: only the answer came too late.
        if store.delivery(&delivery.guid).await?.is_some() {
            continue;
        }
        since = since.min(delivery.first_at);
        let is_due = !progress.caught_up || now >= due(&delivery);
        if is_due && requests < BATCH && !progress.requested.contains(&delivery.id) {
            requests += 1;
            request(github, hook, &delivery).await?;
            progress.requested.insert(delivery.id);
        }
    }
    progress.caught_up |= requests < BATCH;
    progress.since = since.max(now - KEPT);
    Ok(())
}

/// Returns the time from which a webhook's deliveries are checked. A time in the future was recorded while the clock was
/// ahead: everything that GitHub keeps is checked again.
fn valid_since(since: Timestamp, now: Timestamp) -> Timestamp {
    if since > now { now - KEPT } else { since }
}

/// Requests one redelivery. A refusal of GitHub does not keep the others from being requested.
async fn request(
    github: &Github,
    hook: &Hook,
    delivery: &FailedDelivery,
) -> Result<(), GithubError> {
    let (guid, status) = (&delivery.guid, delivery.status_code);
    match github.redeliver(hook, delivery.id).await {
        Ok(()) => info!(%guid, status, "a lost delivery was requested again"),
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => warn!(%guid, "a delivery is lost: {}", chain(&error)),
    }
    Ok(())
}

/// Returns the time of a delivery's next attempt. After GitHub's own attempt, it is due at once.
fn due(delivery: &FailedDelivery) -> Timestamp {
    let failures = u32::try_from(delivery.attempts).unwrap_or(u32::MAX);
    match failures.saturating_sub(1) {
        0 => delivery.delivered_at,
        repeated => delivery
            .delivered_at
            .checked_add(BACKOFF.delay(repeated))
            .unwrap_or(Timestamp::MAX),
    }
}

#[cfg(test)]
mod tests;
