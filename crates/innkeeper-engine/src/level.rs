//! Levels of guests that should run: awake, paused, asleep.
//!
//! A request records the level, and the plan follows it like the desired state.

use innkeeper_model::api::Accepted;
use innkeeper_model::{EventKind, GuestName, Level, OperationId, OperationState, Verb};
use innkeeper_store::StoreError;

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::journal::Subject;

impl Engine {
    /// Records that a guest should be paused, and freezes its processes.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped, asleep or busy.
    pub async fn pause(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.set_level(name, Level::Paused, Verb::Pause, actor)
            .await
    }

    /// Records that a guest should be asleep, and shuts it down.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped or busy.
    pub async fn sleep(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.set_level(name, Level::Asleep, Verb::Sleep, actor)
            .await
    }

    /// Records that a guest should be awake, and continues or starts it.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped or busy.
    pub async fn wake(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.set_level(name, Level::Awake, Verb::Wake, actor).await
    }

    /// Wakes a guest that is paused or asleep, or about to be, and returns when it is awake. Coalesces concurrent calls. Has
    /// no effect on other guests. Reports whether the guest rested.
    ///
    /// # Errors
    /// When the guest does not exist or does not wake.
    pub async fn awaken(&self, name: &GuestName, actor: &str) -> Result<bool, EngineError> {
        let mut rested = false;
        loop {
            if let Some(running) = self.operation_on(name).await?
                && matches!(running.verb, Verb::Pause | Verb::Sleep | Verb::Wake)
            {
                rested = true;
                self.require_end(running.id, running.verb == Verb::Wake)
                    .await?;
            }
            if self.guest(name).await?.rests().is_none() {
                return Ok(rested);
            }
            rested = true;
            match self.wake(name, actor).await {
                Ok(accepted) => self.require_end(accepted.operation, true).await?,
                Err(EngineError::Store(StoreError::GuestBusy { operation, .. })) => {
                    self.require_end(operation, false).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the end of an operation. Returns its failure if it must succeed.
    async fn require_end(&self, id: OperationId, must_succeed: bool) -> Result<(), EngineError> {
        let operation = self.ended_operation(id).await?;
        match (operation.state, operation.failure) {
            (OperationState::Failed, Some(failure)) if must_succeed => {
                Err(EngineError::Several(vec![failure]))
            }
            _ => Ok(()),
        }
    }

    async fn set_level(
        &self,
        name: &GuestName,
        level: Level,
        verb: Verb,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let begun = self.inner.store.begin_level(name, level, verb, actor);
        self.begin_with(verb, begun).await
    }
}

impl Inner {
    /// Records that a guest is asleep that lost its processes while it was paused: by a reboot of the host, or because they
    /// were killed.
    pub(crate) async fn record_sleep(
        &self,
        name: &GuestName,
        subject: &Subject,
    ) -> Result<(), EngineError> {
        self.store.set_level(name, Level::Asleep).await?;
        let text = format!("{name} had no processes any more while it was paused; it is asleep.");
        self.journal.record(subject, EventKind::Note { text });
        Ok(())
    }
}
