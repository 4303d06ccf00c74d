//! Requests: each records its intent in one transaction, then starts an operation.

use std::sync::Arc;

use innkeeper_facilities::{Effort, GuestUserIds, ProgressSink};
use innkeeper_model::api::{Accepted, BuildRequest, CreateRequest, SetRequest};
use innkeeper_model::reserved::reservation;
use innkeeper_model::{
    ClosureSource, Code, DesiredState, EventKind, Explain, Failure, Guest, GuestKind, GuestName,
    Installable, Limits, Operation, StorePath, Trust, UserIdCount, Verb,
};
use innkeeper_store::{NewGuest, RequestedChange, StoreError};

use crate::EngineError;
use crate::engine::Engine;
use crate::journal::Subject;
use crate::probe::Edge;

impl Engine {
    /// Records a new agent and starts its creation. Name and slot are reserved before anything else happens.
    ///
    /// # Errors
    /// When the request is invalid, the name is taken, the slots are exhausted, the closure cannot be booted, the caller
    /// may not build from the flake, the host cannot or may not give the guest its user ids or nesting, or its memory runs
    /// short. A refused request leaves no record.
    pub async fn create(
        &self,
        request: CreateRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        if let Some(name) = &request.name {
            refuse_reserved(name)?;
        }
        require_root(request.declared, trust)?;
        let inner = &self.inner;
        inner.make_memory().await?;
        let limits = self.limits(&request)?;
        let source = self.source(request.flake.as_deref(), request.closure, trust)?;
        let closure = self.known_closure(&source).await?;
        let new = |name| NewGuest {
            name,
            kind: GuestKind::Agent,
            source: source.clone(),
            closure: closure.clone(),
            limits,
            origin: None,
            declared: request.declared,
            idle_policy: request.idle_policy,
        };
        inner.probe(Verb::Create, "accept", Edge::Before);
        let (guest, operation) = match request.name {
            Some(name) => self.record_guest(new(name), actor).await?,
            None => self.create_with_generated_name(new, actor).await?,
        };
        inner.probe(Verb::Create, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Records a preview's guest and starts its creation. The closure must exist.
    ///
    /// # Errors
    /// When another guest has the name, the slots are exhausted, the closure cannot be booted, or the host's memory runs
    /// short. A refused request leaves no record.
    pub async fn create_preview(
        &self,
        name: &GuestName,
        closure: &StorePath,
        actor: &str,
    ) -> Result<Accepted, EngineError> {
        self.refuse_when_stopping()?;
        self.inner.make_memory().await?;
        self.inner.host.closures.verify(closure).await?;
        self.require_means(&self.inner.config.limits)?;
        let new = NewGuest {
            name: name.clone(),
            kind: GuestKind::Preview,
            source: ClosureSource::Path(closure.clone()),
            closure: Some(closure.clone()),
            limits: self.inner.config.limits,
            origin: None,
            declared: false,
            idle_policy: None,
        };
        self.inner.probe(Verb::Create, "accept", Edge::Before);
        let (guest, operation) = self.record_guest(new, actor).await?;
        self.inner.probe(Verb::Create, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    /// Records that an agent should have another closure or other limits, and starts the change. A running system switches
    /// to the closure if both have `bin/switch-to-configuration`; otherwise the agent is restarted. If it does not come up,
    /// it gets its former closure back.
    ///
    /// # Errors
    /// As [`Self::create`], and when the agent does not exist or is busy. A refused request changes nothing.
    pub async fn set(
        &self,
        name: &GuestName,
        request: SetRequest,
        actor: &str,
        trust: Trust,
    ) -> Result<Accepted, EngineError> {
        let guest = self.agent(name).await?;
        let source = match (&request.flake, &request.closure) {
            (None, None) => None,
            _ => {
                let source = self.source(request.flake.as_deref(), request.closure, trust)?;
                // The flake may have changed since the last build, so that its cached closure does not count.
                let closure = match &source {
                    ClosureSource::Path(_) => self.known_closure(&source).await?,
                    ClosureSource::Flake(_) | ClosureSource::MemberFlake(_) => None,
                };
                Some((source, closure))
            }
        };
        require_root(request.declared, trust)?;
        let is_empty = source.is_none()
            && !request.declared
            && request.memory.is_none()
            && request.cpus.is_none()
            && request.tasks.is_none()
            && !request.restart;
        if is_empty {
            return Err(EngineError::Invalid(format!(
                "the request changes nothing about agent '{name}'"
            )));
        }
        require_tasks(request.tasks.unwrap_or(guest.limits.tasks))?;
        let requested = RequestedChange {
            source,
            memory: request.memory,
            cpus: request.cpus,
            tasks: request.tasks,
            declared: request.declared,
            restart: request.restart,
        };
        let begun = self.inner.store.begin_set(name, requested, actor);
        self.begin_with(Verb::Set, begun).await
    }

    /// Changes the closure that a stopped guest boots from at its next start. Its files stay.
    ///
    /// # Errors
    /// When the guest does not exist, or the closure cannot be booted.
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
    /// When the guest does not exist or is busy, or the host's memory runs short and the guest has no processes.
    pub async fn start(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.require_memory_for(name).await?;
        self.note_request(name, actor);
        self.change(name, DesiredState::Running, Verb::Start, actor)
            .await
    }

    /// Records that a guest should not run, and stops it.
    ///
    /// # Errors
    /// When the guest does not exist or is busy.
    pub async fn stop(&self, name: &GuestName, actor: &str) -> Result<Accepted, EngineError> {
        self.change(name, DesiredState::Stopped, Verb::Stop, actor)
            .await
    }

    /// Records that a guest should not exist, and removes it. Supersedes any operation in flight. An agent's files are
    /// retained for a while unless `now` is set.
    ///
    /// # Errors
    /// When the guest does not exist.
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

    /// Builds a closure ahead of its first guest.
    ///
    /// # Errors
    /// When the request is invalid, or the caller may not build from the flake.
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
            let closure = inner
                .build_closure(progress, &installable, trust, true, Effort::Normal)
                .await;
            let closure = closure.map_err(|error| Failure::from(&error))?;
            Ok((installable.to_string(), closure))
        };
        self.build_with(actor, work).await
    }

    /// Runs a build as an operation, with events like any other. `work` receives the sink for its progress and returns
    /// the build's name and closure.
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
        let engine = self.clone();
        let actor = actor.to_owned();
        // The reconciliation starts only abandoned operations on guests, so a canceled request must not abandon this one.
        self.run_in_task(async move {
            let begun = engine.inner.store.begin_operation(Verb::Build, &actor);
            let operation = begun.await?;
            let subject = Subject {
                operation: Some(operation.id),
                guest: None,
            };
            let accepted = EventKind::Accepted { verb: Verb::Build };
            engine.inner.journal.record(&subject, accepted);
            let inner = Arc::clone(&engine.inner);
            let work = work(inner.journal.progress_sink(&subject));
            engine.spawn(async move { inner.run_build(&subject, work).await });
            Ok(Accepted {
                operation: operation.id,
                guest: None,
            })
        })
        .await
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
        let changed = self.inner.store.begin_change(name, desired, verb, actor);
        let (guest, operation) = changed.await?;
        self.inner.probe(verb, "accept", Edge::After);
        Ok(self.begin(&guest.name, &operation).await)
    }

    async fn create_with_generated_name(
        &self,
        new: impl Fn(GuestName) -> NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), EngineError> {
        // 190 million names exist: two collisions in a row have another cause, and are reported.
        let first = self.record_guest(new(generated_name()?), actor).await;
        match first {
            Err(StoreError::GuestExists { .. }) => {
                let second = self.record_guest(new(generated_name()?), actor);
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

    /// Returns how far a caller's build of the output is trusted. The configured flake always counts as the host's own.
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

    /// Returns the given flake output, or the configured one.
    fn installable(&self, given: Option<&str>) -> Result<Installable, EngineError> {
        let config = &self.inner.config;
        match given {
            Some(text) => Ok(Installable::parse(text, &config.attribute)?),
            None => config.installable.clone().ok_or(EngineError::FlakeUnset),
        }
    }

    /// Returns the closure if no build is needed: it was given, or an earlier build is still valid.
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
                let is_valid = inner.host.closures.verify(&cached.closure).await.is_ok();
                Ok(is_valid.then_some(cached.closure))
            }
        }
    }

    /// Returns the limits of a new agent.
    fn limits(&self, request: &CreateRequest) -> Result<Limits, EngineError> {
        let config = &self.inner.config;
        let defaults = config.limits;
        let user_ids = match request.nesting {
            true => defaults.user_ids.max(UserIdCount::FOR_NESTING),
            false => defaults.user_ids,
        };
        let limits = Limits {
            memory: request.memory.unwrap_or(defaults.memory),
            cpus: request.cpus.unwrap_or(defaults.cpus),
            tasks: request.tasks.unwrap_or(defaults.tasks),
            user_ids: request.user_ids.unwrap_or(user_ids),
            nesting: request.nesting,
        };
        if limits.tasks == 0 {
            return Err(EngineError::Invalid(
                "a guest needs at least 1 task".to_owned(),
            ));
        }
        self.require_means(&limits)?;
        Ok(limits)
    }

    /// Fails if this host's guests cannot or may not have the user ids or the nesting of `limits`.
    pub(crate) fn require_means(&self, limits: &Limits) -> Result<(), EngineError> {
        let possible = self.inner.host.features.guest_user_ids();
        if limits.nesting && !self.inner.config.nesting {
            return Err(EngineError::NestingRefused);
        }
        if limits.user_ids > UserIdCount::MIN && possible != GuestUserIds::SeveralSlots {
            return Err(EngineError::UserIds(limits.user_ids));
        }
        if limits.nesting && possible == GuestUserIds::OfHost {
            return Err(EngineError::NestingImpossible);
        }
        Ok(())
    }

    /// Records a guest. On a full disk, retained files are purged first.
    async fn record_guest(
        &self,
        new: NewGuest,
        actor: &str,
    ) -> Result<(Guest, Operation), StoreError> {
        if let Some(recorded) = self.record_at_seat(&new, actor).await? {
            return Ok(recorded);
        }
        let record = || self.inner.store.create_guest(new.clone(), actor);
        match self.with_slot(record).await {
            Err(error) if error.code() == Code::DiskFull && self.make_room().await.is_ok() => {
                self.with_slot(record).await
            }
            result => result,
        }
    }
}

/// Refuses a reserved name for a new agent.
pub(crate) fn refuse_reserved(name: &GuestName) -> Result<(), EngineError> {
    match reservation(name.as_str()) {
        None => Ok(()),
        Some(reason) => Err(EngineError::Reserved {
            name: name.clone(),
            reason,
        }),
    }
}

/// Refuses a member's request to declare an agent: the host's configuration may remove declared agents.
fn require_root(declared: bool, trust: Trust) -> Result<(), EngineError> {
    match trust {
        Trust::Member if declared => Err(EngineError::Invalid(
            "only root may declare agents".to_owned(),
        )),
        Trust::Member | Trust::Host => Ok(()),
    }
}

fn require_tasks(tasks: u32) -> Result<(), EngineError> {
    match tasks {
        0 => Err(EngineError::Invalid(
            "a guest needs at least 1 task".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn generated_name() -> Result<GuestName, EngineError> {
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(
        |error| EngineError::Invalid(format!("the kernel returned no random numbers: {error}")),
    )?;
    Ok(GuestName::generate(random))
}
