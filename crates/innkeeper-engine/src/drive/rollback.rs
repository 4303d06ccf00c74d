//! Rolls back operations that failed.
//!
//! The failure is recorded with the operation first. So a rollback that a crash interrupted is completed, and its result is
//! not mistaken for that of the operation.

use innkeeper_model::{Code, DesiredState, Failure, GuestName, Level, Operation, UnitPhase, Verb};
use tracing::warn;

use super::{Drive, FollowUp};
use crate::EngineError;
use crate::inner::Inner;
use crate::plan::{Goal, Stage, Step, plan};
use crate::probe::Edge;

/// Completes the rollback of an operation that a crash interrupted.
pub(crate) async fn resume_rollback(
    inner: &Inner,
    name: &GuestName,
    operation: &Operation,
    failure: &Failure,
) -> FollowUp {
    let _guest = inner.guest_locks.lock(name).await;
    let _activity = inner.activity.read().await;
    let drive = Drive::new(inner, name, Some(operation));
    let follow_up = drive.fail(failure).await;
    drive.leave();
    follow_up
}

impl Drive<'_> {
    /// Rolls back: a create to absent, a start or an undelete to stopped, a pause to awake, a wake to asleep, work on files
    /// to the guest as before. Any other operation keeps its desired state and is retried.
    pub(super) async fn fail(&self, failure: &Failure) -> FollowUp {
        warn!(guest = %self.name, verb = %self.verb, code = %failure.code, "{failure}");
        let rolled_back = match is_rolled_back(self.verb) || is_refused_sleep(self.verb, failure) {
            true => self.roll_back(failure).await,
            false => None,
        };
        let follow_up = match rolled_back {
            Some(follow_up) => follow_up,
            None => {
                if let Err(error) = self.inner.store.set_fault(self.name, Some(failure)).await {
                    warn!(guest = %self.name, %error, "cannot record the guest's fault");
                }
                FollowUp::RetryLater
            }
        };
        self.finish_with(failure).await;
        follow_up
    }

    /// Returns `None` if the rollback fails, or the operation has nothing to roll back any more.
    async fn roll_back(&self, failure: &Failure) -> Option<FollowUp> {
        if let Some(id) = self.subject.operation
            && let Err(error) = self.inner.store.begin_rollback(id, failure).await
        {
            warn!(guest = %self.name, %error, "cannot record a rollback");
        }
        self.inner.probe(self.verb, "roll-back", Edge::Before);
        let rolled_back = match self.verb {
            Verb::Create | Verb::Fork => {
                let result = self.roll_back_to(DesiredState::Absent, failure).await;
                result.is_ok().then_some(FollowUp::None)
            }
            // The guest keeps the files that it has or is about to adopt.
            Verb::Start | Verb::Undelete => {
                let result = self.roll_back_to(DesiredState::Stopped, failure).await;
                result.is_ok().then_some(FollowUp::None)
            }
            Verb::Pause | Verb::Sleep => {
                let recorded = self.inner.store.set_level(self.name, Level::Awake).await;
                recorded.is_ok().then_some(FollowUp::DriveAgain)
            }
            Verb::Wake => self.roll_back_wake(failure).await,
            Verb::Snapshot | Verb::RestoreSnapshot => {
                let abandoned = self.inner.abandon_file_work(self.name).await;
                matches!(abandoned, Ok(true)).then_some(FollowUp::DriveAgain)
            }
            _ => None,
        };
        self.inner.probe(self.verb, "roll-back", Edge::After);
        rolled_back
    }

    /// Puts a guest to sleep again that did not start. The start of one that did not rest is retried, and so is the repair of one
    /// that runs, which is as awake as it can be.
    async fn roll_back_wake(&self, failure: &Failure) -> Option<FollowUp> {
        let id = self.subject.operation;
        if id.is_some_and(|id| self.inner.idle_wakes.lock().contains(&id)) {
            return None;
        }
        let seen = self.inner.host.units.phase(self.name).await.ok()?;
        if seen.is_some_and(|seen| seen.phase == UnitPhase::Running) {
            return None;
        }
        let store = &self.inner.store;
        store.fail_wake(self.name, failure).await.ok()?;
        Some(FollowUp::DriveAgain)
    }

    async fn roll_back_to(
        &self,
        desired: DesiredState,
        failure: &Failure,
    ) -> Result<(), EngineError> {
        let store = &self.inner.store;
        store.set_desired_state(self.name, desired).await?;
        let Some(guest) = store.guest(self.name).await? else {
            return Ok(());
        };
        let observed = self.inner.observe(&guest).await?;
        // `Forget` is left out: the record is deleted below, in one transaction with the operation's failure.
        let stages: Vec<Stage> = plan(Goal::of(&guest), None, &observed)
            .into_iter()
            .filter(|stage| !stage.contains(&Step::Forget))
            .collect();
        self.execute(guest.desired, &stages).await?;
        if desired == DesiredState::Absent {
            self.forget(Some(failure)).await?;
        }
        Ok(())
    }
}

/// Reports whether a sleep by the daemon's own decision met a session.
fn is_refused_sleep(verb: Verb, failure: &Failure) -> bool {
    verb == Verb::Sleep && failure.code == Code::GuestBusy
}

fn is_rolled_back(verb: Verb) -> bool {
    matches!(
        verb,
        Verb::Create
            | Verb::Fork
            | Verb::Start
            | Verb::Undelete
            | Verb::Pause
            | Verb::Wake
            | Verb::Snapshot
            | Verb::RestoreSnapshot
    )
}
