//! Guests' files in backups, and guests from backups.
//!
//! A restore writes files first and records last, in one transaction. A crash before it leaves objects without a record,
//! which the next restore replaces and `gc` removes; after it, the guests are driven like all others.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper_facilities::{Closures, FileOwners, GuestUserIds, ProgressSink};
use innkeeper_model::api::Accepted;
use innkeeper_model::{
    DesiredState, EventKind, Explain, Failure, Guest, GuestName, OperationId, StorePath, Verb,
};
use innkeeper_store::{MovedGuest, Restore};
use tokio::sync::broadcast::error::RecvError;
use tracing::{debug, warn};

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::journal::Subject;
use crate::probe::Edge;

/// The log of an operation that belongs to no guest.
#[derive(Clone)]
pub struct OperationLog {
    inner: Arc<Inner>,
    subject: Subject,
    verb: Verb,
}

impl OperationLog {
    /// Adds a whole sentence to the operation's events.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let note = EventKind::Note { text };
        self.inner.journal.record(&self.subject, note);
    }

    /// Runs a step of the operation, and records it.
    ///
    /// # Errors
    /// That of the step.
    pub async fn step<E: Explain>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let (verb, subject) = (self.verb, &self.subject);
        self.inner.run_step(verb, subject, name, work).await
    }

    /// Records a closure that was built.
    pub fn built(&self, what: String, closure: StorePath) {
        let built = EventKind::Built { what, closure };
        self.inner.journal.record(&self.subject, built);
    }

    /// Returns a sink that adds a build's progress to the operation's events.
    #[must_use]
    pub fn progress_sink(&self) -> ProgressSink {
        self.inner.journal.progress_sink(&self.subject)
    }
}

/// The copy of a guest's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exported {
    /// How long the guest was suspended; `None` if it was not.
    pub suspended: Option<Duration>,
}

impl Inner {
    /// Waits until the guest is to be destroyed.
    async fn until_destroyed(&self, name: &GuestName) {
        let mut events = self.journal.subscribe();
        loop {
            match self.store.guest(name).await {
                Ok(Some(guest)) if guest.desired != DesiredState::Absent => {}
                Ok(_) => return,
                Err(error) => warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
            }
            // Every intent publishes an event. After a lag, the record is read again.
            if let Err(RecvError::Closed) = events.recv().await {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Engine {
    /// Records an operation that belongs to no guest, and runs `work` in a task. It does not continue after a restart of
    /// the daemon.
    ///
    /// # Errors
    /// When the operation cannot be recorded.
    pub async fn run_operation<F>(
        &self,
        verb: Verb,
        actor: &str,
        work: impl FnOnce(OperationLog) -> F + Send + 'static,
    ) -> Result<Accepted, EngineError>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.refuse_when_stopping()?;
        let (engine, actor) = (self.clone(), actor.to_owned());
        self.run_in_task(async move {
            let operation = engine.inner.store.begin_operation(verb, &actor).await?;
            let subject = Subject {
                operation: Some(operation.id),
                guest: None,
            };
            let journal = &engine.inner.journal;
            journal.record(&subject, EventKind::Accepted { verb });
            engine.spawn_operation(operation.id, verb, work);
            Ok(Accepted {
                operation: operation.id,
                guest: None,
            })
        })
        .await
    }

    /// Runs the work of a recorded operation in a task, and records its end. The end of the daemon cancels a prefetch, which the
    /// next daemon continues.
    pub(crate) fn spawn_operation<F>(
        &self,
        operation: OperationId,
        verb: Verb,
        work: impl FnOnce(OperationLog) -> F,
    ) where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let subject = Subject {
            operation: Some(operation),
            guest: None,
        };
        let inner = Arc::clone(&self.inner);
        let work = work(OperationLog {
            inner: Arc::clone(&inner),
            subject: subject.clone(),
            verb,
        });
        self.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = inner.stopping.cancelled(), if verb == Verb::Prefetch => return,
                ended = work => ended,
            };
            let (failure, kind) = match ended {
                Ok(()) => (None, EventKind::Finished),
                Err(failure) => (Some(failure.clone()), EventKind::Failed { failure }),
            };
            inner.probe(verb, "finish", Edge::Before);
            inner.finish(&subject, failure.as_ref(), kind).await;
            inner.probe(verb, "finish", Edge::After);
        });
    }

    /// Copies a guest's files to `to`, which must not exist. Suspends a running guest meanwhile, unless the driver takes a
    /// snapshot. A paused guest stays suspended. `copied` is the record of the guest in the backup. Returns its present record;
    /// `None` if the guest has no files, does not exist any more, not even if another one has its name, or is destroyed
    /// meanwhile: that cancels the copy.
    ///
    /// # Errors
    /// When the copy fails, or the guest runs and cannot be suspended. A part of the copy may be left.
    pub async fn export_guest(
        &self,
        copied: &Guest,
        to: &Path,
    ) -> Result<Option<(Guest, Exported)>, EngineError> {
        let (inner, name) = (&self.inner, &copied.name);
        let _guest = inner.guest_locks.lock(name).await;
        let _activity = inner.activity.read().await;
        let Some(guest) = inner.store.guest(name).await? else {
            return Ok(None);
        };
        // The files of another guest do not belong to the copied record.
        let is_same = guest.created_at == copied.created_at;
        if !is_same || guest.desired == DesiredState::Absent {
            return Ok(None);
        }
        let rootfs = &inner.host.rootfs;
        let phase = inner.host.units.phase(name).await?;
        // The frozen processes of a paused guest are left as they are.
        let is_alive = phase.is_some_and(|unit| unit.phase.is_alive() && !unit.frozen);
        let must_freeze = is_alive && !rootfs.copies_while_running(name).await?;
        let frozen = Instant::now();
        if must_freeze && !inner.host.units.freeze(name).await? {
            return Err(EngineError::NoFreezer(name.clone()));
        }
        let copied = tokio::select! {
            copied = rootfs.export(name, to) => copied.map_err(EngineError::from),
            () = inner.stopping.cancelled() => Err(EngineError::ShuttingDown),
            // A destroy does not wait for the copy.
            () = inner.until_destroyed(name) => Ok(false),
        };
        if must_freeze {
            inner.host.units.thaw(name).await?;
        }
        let exported = Exported {
            suspended: must_freeze.then(|| frozen.elapsed()),
        };
        Ok(copied?.then_some((guest, exported)))
    }

    /// Returns the least space that copies of guests' files take in a directory, in bytes. A guest whose files cannot be read
    /// counts as none: its copy reports the reason.
    pub async fn export_bytes(&self, guests: &[Guest], to: &Path) -> u64 {
        let mut all = 0_u64;
        for guest in guests {
            match self.inner.host.rootfs.export_bytes(&guest.name, to).await {
                Ok(bytes) => all = all.saturating_add(bytes),
                Err(error) => debug!(guest = %guest.name, "{}", innkeeper_model::chain(&error)),
            }
        }
        all
    }

    /// Continues guests that should not be paused, and removes snapshots, that an interrupted or failed copy has left.
    /// Reports whether none is left.
    pub async fn abandon_exports(&self) -> bool {
        let guests = match self.inner.store.guests().await {
            Ok(guests) => guests,
            Err(error) => {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                return false;
            }
        };
        let mut is_done = true;
        for guest in guests {
            for error in self.abandon_export(&guest.name).await {
                is_done = false;
                warn!(guest = %guest.name, code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        }
        is_done
    }

    /// Waits for work on the guest: a pause in progress must not be undone.
    async fn abandon_export(&self, name: &GuestName) -> Vec<EngineError> {
        let host = &self.inner.host;
        let _guest = self.inner.guest_locks.lock(name).await;
        let continued = async {
            let guest = self.inner.store.guest(name).await?;
            if guest.is_some_and(|guest| guest.rests().is_none()) {
                host.units.thaw(name).await?;
            }
            Ok(())
        };
        let abandoned = async { Ok(host.rootfs.abandon_export(name).await?) };
        let results = [continued.await, abandoned.await];
        results.into_iter().filter_map(Result::err).collect()
    }

    /// Creates guests' files from copies with these owners, records the guests, and starts those that should run. All guests are recorded
    /// or none.
    ///
    /// # Errors
    /// When a copy fails, or a record exists. No file is left then.
    pub async fn restore_guests(
        &self,
        files: &[(Guest, &Path)],
        owners: FileOwners,
        restore: Restore,
        log: &OperationLog,
    ) -> Result<Vec<MovedGuest>, EngineError> {
        self.refuse_when_stopping()?;
        let inner = &self.inner;
        // In the order of names: another restore cannot wait for a guest of this one, and this one for a guest of that.
        let mut names: Vec<_> = files.iter().map(|(guest, _)| &guest.name).collect();
        names.sort();
        let mut locks = Vec::new();
        for name in &names {
            locks.push(inner.guest_locks.lock(name).await);
        }
        let activity = inner.activity.read().await;
        for name in &names {
            if let Some(guest) = inner.store.guest(name).await? {
                let (name, desired) = (guest.name, guest.desired);
                let exists = innkeeper_store::StoreError::GuestExists { name, desired };
                return Err(exists.into());
            }
        }
        let starting: Vec<_> = restore.guests.clone();
        let faults = restore.faults.clone();
        let restored = async {
            for (guest, from) in files {
                let started = Instant::now();
                inner.host.rootfs.import(guest, from, owners).await?;
                let (name, seconds) = (&guest.name, started.elapsed().as_secs_f32());
                log.note(format!(
                    "The files of {name} are restored ({seconds:.1} s)."
                ));
            }
            Ok(inner.store.restore_records(restore).await?)
        };
        let restored: Result<_, EngineError> = restored.await;
        if restored.is_err() {
            for name in &names {
                if let Err(error) = inner.host.rootfs.remove(name).await {
                    warn!(guest = %name, code = %error.code(), "{}", innkeeper_model::chain(&error));
                }
            }
        }
        drop((activity, locks));
        let moved = restored?;
        for name in starting {
            // A drive would find a stopped guest as desired, and clear its fault.
            if !faults.contains_key(&name) {
                self.spawn_drive(name, None);
            }
        }
        Ok(moved)
    }

    /// Returns the user ids that guests of the host can have.
    #[must_use]
    pub fn guest_user_ids(&self) -> GuestUserIds {
        self.inner.host.features.guest_user_ids()
    }

    /// Returns the closures of the host.
    #[must_use]
    pub fn closures(&self) -> &dyn Closures {
        &*self.inner.host.closures
    }
}
