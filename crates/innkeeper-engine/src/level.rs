//! Levels of guests that should run: awake, paused, asleep.
//!
//! A request records the level, and the plan follows it like the desired state.

use std::time::Duration;

use innkeeper_model::api::Accepted;
use innkeeper_model::{
    DesiredState, EventKind, GuestName, Level, OperationId, OperationState, UnitPhase, Verb,
};
use innkeeper_store::StoreError;

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::journal::Subject;

/// Timeout for the service manager of a guest that was woken.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(60);

impl Engine {
    /// Records that a guest should be paused, and freezes its processes.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped, asleep or busy, or has ended and is about to be started again.
    pub async fn pause(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.require_processes(name).await?;
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

    /// Records that a guest should be awake, and continues or starts it. Coalesces concurrent requests.
    ///
    /// # Errors
    /// When the guest does not exist, is stopped or busy, or it is asleep and the host's memory runs short.
    pub async fn wake(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.require_memory_for(name).await?;
        self.note_request(name, actor);
        let rests = self.guest(name).await?.rests().is_some();
        let woken = self.set_level(name, Level::Awake, Verb::Wake, actor);
        match woken.await {
            Ok(accepted) => {
                if !rests {
                    let in_flight = self.inner.in_flight.lock().clone();
                    let mut idle = self.inner.idle_wakes.lock();
                    idle.insert(accepted.operation);
                    // It may have ended already.
                    idle.retain(|id| in_flight.contains(id));
                }
                Ok(accepted)
            }
            Err(EngineError::Store(StoreError::GuestBusy {
                operation,
                verb: Verb::Wake,
                ..
            })) => Ok(Accepted {
                operation,
                guest: Some(name.clone()),
            }),
            Err(error) => Err(error),
        }
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
                let wakes = running.verb == Verb::Wake;
                self.require_end(running.id, wakes).await?;
                // A user may pause it again from now on.
                if wakes {
                    return Ok(true);
                }
            }
            if self.guest(name).await?.rests().is_none() {
                return Ok(rested);
            }
            rested = true;
            match self.wake(name, actor).await {
                Ok(accepted) => {
                    self.require_end(accepted.operation, true).await?;
                    return Ok(true);
                }
                Err(EngineError::Store(StoreError::GuestBusy { operation, .. })) => {
                    self.require_end(operation, false).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until commands find their programs in a guest that was started: its service manager has responded since, if its
    /// closure has one. Returns after a minute in any case, and then at once: a command may be meant to show why the system
    /// does not come up.
    pub async fn await_services(&self, name: &GuestName) {
        let Ok(Some(leader)) = self.leader(name).await else {
            return;
        };
        if self.inner.responsive.lock().get(name) == Some(&leader) {
            return;
        }
        let response = self.inner.await_response(name);
        drop(tokio::time::timeout(SERVICES_TIMEOUT, response).await);
        self.inner.responsive.lock().insert(name.clone(), leader);
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

    /// Requires that a guest that should be awake is. While an operation works on it, that one is the reason to refuse.
    async fn require_processes(&self, name: &GuestName) -> Result<(), EngineError> {
        let guest = self.guest(name).await?;
        if guest.desired != DesiredState::Running || guest.level != Level::Awake {
            return Ok(());
        }
        let unit = self.inner.host.units.phase(name).await?;
        let runs = unit.is_some_and(|unit| unit.phase == UnitPhase::Running);
        if runs || self.operation_on(name).await?.is_some() {
            return Ok(());
        }
        let (guest, kind) = (guest.name, guest.kind);
        Err(EngineError::NoProcesses { guest, kind })
    }

    async fn set_level(
        &self,
        name: &GuestName,
        level: Level,
        verb: Verb,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        self.inner.relief.lock().forget_reason(name);
        let begin = async {
            let begun = self.inner.store.begin_level(name, level, verb, actor).await;
            // The request decides from now on: a packet from before it does not undo a pause.
            if begun.is_ok() {
                self.inner.uses.lock().end_peek(name);
            }
            begun
        };
        self.begin_with(verb, begin).await
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
