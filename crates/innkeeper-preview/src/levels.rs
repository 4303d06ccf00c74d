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
        // The worker watches the app again if its guest was not paused.
        components.workers.wake(slug, WakeReason::Check);
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
        // The worker shows the app again if its guest was not put to sleep.
        components.workers.wake(slug, WakeReason::Check);
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
        let rested = self.guest(slug).await?.guest.rests();
        let woken = self.components.engine.wake(slug, actor).await?;
        self.follow_wake(slug, rested);
        Ok(woken)
    }

    /// Wakes a preview's guest if it rests, and returns when it is awake.
    ///
    /// # Errors
    /// The preview or its guest does not exist, or the guest does not wake.
    pub async fn awaken_guest(&self, slug: &GuestName, actor: &str) -> Result<(), PreviewError> {
        let rested = self.guest(slug).await?.guest.rests();
        if self.components.engine.awaken(slug, actor).await? {
            self.follow_wake(slug, rested);
        }
        Ok(())
    }

    fn follow_wake(&self, slug: &GuestName, rested: Option<Level>) {
        if rested == Some(Level::Asleep) {
            // The app is down by intent, which is no end that counts.
            self.components.health.guest_started(slug);
        }
        self.components.workers.wake(slug, WakeReason::Check);
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
