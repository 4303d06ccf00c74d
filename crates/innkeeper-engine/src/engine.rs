//! The engine: its construction, its tasks, and queries.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_facilities::{Console, ExecSession, Facilities};
use innkeeper_model::api::{Accepted, ExecRequest};
use innkeeper_model::{
    EventKind, Explain, Failure, Guest, GuestName, Operation, OperationId, OperationState, Verb,
};
use innkeeper_store::Store;
use tracing::warn;

use crate::EngineError;
use crate::drive::{FollowUp, drive, resume_rollback};
use crate::inner::{EngineConfig, Inner};
use crate::journal::{Journal, Subject};
use crate::probe::Probe;

/// Interval at which [`Engine::ended_operation`] reads the operation without an event.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The engine. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

impl Engine {
    /// Creates an engine. It stays idle until [`Engine::restore`] or a request.
    #[must_use]
    pub fn new(config: EngineConfig, store: Store, host: Facilities, probe: Option<Probe>) -> Self {
        Self {
            inner: Arc::new(Inner::new(config, store, host, probe)),
        }
    }

    /// Returns a guest's record.
    ///
    /// # Errors
    /// When the guest does not exist.
    pub async fn guest(&self, name: &GuestName) -> Result<Guest, EngineError> {
        let guest = self.inner.store.guest(name).await?;
        guest.ok_or_else(|| EngineError::GuestNotFound(name.clone()))
    }

    /// Returns an operation.
    ///
    /// # Errors
    /// When the operation does not exist.
    pub async fn operation(&self, id: OperationId) -> Result<Operation, EngineError> {
        let operation = self.inner.store.operation(id).await?;
        operation.ok_or(EngineError::OperationNotFound(id))
    }

    /// Waits for an operation to end, and returns it.
    ///
    /// # Errors
    /// When the operation does not exist.
    pub async fn ended_operation(&self, id: OperationId) -> Result<Operation, EngineError> {
        let mut events = self.inner.journal.subscribe();
        loop {
            let operation = self.operation(id).await?;
            if operation.state != OperationState::Running {
                return Ok(operation);
            }
            // The end is recorded before its event is published. The timeout covers a receiver that lagged, and an
            // operation that another one superseded: the latter publishes no event at that moment.
            let ended = async {
                while let Ok(event) = events.recv().await {
                    if event.operation == Some(id) && event.kind.is_final() {
                        return;
                    }
                }
            };
            drop(tokio::time::timeout(POLL_INTERVAL, ended).await);
        }
    }

    /// Returns the operation in flight on a guest.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn operation_on(&self, name: &GuestName) -> Result<Option<Operation>, EngineError> {
        let running = self.inner.store.running_operations().await?;
        Ok(running
            .into_iter()
            .find(|operation| operation.guest.as_ref() == Some(name)))
    }

    /// Returns a guest's console. With `follow`, it ends when the guest stops.
    ///
    /// # Errors
    /// When the guest or its log does not exist.
    pub async fn console(
        &self,
        name: &GuestName,
        lines: usize,
        follow: bool,
    ) -> Result<Console, EngineError> {
        let guest = self.guest(name).await?;
        let console = self.inner.host.units.console(&guest, lines, follow);
        Ok(console.await?)
    }

    /// Runs a command in a guest. Does not wake it: [`Self::awaken`] does.
    ///
    /// # Errors
    /// When the guest does not exist, does not run, or is paused.
    pub async fn exec(
        &self,
        name: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, EngineError> {
        let guest = self.guest(name).await?;
        if request.command.is_empty() {
            return Err(EngineError::Invalid("the command is missing".to_owned()));
        }
        if let Some(level) = guest.rests() {
            let (guest, kind) = (guest.name, guest.kind);
            return Err(EngineError::Resting { guest, kind, level });
        }
        Ok(self.inner.host.units.exec(name, request).await?)
    }

    /// Returns the events as they happen.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Returns the store, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Records the new OOM kills in the kernel's count for a guest.
    pub fn record_oom_kills(&self, guest: &Guest, count: u64) {
        let kills = self.inner.oom.observe(&guest.name, count);
        if kills > 0 {
            let memory = guest.limits.memory;
            self.inner.journal.record(
                &Subject::guest(&guest.name),
                EventKind::OomKilled { kills, memory },
            );
        }
    }

    /// Refuses new work and waits for the work in flight. Dropping the future is safe: the next start of the daemon
    /// resumes unfinished operations.
    pub async fn stop_working(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    pub(crate) fn refuse_when_stopping(&self) -> Result<(), EngineError> {
        if self.inner.stopping.is_cancelled() {
            return Err(EngineError::ShuttingDown);
        }
        Ok(())
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    /// Announces an operation whose intent is on disk, and drives it.
    pub(crate) async fn begin(&self, name: &GuestName, operation: &Operation) -> Accepted {
        self.hasten(name);
        // A repeated destroy returns the first one's operation, which is in flight already.
        if self.inner.in_flight.lock().insert(operation.id) {
            self.start_in_flight(name, operation);
        }
        Accepted {
            operation: operation.id,
            guest: Some(name.clone()),
        }
    }

    /// Starts the operations on guests that no task drives: their request was canceled between its transaction and
    /// [`Self::begin`].
    pub(crate) async fn start_abandoned_operations(&self) -> Result<(), EngineError> {
        for operation in self.inner.store.running_operations().await? {
            // The daemon's own restores are recorded by the task that drives them.
            let Some(name) = operation
                .guest
                .as_ref()
                .filter(|_| operation.verb != Verb::Restore)
            else {
                continue;
            };
            if !self.inner.in_flight.lock().insert(operation.id) {
                continue;
            }
            // Read again: a task may have ended the operation since.
            match self.operation(operation.id).await {
                Ok(current) if current.state == OperationState::Running => {
                    match self.inner.store.rollback_of(operation.id).await {
                        Ok(None) => self.start_in_flight(name, &operation),
                        // The end of its rollback could not be recorded.
                        Ok(Some(failure)) => {
                            self.spawn_rollback(name.clone(), operation, failure);
                        }
                        Err(error) => {
                            self.inner.in_flight.lock().remove(&operation.id);
                            return Err(error.into());
                        }
                    }
                }
                _ => drop(self.inner.in_flight.lock().remove(&operation.id)),
            }
        }
        Ok(())
    }

    fn start_in_flight(&self, name: &GuestName, operation: &Operation) {
        let subject = Subject {
            operation: Some(operation.id),
            guest: Some(name.clone()),
        };
        let verb = operation.verb;
        self.inner
            .journal
            .record(&subject, EventKind::Accepted { verb });
        self.spawn_drive(name.clone(), Some(operation.clone()));
    }

    /// Drives a guest to its desired state in a task, then schedules the follow-up.
    pub(crate) fn spawn_drive(&self, name: GuestName, operation: Option<Operation>) {
        let engine = self.clone();
        self.spawn(async move {
            let follow_up = drive(&engine.inner, &name, operation).await;
            engine.follow_up(name, follow_up);
        });
    }

    /// Completes the rollback of an operation that a crash interrupted, in a task.
    pub(crate) fn spawn_rollback(&self, name: GuestName, operation: Operation, failure: Failure) {
        let engine = self.clone();
        self.spawn(async move {
            let follow_up = resume_rollback(&engine.inner, &name, &operation, &failure).await;
            engine.follow_up(name, follow_up);
        });
    }

    fn follow_up(&self, name: GuestName, follow_up: FollowUp) {
        match follow_up {
            FollowUp::None => {}
            FollowUp::MaintainRetained => self.spawn_retained_maintenance(false),
            FollowUp::DriveAgain => self.spawn_drive(name, None),
            FollowUp::RetryLater => self.retry_later(name),
        }
    }

    /// Drives a guest again after a delay that grows with each failure.
    pub(crate) fn retry_later(&self, name: GuestName) {
        let delay = self.inner.failures.record(&name);
        let engine = self.clone();
        self.spawn(async move {
            tokio::select! {
                () = engine.inner.stopping.cancelled() => {}
                () = tokio::time::sleep(delay) => engine.spawn_drive(name, None),
            }
        });
    }

    /// Runs work in a task and returns its result. The work continues if the caller's future is dropped, as that of a
    /// canceled request is.
    pub(crate) async fn run_in_task<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let task = self.inner.tasks.spawn(work);
        // Fails only when the runtime is shut down.
        task.await.unwrap_or(Err(EngineError::ShuttingDown))
    }

    /// Makes room for another file tree in a task: a canceled request must not abandon a purge, which would block the
    /// files until the daemon restarts.
    ///
    /// # Errors
    /// See [`Inner::make_room`].
    pub(crate) async fn make_room(&self) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        self.run_in_task(async move { inner.make_room().await })
            .await
    }

    /// Maintains retained files in a task. See [`Inner::maintain_retained`].
    pub(crate) fn spawn_retained_maintenance(&self, keep_room: bool) {
        let engine = self.clone();
        self.spawn(async move {
            let _activity = engine.inner.activity.read().await;
            if let Err(error) = engine.inner.maintain_retained(keep_room).await {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        });
    }
}
