//! The engine as the daemon sees it: intents in, views out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use innkeeper_host::facilities::{Console, Facilities, ProgressSink};
use innkeeper_host::features::Features;
use innkeeper_host::unit::ExecSession;
use innkeeper_model::api::{Accepted, BuildRequest, CreateRequest, ExecRequest};
use innkeeper_model::{
    ClosureSource, Code, DesiredState, EventKind, Explain, Failure, Guest, GuestKind, GuestName,
    Installable, Limits, Operation, OperationId, OperationState, SlotRange, StorePath, Trust, Verb,
};
use innkeeper_store::{NewGuest, Store, StoreError};
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::journal::{About, Journal};
use crate::locks::{Driven, Locks};
use crate::oom::OomKills;
use crate::probe::{Edge, Point, Probe};
use crate::{EngineError, drive};

/// How often somebody who waits for an operation looks for its end without being told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the engine needs to know besides the store and the host.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The flake output that agents boot from when none is given.
    pub installable: Option<Installable>,
    /// The attribute meant when a flake is given without one.
    pub attribute: String,
    /// What a guest may use when nothing is said.
    pub limits: Limits,
    /// How many guests may be starting at the same time.
    pub concurrent_starts: usize,
    /// The addresses of the slots.
    pub range: SlotRange,
    /// How long the files of destroyed agents are kept; zero for not at all.
    pub retention: Duration,
}

/// The engine. Cheap to clone; all clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) host: Facilities,
    pub(crate) features: Features,
    pub(crate) journal: Journal,
    pub(crate) locks: Locks,
    pub(crate) driven: Driven,
    /// Held for reading while an operation works on the host, for writing while `gc` sweeps what belongs to
    /// no guest: a half-made file tree must not be taken for a left-over.
    pub(crate) at_work: RwLock<()>,
    pub(crate) starts: Semaphore,
    /// Whether the firewall could be asserted when that was tried last. No guest gets a network without it.
    pub(crate) filtered: AtomicBool,
    pub(crate) backoff: Backoff,
    pub(crate) oom: OomKills,
    pub(crate) stopping: CancellationToken,
    probe: Option<Probe>,
    tasks: TaskTracker,
}

impl Engine {
    /// An engine over a store and a host. Nothing happens until [`Engine::restore`] or a request.
    #[must_use]
    pub fn new(
        config: EngineConfig,
        store: Store,
        host: Facilities,
        features: Features,
        probe: Option<Probe>,
    ) -> Self {
        let inner = Inner {
            starts: Semaphore::new(config.concurrent_starts.max(1)),
            journal: Journal::new(store.clone()),
            config,
            store,
            host,
            features,
            locks: Locks::default(),
            oom: OomKills::default(),
            driven: Driven::default(),
            at_work: RwLock::default(),
            filtered: AtomicBool::new(false),
            backoff: Backoff::default(),
            stopping: CancellationToken::new(),
            probe,
            tasks: TaskTracker::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Records the wish for a new agent and begins to make it. The name and a slot belong to it before
    /// anything else happens.
    ///
    /// # Errors
    /// When the request makes no sense, the name is taken, no slot is left, the closure cannot be
    /// booted, or the caller may not build from the flake. Nothing was recorded then.
    pub async fn create(
        &self,
        request: CreateRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let inner = &self.inner;
        let source = self.source(request.flake.as_deref(), request.closure, trust)?;
        let closure = self.known_closure(&source).await?;
        let defaults = inner.config.limits;
        let limits = Limits {
            memory: request.memory.unwrap_or(defaults.memory),
            cpus: request.cpus.unwrap_or(defaults.cpus),
            tasks: request.tasks.unwrap_or(defaults.tasks),
        };
        if limits.tasks == 0 {
            return Err(EngineError::Invalid(
                "a guest needs at least 1 task".to_owned(),
            ));
        }
        let new = |name| NewGuest {
            name,
            kind: GuestKind::Agent,
            source: source.clone(),
            closure: closure.clone(),
            limits,
            origin: None,
        };
        inner.probe(Verb::Create, "accept", Edge::Before);
        let (guest, operation) = match request.name {
            Some(name) => inner.record_guest(new(name), actor).await?,
            None => self.create_with_made_up_name(new, actor).await?,
        };
        inner.probe(Verb::Create, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Records the wish for a preview's guest and begins to make it. The closure must be there.
    ///
    /// # Errors
    /// When the name is taken by a guest, no slot is left, or the closure cannot be booted. Nothing was
    /// recorded then.
    pub async fn create_preview(
        &self,
        name: &GuestName,
        closure: &StorePath,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        self.inner.host.closures.verify(closure).await?;
        let new = NewGuest {
            name: name.clone(),
            kind: GuestKind::Preview,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure.clone()),
            limits: self.inner.config.limits,
            origin: None,
        };
        self.inner.probe(Verb::Create, "accept", Edge::Before);
        let (guest, operation) = self.inner.record_guest(new, actor).await?;
        self.inner.probe(Verb::Create, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Records that a guest which does not run boots from another closure next time. What it has on its disk
    /// stays.
    ///
    /// # Errors
    /// When there is no such guest, or the closure cannot be booted.
    pub async fn set_closure(
        &self,
        name: &GuestName,
        closure: &StorePath,
    ) -> Result<(), EngineError> {
        self.inner.host.closures.verify(closure).await?;
        Ok(self.inner.store.set_closure(name, closure).await?)
    }

    /// Records that a guest should run, and starts it.
    ///
    /// # Errors
    /// When there is no such guest or another operation works on it.
    pub async fn start(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.change(name, DesiredState::Running, Verb::Start, actor)
            .await
    }

    /// Records that a guest should not run, and stops it.
    ///
    /// # Errors
    /// When there is no such guest or another operation works on it.
    pub async fn stop(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.change(name, DesiredState::Stopped, Verb::Stop, actor)
            .await
    }

    /// Records that a guest should not exist, and removes it. Always accepted, whatever else is going on. The files of an
    /// agent are kept for a while, unless they are to be removed `now`.
    ///
    /// # Errors
    /// When there is no such guest.
    pub async fn destroy(
        &self,
        name: &GuestName,
        now: bool,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let keep = !now && !self.inner.config.retention.is_zero();
        self.inner.probe(Verb::Destroy, "accept", Edge::Before);
        let (guest, operation) = self.inner.store.begin_destroy(name, keep, actor).await?;
        self.inner.probe(Verb::Destroy, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Builds a closure, so that the next guest need not wait for it.
    ///
    /// # Errors
    /// When the request makes no sense, or the caller may not build from the flake.
    pub async fn build(
        &self,
        request: BuildRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        let installable = self.installable(request.installable.as_deref())?;
        let trust = self.trust_in(&installable, trust)?;
        let inner = Arc::clone(&self.inner);
        let work = async move |progress| {
            let closure = drive::build_closure(&inner, progress, &installable, trust, true).await;
            let closure = closure.map_err(|error| Failure::from(&error))?;
            Ok((installable.to_string(), closure))
        };
        self.build_with(actor, work).await
    }

    /// Does a build as an operation that is followed like all others. `work` is given where its progress goes, and
    /// returns what was built, and the closure.
    ///
    /// # Errors
    /// When the engine is stopping, or the operation cannot be recorded.
    pub async fn build_with<F>(
        &self,
        actor: &str,
        work: impl FnOnce(ProgressSink) -> F + Send + 'static,
    ) -> Result<Accepted, EngineError>
    where
        F: Future<Output = Result<(String, StorePath), Failure>> + Send + 'static,
    {
        self.refuse_when_stopping()?;
        let operation = self.inner.store.begin_operation(Verb::Build, actor).await?;
        let about = About {
            operation: Some(operation.id),
            guest: None,
        };
        self.inner
            .journal
            .record(&about, EventKind::Accepted { verb: Verb::Build });
        let inner = Arc::clone(&self.inner);
        let work = work(inner.journal.sink(&about));
        self.spawn(async move { drive::build(&inner, &about, work).await });
        Ok(Accepted {
            operation: operation.id,
            guest: None,
        })
    }

    /// One guest's record.
    ///
    /// # Errors
    /// When there is none.
    pub async fn guest(&self, name: &GuestName) -> Result<Guest, EngineError> {
        let guest = self.inner.store.guest(name).await?;
        guest.ok_or_else(|| EngineError::GuestNotFound(name.clone()))
    }

    /// One operation.
    ///
    /// # Errors
    /// When there is none.
    pub async fn operation(&self, id: OperationId) -> Result<Operation, EngineError> {
        let operation = self.inner.store.operation(id).await?;
        operation.ok_or(EngineError::OperationNotFound(id))
    }

    /// Waits for an operation to end, and returns it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ended_operation(&self, id: OperationId) -> Result<Operation, EngineError> {
        let mut news = self.inner.journal.listen();
        loop {
            let operation = self.operation(id).await?;
            if operation.state != OperationState::Running {
                return Ok(operation);
            }
            // Its end is recorded before it is told; a listener that fell behind looks again. So does one that
            // waits for an operation which another one superseded: of that, nothing is told.
            let told = async {
                while let Ok(event) = news.recv().await {
                    if event.operation == Some(id) && event.kind.is_final() {
                        return;
                    }
                }
            };
            drop(tokio::time::timeout(LOOK_AGAIN, told).await);
        }
    }

    /// The operation that works on a guest now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn operation_on(&self, name: &GuestName) -> Result<Option<Operation>, EngineError> {
        let running = self.inner.store.running_operations().await?;
        Ok(running
            .into_iter()
            .find(|operation| operation.guest.as_ref() == Some(name)))
    }

    /// A guest's console. With `follow`, it ends when the guest stops.
    ///
    /// # Errors
    /// When there is no such guest, or no log of it.
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

    /// Runs a command in a guest.
    ///
    /// # Errors
    /// When there is no such guest, or it does not run.
    pub async fn exec(
        &self,
        name: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, EngineError> {
        self.guest(name).await?;
        if request.command.is_empty() {
            return Err(EngineError::Invalid("the command is missing".to_owned()));
        }
        Ok(self.inner.host.units.exec(name, request).await?)
    }

    /// Events as they happen.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Takes no new work and waits for what is under way. Whoever loses patience can drop the future and
    /// end the process: what is unfinished goes on at the next start.
    pub async fn stop_working(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    async fn change(
        &self,
        name: &GuestName,
        desired: DesiredState,
        verb: Verb,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        self.inner.probe(verb, "accept", Edge::Before);
        let (guest, operation) = self
            .inner
            .store
            .begin_change(name, desired, verb, actor)
            .await?;
        self.inner.probe(verb, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Announces an operation whose intent is on disk, and drives it.
    pub(crate) async fn begin(&self, name: &GuestName, operation: &Operation) -> Accepted {
        let about = About {
            operation: Some(operation.id),
            guest: Some(name.clone()),
        };
        // A second destroy gets the operation of the first, which is driven already.
        if self.inner.driven.begin(operation.id) {
            let verb = operation.verb;
            self.inner
                .journal
                .record(&about, EventKind::Accepted { verb });
            self.spawn_drive(name.clone(), Some(operation.clone()));
        }
        Accepted {
            operation: operation.id,
            guest: Some(name.clone()),
        }
    }

    pub(crate) fn spawn_drive(&self, name: GuestName, operation: Option<Operation>) {
        let engine = self.clone();
        self.spawn(async move { drive::drive(&engine, &name, operation).await });
    }

    async fn create_with_made_up_name(
        &self,
        new: impl Fn(GuestName) -> NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), EngineError> {
        // There are 190 million names: a second collision in a row means that something else is wrong.
        let first = self.inner.record_guest(new(made_up_name()?), actor).await;
        match first {
            Err(StoreError::GuestExists { .. }) => {
                let second = self.inner.record_guest(new(made_up_name()?), actor);
                Ok(second.await?)
            }
            other => Ok(other?),
        }
    }

    fn source(
        &self,
        flake: Option<&str>,
        closure: Option<StorePath>,
        trust: Trust,
    ) -> Result<ClosureSource, EngineError> {
        match (flake, closure) {
            (Some(_), Some(_)) => Err(EngineError::Invalid(
                "a guest boots from a flake or from a store path, not from both".to_owned(),
            )),
            (None, Some(path)) => Ok(ClosureSource::Path(path)),
            (flake, None) => {
                let installable = self.installable(flake)?;
                Ok(match self.trust_in(&installable, trust)? {
                    Trust::Host => ClosureSource::Flake(installable),
                    Trust::Member => ClosureSource::MemberFlake(installable),
                })
            }
        }
    }

    /// How much a build of the output is trusted when `caller` asks for it. The configured flake is the host's own,
    /// whoever asks.
    fn trust_in(&self, installable: &Installable, caller: Trust) -> Result<Trust, EngineError> {
        let own = self.inner.config.installable.as_ref();
        if own.is_some_and(|own| own.flake() == installable.flake()) {
            return Ok(Trust::Host);
        }
        match caller {
            Trust::Member if !installable.is_remote() => {
                Err(EngineError::LocalFlake(installable.clone()))
            }
            caller => Ok(caller),
        }
    }

    /// The flake output that is meant: the given one, or the configured one.
    fn installable(&self, given: Option<&str>) -> Result<Installable, EngineError> {
        let config = &self.inner.config;
        match given {
            Some(text) => Ok(Installable::parse(text, &config.attribute)?),
            None => config.installable.clone().ok_or(EngineError::FlakeUnset),
        }
    }

    /// The closure, if it is known without building: given, or built before.
    async fn known_closure(
        &self,
        source: &ClosureSource,
    ) -> Result<Option<StorePath>, EngineError> {
        let inner = &self.inner;
        match source {
            ClosureSource::Path(path) => {
                inner.host.closures.verify(path).await?;
                inner.host.closures.require_registered(path).await?;
                Ok(Some(path.clone()))
            }
            ClosureSource::MemberFlake(_) => Ok(None),
            ClosureSource::Flake(installable) => {
                let Some(cached) = inner.store.cached_closure(installable).await? else {
                    return Ok(None);
                };
                let there = inner.host.closures.verify(&cached.closure).await.is_ok();
                Ok(there.then_some(cached.closure))
            }
        }
    }

    pub(crate) fn refuse_when_stopping(&self) -> Result<(), EngineError> {
        if self.inner.stopping.is_cancelled() {
            return Err(EngineError::ShuttingDown);
        }
        Ok(())
    }
}

impl Inner {
    /// Records a guest. On a full disk, files of destroyed agents give way first.
    async fn record_guest(
        &self,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        match self.store.create_guest(new.clone(), actor).await {
            Err(error) if error.code() == Code::DiskFull && self.make_room().await.is_ok() => {
                self.store.create_guest(new, actor).await
            }
            result => result,
        }
    }

    pub(crate) fn probe(&self, verb: Verb, step: &'static str, edge: Edge) {
        if let Some(probe) = &self.probe {
            probe(Point { verb, step, edge });
        }
    }
}

fn made_up_name() -> Result<GuestName, EngineError> {
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| EngineError::Invalid(format!("the kernel gives no random numbers: {error}")),
    )?;
    Ok(GuestName::generate(random))
}
