//! Steps of a change of the closure, and the decisions between them.
//!
//! Each step records the next phase durably at its end. A crash before that repeats the step.

use std::time::Duration;

use innkeeper_model::{
    BuildProgress, ChangeOutcome, ChangePhase, ClosureChange, EventKind, Failure, Guest, GuestName,
    Level, OwnSystemFate, StorePath, UnitPhase,
};
use tracing::warn;

use crate::EngineError;
use crate::guest_command::End;
use crate::inner::Inner;
use crate::journal::Subject;

/// The program in a closure by which a running system switches to the closure, as in NixOS.
const SWITCH: &str = "bin/switch-to-configuration";

/// The exit status by which [`SWITCH`] reports that the system must be restarted instead: the new system's init is not
/// compatible with the running one (nixpkgs, switch-to-configuration, "init-interface-version").
const NEEDS_RESTART: i32 = 100;

/// Timeout of [`SWITCH`].
const SWITCH_TIMEOUT: Duration = Duration::from_secs(600);

/// Result of [`SWITCH`].
enum Switched {
    Done,
    NeedsRestart,
}

impl Inner {
    /// Pins the present and the requested closure.
    pub(crate) async fn pin_closures(&self, guest: &Guest) -> Result<(), EngineError> {
        let next = pending(guest)?.other.closure.as_ref();
        let next = next.ok_or_else(|| closure_unknown(&guest.name))?;
        let closures = &self.host.closures;
        // In this order: the present closure always has a root.
        if let Some(present) = &guest.closure {
            closures.ensure_former(&guest.name, present).await?;
        }
        closures.ensure(guest, next).await?;
        // Verify after pinning: before that, Nix may have garbage-collected it.
        Ok(closures.verify(next).await?)
    }

    /// Gives the record the requested closure and limits, and determines how they take effect.
    pub(crate) async fn begin_change(&self, guest: &Guest) -> Result<(), EngineError> {
        let mut change = pending(guest)?.clone();
        let unit = self.host.units.phase(&guest.name).await?;
        let is_running = unit.is_some_and(|unit| unit.phase == UnitPhase::Running);
        let is_same_closure = guest.closure == change.other.closure;
        if !self
            .replaces_own_system(guest, &change, is_same_closure)
            .await
        {
            change.own_system = OwnSystemFate::Kept;
        }
        let next = &change.other;
        let replaces_own = change.own_system != OwnSystemFate::Kept;
        let is_same = is_same_closure && guest.limits == next.limits && !replaces_own;
        let outcome = if is_same && !change.restart {
            ChangeOutcome::Unchanged
        } else if !guest.should_have_processes() || guest.level == Level::Paused && !is_running {
            ChangeOutcome::AtNextStart
        } else if is_running
            && !change.restart
            && guest.limits == next.limits
            && self
                .switches(guest, guest.closure.as_ref(), next.closure.as_ref())
                .await?
        {
            ChangeOutcome::Switched
        } else {
            ChangeOutcome::Restarted
        };
        change.outcome = outcome;
        if replaces_own {
            change.own_system = OwnSystemFate::Replaced;
        }
        change.phase = match outcome {
            ChangeOutcome::Switched => ChangePhase::Switch,
            ChangeOutcome::Restarted => ChangePhase::Stop,
            _ => ChangePhase::Settle,
        };
        if is_running && change.phase != ChangePhase::Settle {
            if guest.level == Level::Paused {
                self.continue_for_change(&guest.name).await?;
            }
            change.failed_before = self.failed_units(guest).await;
        }
        Ok(self.store.exchange_boot(&guest.name, &change).await?)
    }

    /// Wakes a paused guest: its running system takes part in a change from now on.
    async fn continue_for_change(&self, name: &GuestName) -> Result<(), EngineError> {
        self.store.set_level(name, Level::Awake).await?;
        Ok(self.host.units.thaw(name).await?)
    }

    /// Reports whether a change takes the place of a system that the guest boots otherwise.
    async fn replaces_own_system(
        &self,
        guest: &Guest,
        change: &ClosureChange,
        is_same_closure: bool,
    ) -> bool {
        let is_to_replace = match change.own_system {
            OwnSystemFate::Kept => false,
            OwnSystemFate::ReplacedByOther => !is_same_closure,
            OwnSystemFate::Replaced => true,
        };
        if !is_to_replace {
            return false;
        }
        let own = self.present_own_system(guest).await;
        own.is_some_and(|own| own.state.is_bootable())
    }

    /// Switches the running system to the requested closure, or finds that it must be restarted.
    pub(crate) async fn switch_guest(
        &self,
        guest: &Guest,
        subject: &Subject,
    ) -> Result<(), EngineError> {
        let mut change = pending(guest)?.clone();
        match self.run_switch(guest, subject).await? {
            Switched::Done => change.phase = ChangePhase::Check,
            Switched::NeedsRestart => {
                self.note(
                    subject,
                    "The new system cannot take over from the running one; restarting.",
                );
                change.outcome = ChangeOutcome::Restarted;
                change.phase = ChangePhase::Stop;
            }
        }
        Ok(self.store.record_change(&guest.name, &change).await?)
    }

    /// Switches the running system back to the former closure. If that fails, the guest is restarted with it.
    pub(crate) async fn switch_back(
        &self,
        guest: &Guest,
        subject: &Subject,
    ) -> Result<(), EngineError> {
        let mut change = pending(guest)?.clone();
        change.phase = match self.run_switch(guest, subject).await {
            Ok(Switched::Done) => ChangePhase::Settle,
            Ok(Switched::NeedsRestart) => ChangePhase::StopBack,
            Err(error) => {
                let reason = innkeeper_model::chain(&error);
                self.note(
                    subject,
                    &format!("The system did not switch back; restarting: {reason}."),
                );
                ChangePhase::StopBack
            }
        };
        Ok(self.store.record_change(&guest.name, &change).await?)
    }

    /// Records that the guest is stopped.
    pub(crate) async fn confirm_stop(&self, guest: &Guest) -> Result<(), EngineError> {
        let mut change = pending(guest)?.clone();
        change.phase = match change.phase {
            ChangePhase::SwitchBack | ChangePhase::StopBack => ChangePhase::BootBack,
            _ => {
                change.outcome = ChangeOutcome::Restarted;
                ChangePhase::Boot
            }
        };
        Ok(self.store.record_change(&guest.name, &change).await?)
    }

    /// Checks the health of the changed guest.
    pub(crate) async fn check_guest(&self, guest: &Guest) -> Result<(), EngineError> {
        let mut change = pending(guest)?.clone();
        self.check_health(guest, &change.failed_before).await?;
        change.phase = ChangePhase::Settle;
        Ok(self.store.record_change(&guest.name, &change).await?)
    }

    /// Leaves the guest with the root of the closure that it has now.
    pub(crate) async fn settle_closure(&self, guest: &Guest) -> Result<(), EngineError> {
        let closures = &self.host.closures;
        if let Some(closure) = &guest.closure {
            closures.ensure(guest, closure).await?;
        }
        Ok(closures.remove_former(&guest.name).await?)
    }

    /// Records that a change failed, and the phase that undoes it. Returns false if nothing is left to undo.
    pub(crate) async fn turn_back(
        &self,
        name: &GuestName,
        failure: &Failure,
    ) -> Result<bool, EngineError> {
        let Some(guest) = self.store.guest(name).await? else {
            return Ok(false);
        };
        let Some(mut change) = guest.pending_change().cloned() else {
            return Ok(false);
        };
        let is_to_run = guest.should_have_processes();
        match change.phase {
            ChangePhase::Prepare => {
                change.phase = ChangePhase::Settle;
                change.failure = Some(failure.clone());
                self.store.record_change(name, &change).await?;
            }
            ChangePhase::Switch | ChangePhase::Stop | ChangePhase::Boot | ChangePhase::Check
                if is_to_run =>
            {
                // A system of the guest's own is booted, and not switched to.
                let is_in_place = change.outcome == ChangeOutcome::Switched
                    && change.own_system != OwnSystemFate::Replaced;
                change.phase = match is_in_place {
                    true => ChangePhase::SwitchBack,
                    false => ChangePhase::StopBack,
                };
                change.failure = Some(failure.clone());
                self.store.exchange_boot(name, &change).await?;
            }
            ChangePhase::SwitchBack if is_to_run => {
                change.phase = ChangePhase::StopBack;
                self.store.record_change(name, &change).await?;
            }
            _ => return Ok(false),
        }
        warn!(guest = %name, code = %failure.code, "undoing a change of the closure: {failure}");
        Ok(true)
    }

    /// Reports whether a running guest can be switched from one closure to another, and back. What the host mounts for a guest
    /// that builds with Nix, it mounts at the guest's start.
    async fn switches(
        &self,
        guest: &Guest,
        from: Option<&StorePath>,
        to: Option<&StorePath>,
    ) -> Result<bool, EngineError> {
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(false);
        };
        let closures = &self.host.closures;
        Ok(closures.has_program(from, SWITCH).await?
            && closures.has_program(to, SWITCH).await?
            && closures.builds_with_nix(guest, from).await?
                == closures.builds_with_nix(guest, to).await?)
    }

    /// Switches the running system to the closure in the record. The host decides what the guest boots from, so the
    /// system's own boot entries stay as they are (`test`).
    async fn run_switch(&self, guest: &Guest, subject: &Subject) -> Result<Switched, EngineError> {
        let name = &guest.name;
        let closure = guest
            .closure
            .as_ref()
            .ok_or_else(|| closure_unknown(name))?;
        let program = format!("{closure}/{SWITCH}");
        let command = [program.as_str(), "test"];
        let show = |line: &str| {
            let progress = BuildProgress {
                activity: line.to_owned(),
                ..BuildProgress::default()
            };
            self.journal
                .record(subject, EventKind::Progress { progress });
        };
        let ran = self.run_in_guest(name, &command, SWITCH_TIMEOUT, show);
        let ran = ran.await?;
        let finding = match ran.end {
            End::Exited(0) => return Ok(Switched::Done),
            End::Exited(NEEDS_RESTART) => return Ok(Switched::NeedsRestart),
            End::Exited(status) => format!("switch-to-configuration exited with status {status}"),
            End::TimedOut => format!(
                "switch-to-configuration did not end within {} s",
                SWITCH_TIMEOUT.as_secs()
            ),
            End::Flooded => "switch-to-configuration printed more than 8 MiB".to_owned(),
        };
        Err(EngineError::Switch {
            guest: name.clone(),
            closure: closure.clone(),
            finding,
            log: ran.tail,
        })
    }

    fn note(&self, subject: &Subject, text: &str) {
        let text = text.to_owned();
        self.journal.record(subject, EventKind::Note { text });
    }
}

fn pending(guest: &Guest) -> Result<&ClosureChange, EngineError> {
    guest.change.as_ref().ok_or_else(|| {
        EngineError::Invalid(format!("guest '{}' has no change in progress", guest.name))
    })
}

fn closure_unknown(name: &GuestName) -> EngineError {
    EngineError::Invalid(format!("the closure of guest '{name}' is not known"))
}
