//! Systems that guests have built for themselves, for example by `nixos-rebuild`: what their profile names, and whether the
//! next start boots it.
//!
//! ```text
//!            ┌──────────── the profile names another system ◄───────────────┐
//!            ▼                                                              │
//!         pending ─► booting ─► booted ─ next start ─► booting              │
//!                       │ does not come up                                  │
//!                       ▼                                                   │
//!                    failing ─► failed: the closure from the host boots ────┤
//!                                  └── `agent start` of a stopped agent ─► pending
//!                                                                           │
//!         `agent set` with another closure from the host ─► replaced ───────┘
//! ```

use innkeeper_facilities::{BOOT_OWN, Facilities, FacilityError};
use innkeeper_model::{
    EventKind, Explain, Failure, Guest, GuestKind, GuestName, OwnSystem, OwnSystemState, StorePath,
};
use tracing::warn;

use crate::EngineError;
use crate::inner::Inner;
use crate::journal::Subject;

impl Inner {
    /// Records the system that a guest's profile names, and returns it. The guest's files must be at their place. With a closure
    /// that boots no own system, the record stays: the system is still in the guest's files.
    ///
    /// # Errors
    /// When the guest's files cannot be read, or the store fails.
    pub(crate) async fn observe_own_system(
        &self,
        guest: &Guest,
    ) -> Result<Option<OwnSystem>, EngineError> {
        let known = guest.own_system.as_deref();
        if !boots_own(&self.host, guest).await? {
            return self.suspend_own_system(guest, known).await;
        }
        let found = self.host.rootfs.own_system(&guest.name).await?;
        let found = found.filter(|found| guest.closure.as_ref() != Some(found));
        if found.as_ref() == known.map(|own| &own.system) {
            return Ok(known.cloned());
        }
        let own = found.map(OwnSystem::found);
        let name = &guest.name;
        self.store.set_own_system(name, own.as_ref()).await?;
        let text = match &own {
            Some(OwnSystem { system, .. }) => format!(
                "The agent has a system of its own, {system}, and boots it at its next start."
            ),
            None => "The agent has no system of its own any more.".to_owned(),
        };
        self.note_own_system(&Subject::guest(name), text);
        Ok(own)
    }

    /// Updates the record from the profile of a running guest, unless an operation decides about it just now. The next
    /// observation repeats a failure.
    pub(crate) async fn follow_own_system(&self, guest: &Guest) {
        let is_in_doubt = guest.own_system.as_ref().is_some_and(|own| {
            matches!(own.state, OwnSystemState::Booting | OwnSystemState::Failing)
        });
        if !is_in_doubt && let Err(error) = self.observe_own_system(guest).await {
            let name = &guest.name;
            warn!(guest = %name, code = %error.code(), "the agent's own system is not known: {}", innkeeper_model::chain(&error));
        }
    }

    /// Returns the own system of a guest, which may be stopped, and updates the record. If the profile cannot be read, the
    /// record is the answer: what is in its files must not keep the host from a change of the guest.
    pub(crate) async fn present_own_system(&self, guest: &Guest) -> Option<OwnSystem> {
        let observed = async {
            let unit = self.host.units.phase(&guest.name).await?;
            let is_alive = unit.is_some_and(|unit| unit.phase.is_alive());
            if !is_alive && !self.host.rootfs.open(&guest.name).await? {
                return Ok(guest.own_system.as_deref().cloned());
            }
            self.observe_own_system(guest).await
        };
        observed.await.unwrap_or_else(|error: EngineError| {
            let (name, code) = (&guest.name, error.code());
            let reason = innkeeper_model::chain(&error);
            warn!(guest = %name, %code, "the record tells the agent's own system: {reason}");
            guest.own_system.as_deref().cloned()
        })
    }

    /// Decides what the guest, which waits at the door, boots, and records it.
    pub(crate) async fn choose_system(
        &self,
        guest: &Guest,
        subject: &Subject,
    ) -> Result<(), EngineError> {
        let name = &guest.name;
        let (own, state) = match self.observe_own_system(guest).await {
            Ok(own) => (own, OwnSystemState::Booting),
            // The host's closure boots in any case.
            Err(error) => {
                let reason = innkeeper_model::chain(&error);
                warn!(guest = %name, code = %error.code(), "the agent boots the closure from the host: {reason}");
                (
                    guest.own_system.as_deref().cloned(),
                    OwnSystemState::Pending,
                )
            }
        };
        let Some(own) = own.filter(|own| own.state.is_bootable()) else {
            return Ok(());
        };
        if state == OwnSystemState::Booting {
            let text = format!("Booting the agent's own system, {}.", own.system);
            self.note_own_system(subject, text);
        }
        let own = own.with_state(state, None);
        Ok(self.store.set_own_system(name, Some(&own)).await?)
    }

    /// Opens the door to the guest's own system, if it was chosen, or to the closure from the host. A failure of that is no
    /// finding about the own system.
    pub(crate) async fn release(&self, guest: &Guest) -> Result<(), EngineError> {
        let own = booting(guest);
        let system = own.map(|own| &own.system);
        let released = self.host.units.release(&guest.name, system).await;
        if let (Err(_), Some(own)) = (&released, own) {
            let own = own.clone().with_state(OwnSystemState::Pending, None);
            self.store.set_own_system(&guest.name, Some(&own)).await?;
        }
        Ok(released?)
    }

    /// Checks that the guest came up with its own system. Has no effect on a guest that did not boot one.
    pub(crate) async fn check_own_system(&self, guest: &Guest) -> Result<(), EngineError> {
        let Some(own) = booting(guest) else {
            return Ok(());
        };
        let name = &guest.name;
        match self.await_own_system(guest).await {
            Ok(()) => {
                let own = own.clone().with_state(OwnSystemState::Booted, None);
                Ok(self.store.set_own_system(name, Some(&own)).await?)
            }
            Err(EngineError::Unhealthy {
                finding, mut log, ..
            }) => {
                if log.is_empty() {
                    log = self.console_end(guest).await;
                }
                Err(failed(name, &own.system, finding, log))
            }
            Err(error) => Err(error),
        }
    }

    /// Records that the guest's own system did not come up, so that the plan leaves it. Returns false for another error.
    pub(crate) async fn fail_own_system(
        &self,
        name: &GuestName,
        error: &EngineError,
        subject: &Subject,
    ) -> Result<bool, EngineError> {
        let EngineError::OwnSystem { system, .. } = error else {
            return Ok(false);
        };
        let guest = self.store.guest(name).await?;
        let own = guest.and_then(|guest| guest.own_system);
        let Some(own) = own.filter(|own| own.system == *system) else {
            return Ok(false);
        };
        let failure = Failure::from(error);
        let text = format!("{failure}; booting the closure from the host.");
        warn!(guest = %name, code = %failure.code, "{text}");
        self.note_own_system(subject, text);
        let own = own.with_state(OwnSystemState::Failing, Some(failure));
        self.store.set_own_system(name, Some(&own)).await?;
        Ok(true)
    }

    /// Records that the guest, which is stopped, does not boot its own system any more.
    pub(crate) async fn leave_own_system(&self, guest: &Guest) -> Result<(), EngineError> {
        let Some(own) = guest.own_system.clone() else {
            return Ok(());
        };
        let failure = own.failure.clone();
        let own = own.with_state(OwnSystemState::Failed, failure);
        Ok(self.store.set_own_system(&guest.name, Some(&own)).await?)
    }

    /// Records that the guest's closure takes the place of its own system, which it does not boot.
    async fn suspend_own_system(
        &self,
        guest: &Guest,
        known: Option<&OwnSystem>,
    ) -> Result<Option<OwnSystem>, EngineError> {
        let Some(known) = known.filter(|own| guest.closure.is_some() && own.state.is_bootable())
        else {
            return Ok(known.cloned());
        };
        let own = known.clone().with_state(OwnSystemState::Replaced, None);
        let name = &guest.name;
        self.store.set_own_system(name, Some(&own)).await?;
        let text = format!(
            "The agent's closure from the host boots no other system: the agent's own one, {}, stays in its files.",
            own.system
        );
        self.note_own_system(&Subject::guest(name), text);
        Ok(Some(own))
    }

    fn note_own_system(&self, subject: &Subject, text: String) {
        self.journal.record(subject, EventKind::Note { text });
    }
}

/// Reports whether the guest can boot a system of its own: its closure from the host has the program for it.
///
/// # Errors
/// When the closure cannot be read.
pub(crate) async fn boots_own(host: &Facilities, guest: &Guest) -> Result<bool, FacilityError> {
    match (&guest.closure, guest.kind) {
        (Some(closure), GuestKind::Agent) => host.closures.has_program(closure, BOOT_OWN).await,
        _ => Ok(false),
    }
}

/// Returns the own system that the guest is started with.
fn booting(guest: &Guest) -> Option<&OwnSystem> {
    let own = guest.own_system.as_deref();
    own.filter(|own| own.state == OwnSystemState::Booting)
}

fn failed(guest: &GuestName, system: &StorePath, finding: String, log: Vec<String>) -> EngineError {
    EngineError::OwnSystem {
        guest: guest.clone(),
        system: system.clone(),
        finding,
        log,
    }
}
