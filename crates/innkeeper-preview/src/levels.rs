//! Levels of previews' guests: commands of users on the host.

use innkeeper_model::api::Accepted;
use innkeeper_model::{Code, GuestName, Level};
use innkeeper_store::Preview;

use crate::workers::WakeReason;
use crate::{PreviewError, Previews, records};

impl Previews {
    /// Pauses a preview's guest. Requests to its URL wait until it is woken, started or updated.
    ///
    /// # Errors
    /// The preview or its guest does not exist, does not run, or is being changed.
    pub async fn pause_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        self.require_settled(slug, "paused").await?;
        let components = &self.components;
        // Before the pause: a probe would wait like a request.
        components.routing.suspend_watch(slug);
        let paused = components.engine.pause(slug, actor).await;
        self.follow_rest(slug, paused.is_ok());
        Ok(paused?)
    }

    /// Puts a preview's guest to sleep. Its URL shows a page until it is woken, started or updated.
    ///
    /// # Errors
    /// The preview or its guest does not exist, is stopped, or is being changed.
    pub async fn sleep_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let preview = self.require_settled(slug, "put to sleep").await?;
        let components = &self.components;
        // Before the sleep: no request reaches an app that is gone.
        components.routing.show_asleep(&preview).await?;
        let asleep = components.engine.sleep(slug, actor).await;
        self.follow_rest(slug, asleep.is_ok());
        Ok(asleep?)
    }

    /// Wakes a preview's guest. After sleep, the preview's worker starts the app in it.
    ///
    /// # Errors
    /// The preview or its guest does not exist, is stopped, or another operation works on the guest.
    pub async fn wake_guest(
        &self,
        slug: &GuestName,
        actor: &str,
    ) -> Result<Accepted, PreviewError> {
        let preview = records::require(&self.components.store, slug).await?;
        let rested = self.show_wake(slug).await?;
        let woken = self.components.engine.wake(slug, actor).await;
        self.end_wake(&preview, rested, woken.is_ok());
        Ok(woken?)
    }

    /// Wakes a preview's guest if it rests, and returns when it is awake. Reports whether the guest rested.
    ///
    /// # Errors
    /// The preview or its guest does not exist, or the guest does not wake.
    pub async fn awaken_guest(&self, slug: &GuestName, actor: &str) -> Result<bool, PreviewError> {
        let preview = records::require(&self.components.store, slug).await?;
        let rested = self.show_wake(slug).await?;
        let has_rested = self.components.engine.awaken(slug, actor).await;
        if !matches!(has_rested, Ok(false)) {
            self.end_wake(&preview, rested, has_rested.is_ok());
        }
        Ok(has_rested?)
    }

    /// Has the worker follow a request to pause or stop the guest, or to put it to sleep. Work in hand that brings the app
    /// back ends: it would undo the request. After a refused one, the app is served again.
    pub(crate) fn follow_rest(&self, slug: &GuestName, accepted: bool) {
        let reason = match accepted {
            true => WakeReason::Command,
            false => WakeReason::Check,
        };
        self.components.workers.wake(slug, reason);
    }

    /// Has requests wait for the app of a guest that is asleep and is about to be woken. Returns the level at which it rests.
    async fn show_wake(&self, slug: &GuestName) -> Result<Option<Level>, PreviewError> {
        let components = &self.components;
        let rested = self.require_guest(slug).await?.guest.rests();
        // Its old processes may still be shutting down, with open ports that are not those of the woken app.
        if rested == Some(Level::Asleep) && components.engine.operation_on(slug).await?.is_none() {
            components.routing.show_waking(slug).await;
        }
        Ok(rested)
    }

    fn end_wake(&self, preview: &Preview, rested: Option<Level>, is_awake: bool) {
        match is_awake {
            true => self.follow_wake(preview, rested),
            // The page shows why the guest is still asleep.
            false => self.follow_rest(&preview.record.slug, false),
        }
    }

    pub(crate) fn follow_wake(&self, preview: &Preview, rested: Option<Level>) {
        let record = &preview.record;
        if rested == Some(Level::Asleep) {
            // The app is down by intent, which is no end that counts.
            self.components.health.guest_started(&record.slug);
        }
        let reason = match rested.is_some() && record.state.is_settled() {
            // Whatever it waits for, the app starts now.
            true => WakeReason::Command,
            // A new version is being made, or the app is being started, which needs no second begin.
            false => WakeReason::Check,
        };
        self.components.workers.wake(&record.slug, reason);
    }

    /// Returns a preview that has a guest and is not being changed. `done` is a participle such as `stopped`.
    pub(crate) async fn require_settled(
        &self,
        slug: &GuestName,
        done: &str,
    ) -> Result<Preview, PreviewError> {
        let preview = records::require(&self.components.store, slug).await?;
        let state = preview.record.state;
        if !state.is_settled() {
            return Err(PreviewError::new(
                Code::GuestBusy,
                format!("preview '{slug}' is {state} and cannot be {done}"),
                format!(
                    "Wait until it is live or failed: `preview logs {slug} --follow` shows its progress."
                ),
            ));
        }
        self.require_guest(slug).await?;
        Ok(preview)
    }
}
