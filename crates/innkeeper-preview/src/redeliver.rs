//! Deliveries that did not arrive: GitHub never repeats one by itself, keeps them for three days, and delivers them
//! again when it is asked to.
//!
//! Which webhooks are ours, their address says. Where GitHub does not tell us which there are, nothing is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_github::client::{FailedDelivery, Github, GithubError, Hook};
use innkeeper_model::chain;
use innkeeper_model::preview::RepoName;
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::PreviewError;
use crate::previews::Inner;

/// The events that previews depend on.
const EVENTS: [&str; 2] = ["pull_request", "repository"];

/// How long GitHub keeps deliveries.
const KEPT: SignedDuration = SignedDuration::from_hours(3 * 24);

/// Deliveries appear in GitHub's list some time after they were tried.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// How often a delivery is tried, with GitHub's own attempt.
const ATTEMPTS: usize = 10;

/// How long a delivery is left alone that has failed again, the first time; twice as long each time.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// How many deliveries are asked for in one round. GitHub takes 80 such requests in a minute.
const AT_ONCE: usize = 50;

/// For how long it is taken for known which webhooks a repository has.
const KNOWN_FOR: Duration = Duration::from_secs(3600);

/// What is known of the webhooks that deliver to us.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    of: BTreeMap<RepoName, (Instant, Vec<Hook>)>,
    seen: BTreeMap<Hook, Seen>,
}

/// How far a webhook's deliveries were looked through.
#[derive(Debug)]
struct Seen {
    /// What is older arrived, or was given up.
    since: Timestamp,
    /// The attempts after which another one was asked for. Each is asked for once.
    asked: BTreeSet<u64>,
    /// Whether all that failed before we were there has been asked for.
    caught_up: bool,
}

impl Inner {
    /// Asks GitHub for the deliveries that did not arrive, for some of them if there are many.
    ///
    /// # Errors
    /// When GitHub wants to be left alone or does not answer, or the store cannot be read.
    pub(crate) async fn ask_again(&self, webhooks: &mut Webhooks) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        for hook in self.our_hooks(github, webhooks).await? {
            let seen = webhooks.seen.entry(hook.clone()).or_insert_with(|| Seen {
                since: Timestamp::now() - KEPT,
                asked: BTreeSet::new(),
                caught_up: false,
            });
            self.ask_hook(github, &hook, seen).await?;
        }
        Ok(())
    }

    /// The webhooks that deliver to us, of all repositories that have or may have previews.
    async fn our_hooks(
        &self,
        github: &Github,
        webhooks: &mut Webhooks,
    ) -> Result<BTreeSet<Hook>, PreviewError> {
        let previews = self.store.previews().await?.into_iter();
        let mut repos: BTreeSet<RepoName> = previews.map(|preview| preview.record.repo).collect();
        repos.extend(self.config.repositories.iter().cloned());
        webhooks
            .of
            .retain(|repo, (asked, _)| repos.contains(repo) && asked.elapsed() < KNOWN_FOR);
        for repo in repos {
            if webhooks.of.contains_key(&repo) {
                continue;
            }
            let hooks = match github.hooks(&repo, &self.config.webhook_url).await {
                Ok(hooks) => hooks,
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    info!(%repo, "deliveries that do not arrive are lost: {}", chain(&error));
                    Vec::new()
                }
            };
            webhooks.of.insert(repo, (Instant::now(), hooks));
        }
        let hooks = webhooks.of.values().flat_map(|(_, hooks)| hooks);
        Ok(hooks.cloned().collect())
    }

    async fn ask_hook(
        &self,
        github: &Github,
        hook: &Hook,
        seen: &mut Seen,
    ) -> Result<(), PreviewError> {
        let now = Timestamp::now();
        let mut since = now - OVERLAP;
        seen.since = since_then(seen.since, now);
        let failed = match github.failed_deliveries(hook, seen.since).await {
            Err(error) if !error.is_transient() => {
                info!(%hook, "deliveries that do not arrive are lost: {}", chain(&error));
                return Ok(());
            }
            failed => failed?,
        };
        let there: BTreeSet<u64> = failed.iter().map(|delivery| delivery.id).collect();
        seen.asked.retain(|id| there.contains(id));
        let mut asked = 0;
        for delivery in failed {
            if !EVENTS.contains(&delivery.event.as_str()) || delivery.attempts >= ATTEMPTS {
                continue;
            }
            // It is here: we were slow to say so.
            if self.store.delivery(&delivery.guid).await?.is_some() {
                continue;
            }
            since = since.min(delivery.first_at);
            let is_due = !seen.caught_up || now >= due(&delivery);
            if is_due && asked < AT_ONCE && !seen.asked.contains(&delivery.id) {
                asked += 1;
                ask(github, hook, &delivery).await?;
                seen.asked.insert(delivery.id);
            }
        }
        seen.caught_up |= asked < AT_ONCE;
        seen.since = since.max(now - KEPT);
        Ok(())
    }
}

/// Since when a webhook's deliveries are looked through. A time in the future was recorded while the clock was ahead: all
/// that GitHub keeps is looked through again.
fn since_then(since: Timestamp, now: Timestamp) -> Timestamp {
    if since > now { now - KEPT } else { since }
}

/// Asks for one delivery. That GitHub does not want to repeat it is no failure of the others.
async fn ask(github: &Github, hook: &Hook, delivery: &FailedDelivery) -> Result<(), GithubError> {
    let (guid, status) = (&delivery.guid, delivery.status_code);
    match github.redeliver(hook, delivery.id).await {
        Ok(()) => info!(%guid, status, "a delivery did not arrive and was asked for again"),
        Err(error) if error.is_transient() => return Err(error),
        Err(error) => warn!(%guid, "a delivery is lost: {}", chain(&error)),
    }
    Ok(())
}

/// When a delivery is to be tried again. One that only GitHub has tried is due at once.
fn due(delivery: &FailedDelivery) -> Timestamp {
    let Some(doublings) = delivery.attempts.checked_sub(2) else {
        return delivery.delivered_at;
    };
    let pause = FIRST_PAUSE * (1 << doublings.min(ATTEMPTS));
    delivery
        .delivered_at
        .checked_add(pause)
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_delivery_is_passed_over_after_the_clock_was_ahead() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let ahead = now + SignedDuration::from_hours(48) - OVERLAP;
        assert_eq!(since_then(ahead, now), now - KEPT);
        assert_eq!(since_then(now - OVERLAP, now), now - OVERLAP);
    }

    #[test]
    fn a_delivery_that_fails_again_is_tried_less_and_less_often() {
        let minutes = |attempts| {
            let delivery = FailedDelivery {
                id: 1,
                guid: "g".to_owned(),
                event: EVENTS[0].to_owned(),
                status_code: 0,
                delivered_at: Timestamp::UNIX_EPOCH,
                first_at: Timestamp::UNIX_EPOCH,
                attempts,
            };
            due(&delivery).as_second() / 60
        };
        let pauses: Vec<_> = (1..ATTEMPTS).map(minutes).collect();
        assert_eq!(pauses, [0, 5, 10, 20, 40, 80, 160, 320, 640]);
    }
}
