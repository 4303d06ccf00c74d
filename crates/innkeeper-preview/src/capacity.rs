//! Limit of the number of previews, and the record of their use.

use std::collections::BTreeMap;
use std::sync::Arc;

use innkeeper_model::preview::{PreviewState, RepoName};
use innkeeper_model::{Code, Level};
use innkeeper_store::{Presence, Preview, PreviewFact, Store};
use tokio::sync::Mutex;
use tracing::info;

use crate::PreviewError;
use crate::guests::Guests;
use crate::journal::Journal;
use crate::routing::Routing;
use crate::workers::{WakeReason, Workers};

/// Evicts previews when the host has too many.
#[derive(Clone)]
pub(crate) struct Capacity {
    limit: usize,
    repo_limits: BTreeMap<RepoName, usize>,
    store: Store,
    journal: Journal,
    guests: Guests,
    routing: Routing,
    workers: Workers,
    /// Held while room is made for a preview.
    making_room: Arc<Mutex<()>>,
}

impl Capacity {
    pub(crate) fn new(
        limit: usize,
        repo_limits: BTreeMap<RepoName, usize>,
        store: Store,
        journal: Journal,
        guests: Guests,
        routing: Routing,
        workers: Workers,
    ) -> Self {
        Self {
            limit,
            repo_limits,
            store,
            journal,
            guests,
            routing,
            workers,
            making_room: Arc::default(),
        }
    }

    /// Makes room for a preview without a guest, once its configuration has been evaluated: if the limit of its repository or
    /// of the host is reached, the least recently used preview of either is evicted. Previews of newer pull requests stay, and so do those that were used since
    /// this one was requested.
    ///
    /// # Errors
    /// [`Code::TooManyPreviews`]: the limit is reached and no preview may be evicted.
    pub(crate) async fn make_room(&self, newcomer: &Preview) -> Result<(), PreviewError> {
        let slug = &newcomer.record.slug;
        if !self.needs_room(newcomer).await? {
            return Ok(());
        }
        // One at a time: from then on, a preview with room counts.
        let _lock = self.making_room.lock().await;
        self.record_visits().await?;
        let mut others = self.store.previews().await?;
        others.retain(|other| other.record.slug != *slug);
        let mut present = Vec::new();
        for other in others {
            let is_starting = matches!(
                other.record.state,
                PreviewState::Starting | PreviewState::SettingUp
            );
            if is_starting || self.guests.view(&other.record.slug).await?.is_some() {
                present.push(other);
            }
        }
        for limit in self.limits_of(&newcomer.record.repo) {
            if let Some(oldest) = limit.evicted(&present, newcomer)? {
                self.dismiss(&oldest, "another one needed the room").await?;
                present.retain(|other| other.record.slug != oldest.record.slug);
            }
        }
        let starting = vec![PreviewFact::State(PreviewState::Starting)];
        self.store.set_preview(slug, starting).await?;
        Ok(())
    }

    /// Reports whether a preview needs one of a limited number of places that it does not have yet.
    ///
    /// # Errors
    /// The guest cannot be observed.
    pub(crate) async fn needs_room(&self, preview: &Preview) -> Result<bool, PreviewError> {
        let record = &preview.record;
        let is_limited = self.limits_of(&record.repo).next().is_some();
        Ok(is_limited && self.guests.view(&record.slug).await?.is_none())
    }

    /// Returns the limits for a preview of a repository, the repository's own first.
    fn limits_of<'a>(&'a self, repo: &'a RepoName) -> impl Iterator<Item = Limit<'a>> {
        let of_repo = self.repo_limits.get(repo).map(|most| Limit {
            most: *most,
            repo: Some(repo),
        });
        let of_host = Limit {
            most: self.limit,
            repo: None,
        };
        let limits = of_repo.into_iter().chain([of_host]);
        limits.filter(|limit| limit.most > 0)
    }

    /// Records visits since the last call. Requests to a preview that is down are none: those that start it again are recorded
    /// when they do ([`Previews::wake_for_visitor`]), and the others come from crawlers.
    ///
    /// [`Previews::wake_for_visitor`]: crate::Previews::wake_for_visitor
    ///
    /// # Errors
    /// The visits cannot be read, or the store cannot be written.
    pub(crate) async fn record_visits(&self) -> Result<(), PreviewError> {
        for (slug, visited) in self.routing.visits().await? {
            let Some(preview) = self.store.preview(&slug).await? else {
                continue;
            };
            let guest = self.store.guest(&slug).await?;
            let level = guest.and_then(|guest| guest.rests());
            if preview.record.state == PreviewState::Expired || level == Some(Level::Asleep) {
                continue;
            }
            // Each visit is a use, also one that seems older than the last use because the clock was changed.
            let used = PreviewFact::Active(visited.max(preview.record.last_activity));
            let facts = vec![used, PreviewFact::Visited(visited)];
            self.store.set_preview(&slug, facts).await?;
        }
        Ok(())
    }

    /// Records that a preview is to be removed, with the reason in its log.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(crate) async fn dismiss(
        &self,
        preview: &Preview,
        reason: &str,
    ) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        info!(%slug, "the preview is removed: {reason}");
        self.journal.note(slug, format!("Removed: {reason}."));
        self.store
            .set_preview(slug, vec![PreviewFact::Desired(Presence::Absent)])
            .await?;
        self.workers.wake(slug, WakeReason::Change);
        Ok(())
    }
}

/// A maximum number of previews of one repository, or of the host.
struct Limit<'a> {
    most: usize,
    repo: Option<&'a RepoName>,
}

impl Limit<'_> {
    /// Returns the preview to evict so that there is room for another one; `None` if there is.
    ///
    /// # Errors
    /// [`Code::TooManyPreviews`]: no preview may be evicted.
    fn evicted(
        &self,
        present: &[Preview],
        newcomer: &Preview,
    ) -> Result<Option<Preview>, PreviewError> {
        let counts = |other: &&Preview| self.repo.is_none_or(|repo| other.record.repo == *repo);
        let counted: Vec<Preview> = present.iter().filter(counts).cloned().collect();
        let stays = |other: &&Preview| other.desired == Presence::Present;
        if counted.iter().filter(stays).count() < self.most {
            return Ok(None);
        }
        match to_evict(&counted, newcomer) {
            Some(oldest) => Ok(Some(oldest.clone())),
            None => Err(self.reached()),
        }
    }

    fn reached(&self) -> PreviewError {
        let most = self.most;
        let (place, setting) = match self.repo {
            Some(repo) => (
                format!("{repo} has {most} previews, as many as its quota allows"),
                format!("quotas.repositories.\"{repo}\".previews"),
            ),
            None => (
                format!("this host has {most} previews, as many as it allows"),
                "previews.limit".to_owned(),
            ),
        };
        PreviewError::new(
            Code::TooManyPreviews,
            format!(
                "{place}, and each is being changed, belongs to a newer pull request or was used since this one was requested"
            ),
            format!(
                "It is retried automatically; `preview destroy` makes room, and {setting} allows more."
            ),
        )
    }
}

/// Returns the preview to evict for another one: an expired or stopped one first, then the least recently used.
fn to_evict<'a>(present: &'a [Preview], newcomer: &Preview) -> Option<&'a Preview> {
    present
        .iter()
        .filter(|other| may_be_evicted(other, newcomer))
        .min_by_key(|other| {
            let record = &other.record;
            let is_in_use = !record.state.keeps_only_data();
            (is_in_use, other.active_running, record.last_activity)
        })
}

fn may_be_evicted(preview: &Preview, newcomer: &Preview) -> bool {
    preview.desired == Presence::Present
        && preview.record.state.is_settled()
        && preview.record.last_activity <= newcomer.record.last_activity
        && !is_newer(preview, newcomer)
}

/// Reports whether a preview is of a newer pull request than another. A pull request keeps its age when its preview is
/// removed and created again; for branches, and across repositories, the age of the preview decides.
fn is_newer(preview: &Preview, other: &Preview) -> bool {
    let (this, other) = (&preview.record, &other.record);
    match (this.pull_request, other.pull_request) {
        (Some(number), Some(than)) if this.repo == other.repo => number > than,
        _ => this.created_at > other.created_at,
    }
}

#[cfg(test)]
mod tests;
