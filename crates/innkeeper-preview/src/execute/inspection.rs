//! Observes the app that is served.

use innkeeper_model::GuestState;
use innkeeper_model::preview::PreviewState;
use innkeeper_store::Preview;
use tokio::time::Instant;

use super::{Execution, Executor};
use crate::PreviewError;
use crate::guests::HeldBack;
use crate::service_states::ServiceState;
use crate::steps::{App, Cause, Step};

impl Executor {
    /// Observes the live version.
    pub(super) async fn inspect(&self, preview: &Preview) -> Result<App, PreviewError> {
        let slug = &preview.record.slug;
        if let Some(held) = self.guests.held_back(slug).await? {
            return Ok(held.into());
        }
        // The guest may hold another version.
        if preview.dirty {
            return Ok(App::Down);
        }
        let guest = self.guests.view(slug).await?;
        let guest = guest.filter(|view| view.guest.closure == preview.live_closure);
        let (Some(meta), Some(guest)) = (&preview.live_meta, guest) else {
            return Ok(App::Down);
        };
        let now = Instant::now();
        if guest.state != GuestState::Running {
            if self.guests.is_being_started(slug).await? {
                self.health.guest_started(slug);
            } else {
                let reason = format!("the guest is {}", guest.state);
                self.health.ended(slug, reason, now);
            }
            return Ok(App::Down);
        }
        let leader = self.guests.leader(slug).await?;
        let (app, reason) = match self.services.app_state(&guest.guest, meta).await {
            ServiceState::Up => {
                self.health.set_up(slug, leader);
                let gave_up = preview.record.state == PreviewState::Failed
                    && preview.record.live_sha.as_ref() == Some(&preview.record.wanted_sha);
                return Ok(match gave_up && self.health.is_stable(slug, now) {
                    true => App::Recovered,
                    false => App::Running,
                });
            }
            // The guest was started since. Its service manager, which may not run yet, does not start the app.
            _ if !self.health.is_set_up(slug, leader) => {
                self.health.guest_started(slug);
                return Ok(App::Down);
            }
            ServiceState::Changing(reason) => (App::Starting, reason),
            ServiceState::Ended(reason) => (App::Ended, reason),
        };
        // It may have been paused during the query.
        if let Some(held) = self.guests.held_back(slug).await? {
            return Ok(held.into());
        }
        if self
            .health
            .trouble(slug)
            .is_none_or(|trouble| trouble.reason != reason)
        {
            self.journal
                .note(slug, format!("The app is down: {reason}."));
        }
        self.health.ended(slug, reason, now);
        match self.health.crash_loop(slug, now) {
            Some((ends, within)) if preview.record.state != PreviewState::Failed => {
                Err(self.services.crash_loop(slug, meta, ends, within).await)
            }
            _ => Ok(app),
        }
    }

    /// Returns the condition of an app whose guest was paused, put to sleep or stopped while a step worked on it: that is why
    /// the step failed.
    pub(super) async fn held_back_instead(
        &self,
        step: &Step,
        execution: &Execution,
    ) -> Option<App> {
        let Step::Serve(_, target) = step else {
            return None;
        };
        if target.cause == Cause::Wanted {
            return None;
        }
        let held = self.guests.held_back(&execution.preview.record.slug).await;
        held.ok().flatten().map(App::from)
    }
}

impl From<HeldBack> for App {
    fn from(held: HeldBack) -> Self {
        match held {
            HeldBack::Stopped => Self::StoppedByUser,
            HeldBack::Resting(level) => Self::Resting(level),
        }
    }
}
