//! What nobody tells: pull requests that were closed or pushed to unnoticed, previews that are too old or too many.

use std::collections::BTreeMap;
use std::sync::Arc;

use innkeeper_github::client::PullRequestView;
use innkeeper_model::preview::{PreviewState, RepoName};
use innkeeper_model::{Code, Explain, GuestName, chain};
use innkeeper_store::{NextDelivery, Presence, Preview, PreviewFact};
use tracing::{info, warn};

use crate::PreviewError;
use crate::approval::refusal_of;
use crate::desk::Why;
use crate::previews::Inner;
use crate::redeliver::Webhooks;

impl Inner {
    /// Looks after everything, from the start on and at every interval, until it is dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut timer = tokio::time::interval(self.config.interval);
        let mut webhooks = Webhooks::default();
        loop {
            timer.tick().await;
            for result in [
                // What no bell rang for: a delivery whose pause has ended since its preview went.
                self.hear().await,
                self.note_visits().await,
                self.look_after_all().await,
                self.look_for_repositories().await,
                self.ask_again(&mut webhooks).await,
                self.compare_with_github().await,
            ] {
                if let Err(error) = result {
                    warn!(code = %error.code(), "{}", chain(&error));
                }
            }
        }
    }

    async fn look_after_all(self: &Arc<Self>) -> Result<(), PreviewError> {
        for preview in self.store.previews().await? {
            self.expire_when_due(&preview).await?;
            self.wake(&preview.record.slug, Why::Look);
        }
        self.forget_old_evaluations().await
    }

    /// Removes previews whose pull requests are not open any more, and brings those up to date whose pull
    /// requests have other commits than we were told. Previews are not made here: one that somebody removed
    /// by hand stays away until the next push.
    async fn compare_with_github(self: &Arc<Self>) -> Result<(), PreviewError> {
        let Some(github) = &self.github else {
            return Ok(());
        };
        let mut by_repo: BTreeMap<RepoName, Vec<Preview>> = BTreeMap::new();
        for preview in self.store.previews().await? {
            if preview.record.pull_request.is_some() && preview.desired == Presence::Present {
                by_repo
                    .entry(preview.record.repo.clone())
                    .or_default()
                    .push(preview);
            }
        }
        for (repo, previews) in by_repo {
            match github.open_pull_requests(&repo).await {
                Ok(open) => {
                    for preview in previews {
                        // One that cannot be compared does not keep the others from it.
                        if let Err(error) = self.compare(&preview, &open).await {
                            let slug = &preview.record.slug;
                            warn!(%slug, code = %error.code(), "{}", chain(&error));
                        }
                    }
                }
                // A list that cannot be had says nothing about anybody.
                Err(error) => warn!(%repo, code = %error.code(), "{}", chain(&error)),
            }
        }
        Ok(())
    }

    async fn compare(
        self: &Arc<Self>,
        preview: &Preview,
        open: &[PullRequestView],
    ) -> Result<(), PreviewError> {
        let record = &preview.record;
        let Some(pull_request) = record.pull_request() else {
            return Ok(());
        };
        // A delivery that is pending knows better than a list that was read before it arrived.
        if self.store.next_delivery(&pull_request).await? != NextDelivery::None {
            return Ok(());
        }
        let Some(there) = open.iter().find(|view| view.pull_request == pull_request) else {
            // The list is from before: what it does not have may have been opened since.
            let now = self.github()?.pull_request(&pull_request).await?;
            let is_closed = now.is_none_or(|now| !now.open);
            if is_closed && self.is_still(preview).await? {
                self.dismiss(preview, "its pull request is closed").await?;
            }
            return Ok(());
        };
        self.compare_label(preview, there).await?;
        // Under another name, its own branches would look like those of a fork.
        let is_itself = self.absences.of(&record.repo).is_none();
        if is_itself && there.head_sha != record.wanted_sha && self.is_still(preview).await? {
            info!(slug = %record.slug, sha = %there.head_sha, "a push was not delivered");
            let facts = vec![
                PreviewFact::Head {
                    repo: there.head_repo.clone(),
                    branch: there.head_branch.clone(),
                    sha: there.head_sha.clone(),
                },
                PreviewFact::State(PreviewState::Queued),
                PreviewFact::Fault(refusal_of(
                    preview,
                    &self.config.approval_label,
                    &there.head_sha,
                )),
            ];
            self.store.set_preview(&record.slug, facts).await?;
            self.wake(&record.slug, Why::News);
        }
        Ok(())
    }

    /// Whether nothing was asked of a preview since it was read: a delivery knows better than a list from before.
    pub(crate) async fn is_still(&self, preview: &Preview) -> Result<bool, PreviewError> {
        let then = &preview.record;
        let now = self.store.preview(&then.slug).await?;
        Ok(now.is_some_and(|now| {
            now.desired == preview.desired
                && now.record.wanted_sha == then.wanted_sha
                && now.record.last_delivery == then.last_delivery
        }))
    }

    /// Makes room for a preview that has no guest yet, once its configuration has been evaluated: when there are too
    /// many, the one goes that was used least recently. Previews of newer pull requests stay, and those that were used
    /// since this one was last asked for.
    ///
    /// # Errors
    /// When there are too many and none of them may go.
    pub(crate) async fn make_room(
        self: &Arc<Self>,
        newcomer: &Preview,
    ) -> Result<(), PreviewError> {
        let limit = self.config.limit;
        let slug = &newcomer.record.slug;
        if !self.needs_room(slug).await? {
            return Ok(());
        }
        // One at a time: a preview with room counts from then on.
        let _one = self.room.lock().await;
        self.note_visits().await?;
        let mut others: Vec<_> = self.store.previews().await?;
        others.retain(|other| other.record.slug != *slug);
        let mut there = Vec::new();
        for other in others {
            let begins = matches!(
                other.record.state,
                PreviewState::Starting | PreviewState::SettingUp
            );
            if begins || self.guest_view(&other.record.slug).await?.is_some() {
                there.push(other);
            }
        }
        let staying = there
            .iter()
            .filter(|other| other.desired == Presence::Present)
            .count();
        if staying < limit {
            return self.begin(slug).await;
        }
        let oldest = there
            .iter()
            .filter(|other| may_yield(other, newcomer))
            .min_by_key(|other| {
                let has_expired = other.record.state == PreviewState::Expired;
                let record = &other.record;
                (!has_expired, other.active_running, record.last_activity)
            });
        let Some(oldest) = oldest else {
            return Err(PreviewError::new(
                Code::TooManyPreviews,
                format!(
                    "there are {limit} previews, as many as this host allows, and each is being changed, belongs to a newer pull request or was used since this one was asked for"
                ),
                "It is tried again by itself; `preview destroy` makes room, and previews.limit allows more.",
            ));
        };
        self.dismiss(oldest, "another one needed the room").await?;
        self.begin(slug).await
    }

    /// Whether a preview takes one of a limited number of places that it does not have yet.
    pub(crate) async fn needs_room(&self, slug: &GuestName) -> Result<bool, PreviewError> {
        Ok(self.config.limit > 0 && self.guest_view(slug).await?.is_none())
    }

    /// Records when previews were visited since the last time. One that had expired is started again.
    pub(crate) async fn note_visits(self: &Arc<Self>) -> Result<(), PreviewError> {
        for (slug, visited) in self.routes.visits().await? {
            let Some(preview) = self.store.preview(&slug).await? else {
                continue;
            };
            // Each visit is a use, also one whose time is before the last use because the clock was changed.
            let used = PreviewFact::Active(visited.max(preview.record.last_activity));
            if preview.record.state == PreviewState::Expired {
                let queued = PreviewFact::State(PreviewState::Queued);
                self.store.set_preview(&slug, vec![used, queued]).await?;
                self.wake(&slug, Why::Order);
            } else {
                self.store.set_preview(&slug, vec![used]).await?;
            }
        }
        Ok(())
    }

    async fn begin(&self, slug: &GuestName) -> Result<(), PreviewError> {
        let begun = vec![PreviewFact::State(PreviewState::Starting)];
        self.store.set_preview(slug, begun).await?;
        Ok(())
    }

    /// Records that a preview should go, for a reason that its log tells.
    async fn dismiss(self: &Arc<Self>, preview: &Preview, why: &str) -> Result<(), PreviewError> {
        let slug = &preview.record.slug;
        info!(%slug, "the preview goes: {why}");
        self.note(slug, format!("Removed: {why}."));
        self.store
            .set_preview(slug, vec![PreviewFact::Desired(Presence::Absent)])
            .await?;
        self.wake(slug, Why::News);
        Ok(())
    }
}

/// Whether a preview may go to make room for another one.
fn may_yield(preview: &Preview, newcomer: &Preview) -> bool {
    preview.desired == Presence::Present
        && preview.record.state.is_settled()
        && preview.record.last_activity <= newcomer.record.last_activity
        && !is_newer(preview, newcomer)
}

/// Whether a preview is of a newer pull request than another. A pull request keeps its age when its preview is made
/// anew; for branches, and across repositories, the age of the preview decides.
fn is_newer(preview: &Preview, other: &Preview) -> bool {
    let (this, other) = (&preview.record, &other.record);
    match (this.pull_request, other.pull_request) {
        (Some(number), Some(than)) if this.repo == other.repo => number > than,
        _ => this.created_at > other.created_at,
    }
}
