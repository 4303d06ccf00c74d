//! Drives one guest to its desired state: observe, plan, execute, record.

use futures_util::future::join_all;
use innkeeper_facilities::{Effort, Prepared};
use innkeeper_model::{
    ClosureSource, DesiredState, EventKind, Explain, Failure, Guest, GuestName, Operation,
    OwnSystemState, StorePath, Trust, Verb,
};
use parking_lot::Mutex;
use tokio::sync::SemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::EngineError;
use crate::activity::{Use, is_use};
use crate::inner::Inner;
use crate::journal::Subject;
use crate::observe::{has, resources};
use crate::plan::{Goal, Stage, Step, plan, plan_change};
use crate::probe::Edge;
use crate::staging::Turn;

mod network;
mod rollback;

pub(crate) use rollback::resume_rollback;

/// Work for the caller to schedule after a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    None,
    /// Maintain retained files: the guest was removed, and its files may have joined them.
    MaintainRetained,
    /// Drive the guest again at once.
    DriveAgain,
    /// Drive the guest again after the backoff delay.
    RetryLater,
}

/// Drives a guest to its desired state. Without an `operation`, a restore is recorded as one, and only if the guest
/// needs any step.
pub(crate) async fn drive(
    inner: &Inner,
    name: &GuestName,
    operation: Option<Operation>,
) -> FollowUp {
    let _guest = inner.guest_locks.lock(name).await;
    let _activity = inner.activity.read().await;
    let mut drive = Drive::new(inner, name, operation.as_ref());
    let converged = drive.converge().await;
    // It needs no turn any more.
    inner.staged_starts.hasten(name);
    let result = drive.unless_host_stops(converged).await;
    // Drop a unit that was prepared and not started before the result becomes visible.
    drop(drive.prepared.lock().take());
    let follow_up = drive.conclude(result).await;
    drive.leave();
    follow_up
}

struct Drive<'a> {
    inner: &'a Inner,
    name: &'a GuestName,
    verb: Verb,
    subject: Subject,
    /// The unit between its preparation and its start.
    prepared: Mutex<Option<Prepared>>,
    /// The guest did not come up with its own system: this drive boots no other one. The guest determines what its profile
    /// names, and must not keep the drive from its end.
    left_own_system: bool,
    /// The guest came from a seat with a complete network, which must not be replaced.
    waits_complete: bool,
    /// The guest took its seat: it may wait at its door with everything else done.
    took_seat: bool,
    /// The guest's unit was removed while its system came up, and the guest is started again.
    was_ended: bool,
}

/// Result of a drive without an error.
enum Conclusion {
    /// The guest has its desired state.
    AsDesired,
    /// The guest's record is deleted.
    Removed,
    /// A later operation changed the desired state, and drives next.
    Superseded,
    /// The guest has its desired state, and the change that the operation requested failed.
    ChangeFailed(Failure),
}

impl<'a> Drive<'a> {
    /// Without an operation, it is a restore.
    fn new(inner: &'a Inner, name: &'a GuestName, operation: Option<&Operation>) -> Self {
        Self {
            inner,
            name,
            verb: operation.map_or(Verb::Restore, |o| o.verb),
            subject: Subject {
                operation: operation.map(|o| o.id),
                guest: Some(name.clone()),
            },
            prepared: Mutex::default(),
            left_own_system: false,
            took_seat: false,
            waits_complete: false,
            was_ended: false,
        }
    }

    /// Records that no task drives the operation any more.
    fn leave(&self) {
        if let Some(id) = self.subject.operation {
            self.inner.in_flight.lock().remove(&id);
            self.inner.idle_wakes.lock().remove(&id);
            // It may have begun after the last measurement.
            if is_use(self.verb) {
                self.inner.note_use(self.name, Use::Operation);
            }
        }
    }

    /// Observes the guest, plans, and executes the plan; again after each phase of a change of its closure.
    async fn converge(&mut self) -> Result<Conclusion, EngineError> {
        loop {
            let Some(guest) = self.inner.store.guest(self.name).await? else {
                return Ok(Conclusion::Removed);
            };
            let mut observed = self.inner.observe(&guest).await?;
            observed.waits_complete =
                self.took_seat && self.inner.host.network.is_complete(&guest).await?;
            self.waits_complete = observed.waits_complete;
            self.left_own_system |= observed.own_system == Some(OwnSystemState::Failing);
            observed.boots_own &= !self.left_own_system;
            // It is frozen again when it has responded to a packet.
            observed.frozen |= self.inner.is_peeking(&guest);
            let stages = match guest.pending_change() {
                Some(change) if !observed.has_seat => {
                    plan_change(Goal::of(&guest), change, &observed)
                }
                _ => plan(Goal::of(&guest), guest.file_work.as_ref(), &observed),
            };
            self.took_seat = observed.has_seat;
            if stages.is_empty() {
                return Ok(self.settled(&guest));
            }
            if self.subject.operation.is_none() && !self.begin_restore().await? {
                return Ok(Conclusion::Superseded);
            }
            let executed = self.execute(guest.desired, &stages).await;
            match self.unless_host_stops(executed).await {
                Ok(Conclusion::AsDesired) if guest.change.is_some() || self.took_seat => {}
                Err(EngineError::Ended(_)) if !self.was_ended => self.was_ended = true,
                Err(error) if self.leaves_own_system(&error).await? => {}
                Err(error) if guest.pending_change().is_some() => self.turn_back(error).await?,
                result => return result,
            }
        }
    }

    /// Turns a failure into that of the daemon's end if the host shuts down: its service manager ends guests and starts none, which
    /// is no finding about them. The next daemon continues the operation.
    async fn unless_host_stops<T>(&self, ended: Result<T, EngineError>) -> Result<T, EngineError> {
        match ended {
            Err(error)
                if !matches!(error, EngineError::Superseded(_))
                    && self.inner.host.units.host_is_stopping().await =>
            {
                warn!(guest = %self.name, code = %error.code(), "the host shuts down: {}", innkeeper_model::chain(&error));
                Err(EngineError::ShuttingDown)
            }
            ended => ended,
        }
    }

    /// Returns the conclusion for a guest that has its desired state.
    fn settled(&self, guest: &Guest) -> Conclusion {
        let last = guest
            .last_change
            .as_ref()
            .filter(|_| self.verb == Verb::Set);
        // The record tells, so that the operation has the same result after a crash.
        let own = last.filter(|last| Some(last.operation) == self.subject.operation);
        match own.and_then(|last| last.failure.clone()) {
            Some(failure) => Conclusion::ChangeFailed(failure),
            None => Conclusion::AsDesired,
        }
    }

    /// Lets the next plan leave the guest's own system if the error is that it did not come up.
    async fn leaves_own_system(&self, error: &EngineError) -> Result<bool, EngineError> {
        let inner = self.inner;
        inner.fail_own_system(self.name, error, &self.subject).await
    }

    /// Lets the next phase undo a change that failed. Returns the error if that is impossible.
    async fn turn_back(&self, error: EngineError) -> Result<(), EngineError> {
        if matches!(
            error,
            EngineError::Superseded(_) | EngineError::ShuttingDown
        ) {
            return Err(error);
        }
        // The unit of the requested closure is not started any more.
        drop(self.prepared.lock().take());
        match self
            .inner
            .turn_back(self.name, &Failure::from(&error))
            .await
        {
            Ok(true) => Ok(()),
            Ok(false) => Err(error),
            Err(second) => {
                warn!(guest = %self.name, %second, "cannot undo a change of the closure");
                Err(error)
            }
        }
    }

    /// Records a restore by the daemon. Returns false if a request came first.
    async fn begin_restore(&mut self) -> Result<bool, EngineError> {
        let begun = self.inner.store.begin_restore(self.name, "innkeeperd");
        let Some(operation) = begun.await? else {
            return Ok(false);
        };
        self.subject.operation = Some(operation.id);
        let verb = self.verb;
        self.inner
            .journal
            .record(&self.subject, EventKind::Accepted { verb });
        Ok(true)
    }

    async fn execute(
        &self,
        desired: DesiredState,
        stages: &[Stage],
    ) -> Result<Conclusion, EngineError> {
        let mut failures = Vec::new();
        // Held from the unit's start to the end of the drive: this staggers the boot of many guests.
        let mut _permit = None;
        for stage in stages {
            // The guest of a seat has been started already.
            if stage.contains(&Step::EnsureUnit) && !stage.contains(&Step::EnsureClosure) {
                _permit = Some(self.await_start().await?);
            }
            // Read again for each stage: an earlier stage records the closure, and a request may change the desired state.
            let Some(guest) = self.inner.store.guest(self.name).await? else {
                return Ok(Conclusion::Removed);
            };
            if guest.desired != desired {
                return Ok(Conclusion::Superseded);
            }
            // A guest whose own system hangs must not delay the start of others.
            if stage.contains(&Step::CheckSystem) {
                _permit = None;
            }
            // Neither may run while any object of the guest is left.
            let needs_success =
                stage.contains(&Step::Forget) || stage.contains(&Step::RestoreRootfs);
            if needs_success && !failures.is_empty() {
                break;
            }
            let results = join_all(stage.iter().map(|step| self.step(&guest, *step))).await;
            for failed in results.into_iter().filter_map(Result::err) {
                // Only teardown continues after a failure, so that as much as possible is removed.
                if desired == DesiredState::Running {
                    return Err(failed);
                }
                failures.push(failed);
            }
        }
        match failures.len() {
            0 if desired == DesiredState::Absent => Ok(Conclusion::Removed),
            0 => Ok(Conclusion::AsDesired),
            1 => Err(failures.remove(0)),
            _ => Err(EngineError::Several(
                failures.iter().map(Failure::from).collect(),
            )),
        }
    }

    /// Waits until the guest may start: for its turn after a reboot of the host, then for a permit. The daemon's end does not
    /// wait for all starts: the next daemon continues them.
    async fn await_start(&self) -> Result<(Turn, Option<SemaphorePermit<'a>>), EngineError> {
        let start = async {
            let turn = self.inner.staged_starts.turn(self.name).await;
            (turn, self.inner.starts.acquire().await.ok())
        };
        tokio::select! {
            biased;
            () = self.inner.stopping.cancelled() => Err(EngineError::ShuttingDown),
            start = start => Ok(start),
        }
    }

    async fn step(&self, guest: &Guest, step: Step) -> Result<(), EngineError> {
        let work = self.apply_with_space(guest, step);
        let name = step.as_str();
        self.inner
            .run_step(self.verb, &self.subject, name, work)
            .await
    }

    /// Applies a step. While it fails for lack of space, purges retained files and retries.
    async fn apply_with_space(&self, guest: &Guest, step: Step) -> Result<(), EngineError> {
        loop {
            let purges = self.inner.purge_count();
            match self.apply(guest, step).await {
                Err(error) if step.takes_space() && self.inner.free_space(&error, purges).await => {
                }
                result => return result,
            }
        }
    }

    async fn apply(&self, guest: &Guest, step: Step) -> Result<(), EngineError> {
        let host = &self.inner.host;
        let name = self.name;
        match step {
            Step::ResolveClosure => self.resolve(guest).await?,
            Step::EnsureClosure => {
                let closure = known(guest)?;
                host.closures.ensure(guest, closure).await?;
                // Verify after pinning: before that, Nix may have garbage-collected it.
                host.closures.verify(closure).await?;
            }
            Step::EnsureRootfs => self.inner.ensure_rootfs(guest).await?,
            Step::ForgetIdentity => self.inner.forget_identity(guest).await?,
            Step::TakeSnapshot => self.inner.take_snapshot(guest).await?,
            Step::DeleteSnapshot => self.inner.remove_snapshot(guest).await?,
            Step::RestoreRootfs => self.inner.restore_rootfs(guest).await?,
            Step::AdoptFiles => self.inner.adopt_files(guest).await?,
            Step::ResolveChange => self.resolve_change(guest).await?,
            Step::PinClosures => self.inner.pin_closures(guest).await?,
            Step::BeginChange => self.inner.begin_change(guest).await?,
            Step::SwitchGuest => {
                let switch = Box::pin(self.inner.switch_guest(guest, &self.subject));
                self.unless_superseded(guest, switch).await?;
            }
            Step::SwitchBack => {
                let switch = Box::pin(self.inner.switch_back(guest, &self.subject));
                self.unless_superseded(guest, switch).await?;
            }
            Step::ConfirmStop => self.inner.confirm_stop(guest).await?,
            Step::CheckGuest => {
                let check = Box::pin(self.inner.check_guest(guest));
                self.unless_stopping(guest, check).await?;
            }
            Step::SettleClosure => self.inner.settle_closure(guest).await?,
            Step::EndChange => self.inner.store.end_change(name).await?,
            Step::TakeSeat => self.inner.take_seat(guest).await?,
            Step::DropSeat => self.inner.drop_seat(guest).await?,
            Step::EnsureSecrets => {
                let key = host.secrets.ensure(guest).await?;
                if guest.ssh_host_key.as_ref() != Some(&key) {
                    self.inner.store.set_ssh_host_key(name, &key).await?;
                }
            }
            Step::PrepareUnit => {
                let prepared = host.units.prepare(guest).await?;
                *self.prepared.lock() = prepared;
            }
            Step::EnsureUnit => {
                let prepared = self.prepared.lock().take();
                drop(host.units.ensure(guest, prepared).await?);
                self.inner.oom.begin(name, host.units.oom_kills(name));
            }
            Step::EnsureNetwork => self.ensure_network(guest).await?,
            Step::Freeze => self.inner.pause(guest).await?,
            Step::Thaw => self.inner.thaw(guest).await?,
            Step::RecordSleep => self.inner.record_sleep(name, &self.subject).await?,
            Step::ChooseSystem => self.inner.choose_system(guest, &self.subject).await?,
            Step::Release => self.inner.release(guest).await?,
            Step::CheckSystem => {
                let check = Box::pin(self.inner.check_own_system(guest));
                self.unless_stopping(guest, check).await?;
            }
            Step::LeaveSystem => self.inner.leave_own_system(guest).await?,
            Step::StopUnit => {
                self.inner.refuse_in_session(name)?;
                self.inner.follow_own_system(guest).await;
                host.units.stop(name).await?;
                self.inner.unwatch_packets(guest).await?;
            }
            Step::RemoveUnit => {
                host.units.remove(name).await?;
                self.inner.unwatch_packets(guest).await?;
            }
            Step::RemoveNetwork => self.remove_network(guest).await?,
            Step::ParkAddress => self.inner.park(guest).await?,
            Step::RemoveRootfs => host.rootfs.remove(name).await?,
            Step::RetainRootfs => self.inner.retain_rootfs(guest, &self.subject).await?,
            Step::RemoveClosure => host.closures.remove(name).await?,
            Step::Forget => self.forget(None).await?,
        }
        Ok(())
    }

    async fn resolve(&self, guest: &Guest) -> Result<(), EngineError> {
        let closure = self.closure_of(guest, &guest.source, false).await?;
        Ok(self.inner.store.set_closure(self.name, &closure).await?)
    }

    async fn resolve_change(&self, guest: &Guest) -> Result<(), EngineError> {
        let Some(change) = &guest.change else {
            return Ok(());
        };
        let mut change = change.clone();
        change.other.closure = Some(self.closure_of(guest, &change.other.source, true).await?);
        Ok(self.inner.store.record_change(self.name, &change).await?)
    }

    /// Returns the closure of a source; builds it if necessary. Without `force`, an earlier build of the flake counts, even
    /// if the flake has changed since.
    async fn closure_of(
        &self,
        guest: &Guest,
        source: &ClosureSource,
        force: bool,
    ) -> Result<StorePath, EngineError> {
        let (installable, trust) = match source {
            ClosureSource::Path(path) => {
                self.inner.host.closures.verify(path).await?;
                return Ok(path.clone());
            }
            ClosureSource::Flake(installable) => (installable, Trust::Host),
            ClosureSource::MemberFlake(installable) => (installable, Trust::Member),
        };
        let progress = self.inner.journal.progress_sink(&self.subject);
        let build = self
            .inner
            .build_closure(progress, installable, trust, force, Effort::Normal);
        self.unless_superseded(guest, build).await
    }

    /// Performs work that takes minutes. A destroy does not wait for it.
    async fn unless_superseded<T>(
        &self,
        guest: &Guest,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::select! {
            result = work => result,
            () = self.wait_until_superseded(guest.desired) => {
                Err(EngineError::Superseded(self.name.clone()))
            }
        }
    }

    /// Performs a check that takes minutes. Neither a destroy nor the end of the daemon waits for it: the guests of a host that
    /// is shut down end as well, which is no finding. The next daemon repeats it.
    async fn unless_stopping<T>(
        &self,
        guest: &Guest,
        check: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::select! {
            biased;
            () = self.inner.stopping.cancelled() => Err(EngineError::ShuttingDown),
            result = self.unless_superseded(guest, check) => result,
        }
    }

    async fn wait_until_superseded(&self, desired: DesiredState) {
        let mut events = self.inner.journal.subscribe();
        while !self.is_superseded(desired).await.unwrap_or(false) {
            // Every intent publishes an event. After a lag, the record is read again.
            if let Err(RecvError::Closed) = events.recv().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reports whether the desired state changed. During a drive, only a destroy changes it.
    async fn is_superseded(&self, desired: DesiredState) -> Result<bool, EngineError> {
        let now = self.inner.store.guest(self.name).await?;
        Ok(now.is_none_or(|guest| guest.desired != desired))
    }

    /// Deletes the record once every resource of the guest is gone. Its unfinished operations end with `failure`.
    async fn forget(&self, failure: Option<&Failure>) -> Result<(), EngineError> {
        for resource in resources(&self.inner.host) {
            if has(resource, self.name).await? {
                return Err(EngineError::Left {
                    guest: self.name.clone(),
                    what: resource.kind(),
                    object: self.name.to_string(),
                });
            }
        }
        Ok(self.inner.store.delete_guest(self.name, failure).await?)
    }

    /// Ends the operation according to the result.
    async fn conclude(&self, result: Result<Conclusion, EngineError>) -> FollowUp {
        match result {
            Ok(Conclusion::AsDesired) => {
                self.clear_fault().await;
                self.succeed().await;
                FollowUp::None
            }
            Ok(Conclusion::ChangeFailed(failure)) => {
                self.clear_fault().await;
                self.inner.failures.reset(self.name);
                self.finish_with(&failure).await;
                FollowUp::None
            }
            Ok(Conclusion::Removed) => {
                self.inner.responsive.lock().remove(self.name);
                self.succeed().await;
                FollowUp::MaintainRetained
            }
            Ok(Conclusion::Superseded) | Err(EngineError::Superseded(_)) => {
                self.publish_superseded();
                FollowUp::None
            }
            // The shutdown of the host may be canceled.
            Err(error @ EngineError::ShuttingDown)
                if self.verb == Verb::Restore && !self.inner.stopping.is_cancelled() =>
            {
                self.finish_with(&Failure::from(&error)).await;
                FollowUp::RetryLater
            }
            // The next daemon resumes the operation.
            Err(EngineError::ShuttingDown) => FollowUp::None,
            Err(error) => self.fail(&Failure::from(&error)).await,
        }
    }

    /// Publishes the end of a superseded operation. The later request's transaction has recorded it.
    fn publish_superseded(&self) {
        if self.subject.operation.is_none() {
            return;
        }
        let failure = Failure::from(&EngineError::Superseded(self.name.clone()));
        self.inner
            .journal
            .record(&self.subject, EventKind::Failed { failure });
    }

    async fn clear_fault(&self) {
        if let Err(error) = self.inner.store.set_fault(self.name, None).await {
            warn!(guest = %self.name, %error, "cannot clear the guest's fault");
        }
    }

    async fn finish_with(&self, failure: &Failure) {
        let kind = EventKind::Failed {
            failure: failure.clone(),
        };
        self.inner.probe(self.verb, "finish", Edge::Before);
        self.inner.finish(&self.subject, Some(failure), kind).await;
        self.inner.probe(self.verb, "finish", Edge::After);
    }

    async fn succeed(&self) {
        self.inner.failures.reset(self.name);
        // Not after a restore: it follows the rollback of a failed wake.
        if self.verb != Verb::Restore {
            self.inner.demands.reset(self.name);
        }
        if self.subject.operation.is_some() {
            self.inner.probe(self.verb, "finish", Edge::Before);
            self.inner
                .finish(&self.subject, None, EventKind::Finished)
                .await;
            self.inner.probe(self.verb, "finish", Edge::After);
        }
    }
}

fn known(guest: &Guest) -> Result<&StorePath, EngineError> {
    let missing = || {
        EngineError::Invalid(format!(
            "the closure of guest '{}' is not known",
            guest.name
        ))
    };
    guest.closure.as_ref().ok_or_else(missing)
}
