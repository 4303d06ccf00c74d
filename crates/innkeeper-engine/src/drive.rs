//! Carries plans out, one guest at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use innkeeper_host::facilities::{Built, ProgressSink};
use innkeeper_host::unit::Prepared;
use innkeeper_model::{
    ClosureSource, DesiredState, EventKind, Explain, Failure, Guest, GuestName, Installable,
    Operation, StorePath, Trust, Verb,
};
use tracing::warn;

use crate::EngineError;
use crate::engine::{Engine, Inner};
use crate::journal::About;
use crate::observe::{has, observe, resources};
use crate::plan::{Stage, Step, plan};
use crate::probe::Edge;

/// Makes one guest as wanted. `operation` is the intent behind it; without one, the daemon restores on its
/// own account, and records that only when there is something to do.
pub(crate) async fn drive(engine: &Engine, name: &GuestName, operation: Option<Operation>) {
    let inner = &engine.inner;
    let _guest = inner.locks.lock(name).await;
    let _at_work = inner.at_work.read().await;
    let mut drive = Drive {
        inner,
        name,
        verb: operation.as_ref().map_or(Verb::Restore, |o| o.verb),
        about: About {
            operation: operation.as_ref().map(|o| o.id),
            guest: Some(name.clone()),
        },
        prepared: Mutex::default(),
    };
    let result = drive.converge().await;
    // A unit that was not started is none, before anybody looks at how this ended.
    drop(drive.prepared().take());
    drive.conclude(result, engine).await;
    if let Some(id) = drive.about.operation {
        inner.driven.end(id);
    }
}

/// Builds a closure for nobody in particular.
pub(crate) async fn build(
    inner: &Inner,
    about: &About,
    work: impl Future<Output = Result<(String, StorePath), Failure>>,
) {
    let (failure, kind) = match work.await {
        Ok((what, closure)) => {
            let built = EventKind::Built { what, closure };
            inner.journal.record(about, built);
            (None, EventKind::Finished)
        }
        Err(failure) => (Some(failure.clone()), EventKind::Failed { failure }),
    };
    finish(inner, about, failure.as_ref(), kind).await;
}

struct Drive<'a> {
    inner: &'a Arc<Inner>,
    name: &'a GuestName,
    verb: Verb,
    about: About,
    /// The unit, between its preparation and its start.
    prepared: Mutex<Option<Prepared>>,
}

/// How a drive ended.
enum End {
    /// The guest is as wanted.
    AsWanted,
    /// The record is gone.
    Forgotten,
    /// A later operation wants something else, and drives next.
    Superseded,
}

impl Drive<'_> {
    /// Looks, plans, and carries out, until there is nothing left to do.
    async fn converge(&mut self) -> Result<End, EngineError> {
        let Some(guest) = self.inner.store.guest(self.name).await? else {
            return Ok(End::Forgotten);
        };
        let seen = observe(&self.inner.host, &guest).await?;
        let stages = plan(guest.desired, guest.file_work.as_ref(), &seen);
        if stages.is_empty() {
            return Ok(End::AsWanted);
        }
        if self.about.operation.is_none() && !self.announce().await? {
            return Ok(End::Superseded);
        }
        self.carry_out(guest.desired, &stages).await
    }

    /// Records a restore as an operation of the daemon's own, unless somebody asked for something meanwhile.
    async fn announce(&mut self) -> Result<bool, EngineError> {
        let Some(operation) = self
            .inner
            .store
            .begin_restore(self.name, "innkeeperd")
            .await?
        else {
            return Ok(false);
        };
        self.about.operation = Some(operation.id);
        let verb = self.verb;
        self.inner
            .journal
            .record(&self.about, EventKind::Accepted { verb });
        Ok(true)
    }

    async fn carry_out(&self, desired: DesiredState, stages: &[Stage]) -> Result<End, EngineError> {
        let mut failures = Vec::new();
        // Taken when the guest begins to start, and kept until it has: this is what staggers a boot.
        let mut _permit = None;
        for stage in stages {
            // Read anew for each stage: the closure is learnt on the way, and somebody may want something else.
            let Some(guest) = self.inner.store.guest(self.name).await? else {
                return Ok(End::Forgotten);
            };
            if guest.desired != desired {
                return Ok(End::Superseded);
            }
            if stage.contains(&Step::EnsureUnit) {
                _permit = self.inner.starts.acquire().await.ok();
            }
            // Neither may happen while something of the guest is left.
            let last = stage.contains(&Step::Forget) || stage.contains(&Step::RestoreRootfs);
            if last && !failures.is_empty() {
                break;
            }
            let results = join_all(stage.iter().map(|step| self.step(&guest, *step))).await;
            for failed in results.into_iter().filter_map(Result::err) {
                // Removal goes on after a failure, so that as much as possible is gone; nothing else does.
                if desired == DesiredState::Running {
                    return Err(failed);
                }
                failures.push(failed);
            }
        }
        match failures.len() {
            0 if desired == DesiredState::Absent => Ok(End::Forgotten),
            0 => Ok(End::AsWanted),
            1 => Err(failures.remove(0)),
            _ => Err(EngineError::Several(
                failures.iter().map(Failure::from).collect(),
            )),
        }
    }

    /// Whether somebody wants something else by now. Only a destruction can come in between.
    async fn superseded(&self, desired: DesiredState) -> Result<bool, EngineError> {
        let now = self.inner.store.guest(self.name).await?;
        Ok(now.is_none_or(|guest| guest.desired != desired))
    }

    async fn step(&self, guest: &Guest, step: Step) -> Result<(), EngineError> {
        let work = self.apply_with_space(guest, step);
        let name = step.as_str();
        self.inner.timed(self.verb, &self.about, name, work).await
    }

    /// While there is too little space, files of destroyed agents give way.
    async fn apply_with_space(&self, guest: &Guest, step: Step) -> Result<(), EngineError> {
        loop {
            match self.apply(guest, step).await {
                Err(error) if step.takes_space() && self.inner.give_way(&error).await => {}
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
                host.closures.ensure(name, closure).await?;
                // Only what is pinned is sure to stay; before, Nix may have collected it.
                host.closures.verify(closure).await?;
            }
            Step::EnsureRootfs => self.inner.ensure_rootfs(guest).await?,
            Step::ForgetIdentity => self.inner.forget_identity(guest).await?,
            Step::TakeSnapshot => self.inner.take_snapshot(guest).await?,
            Step::DeleteSnapshot => self.inner.remove_snapshot(guest).await?,
            Step::RestoreRootfs => self.inner.restore_rootfs(guest).await?,
            Step::AdoptFiles => self.inner.adopt_files(guest).await?,
            Step::EnsureSecrets => {
                let key = host.secrets.ensure(guest).await?;
                if guest.ssh_host_key.as_ref() != Some(&key) {
                    self.inner.store.set_ssh_host_key(name, &key).await?;
                }
            }
            Step::PrepareUnit => *self.prepared() = host.units.prepare(guest).await?,
            Step::EnsureUnit => {
                let prepared = self.prepared().take();
                drop(host.units.ensure(guest, prepared).await?);
                self.inner.oom.begin(name, host.units.oom_kills(name));
            }
            Step::EnsureNetwork => self.ensure_network(guest).await?,
            Step::Release => host.units.release(name).await?,
            Step::StopUnit => host.units.stop(name).await?,
            Step::RemoveUnit => host.units.remove(name).await?,
            Step::RemoveNetwork => host.network.remove(name).await?,
            Step::RemoveRootfs => host.rootfs.remove(name).await?,
            Step::RetainRootfs => self.inner.retain_rootfs(guest, &self.about).await?,
            Step::RemoveClosure => host.closures.remove(name).await?,
            Step::Forget => self.forget(None).await?,
        }
        Ok(())
    }

    fn prepared(&self) -> MutexGuard<'_, Option<Prepared>> {
        // Nothing panics while it is held.
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn resolve(&self, guest: &Guest) -> Result<(), EngineError> {
        let closure = match &guest.source {
            ClosureSource::Path(path) => {
                self.inner.host.closures.verify(path).await?;
                path.clone()
            }
            ClosureSource::Flake(installable) | ClosureSource::MemberFlake(installable) => {
                let trust = match &guest.source {
                    ClosureSource::MemberFlake(_) => Trust::Member,
                    _ => Trust::Host,
                };
                // A build takes minutes; whoever destroys the guest meanwhile does not wait for it.
                let build = build_closure(
                    self.inner,
                    self.inner.journal.sink(&self.about),
                    installable,
                    trust,
                    false,
                );
                tokio::select! {
                    built = build => built?,
                    () = self.wait_until_superseded(guest.desired) => {
                        return Err(EngineError::Superseded(self.name.clone()));
                    }
                }
            }
        };
        Ok(self.inner.store.set_closure(self.name, &closure).await?)
    }

    async fn wait_until_superseded(&self, desired: DesiredState) {
        let mut news = self.inner.journal.listen();
        while !self.superseded(desired).await.unwrap_or(false) {
            // Every intent is announced; a listener that fell behind just looks again.
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = news.recv().await {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn ensure_network(&self, guest: &Guest) -> Result<(), EngineError> {
        self.inner.require_firewall().await?;
        let unit = self.inner.host.units.phase(self.name).await?;
        let leader = unit.and_then(|unit| unit.leader);
        let leader = leader.ok_or_else(|| {
            EngineError::Invalid(format!(
                "guest '{}' ended before it had a network",
                self.name
            ))
        })?;
        Ok(self.inner.host.network.ensure(guest, leader).await?)
    }

    /// Deletes the record, but only when nothing of the guest can be seen any more. Operations that were to
    /// make something of the guest end with `failure`.
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

    /// Ends the operation as the result demands.
    async fn conclude(&self, result: Result<End, EngineError>, engine: &Engine) {
        match result {
            Ok(End::AsWanted) => {
                self.clear_fault().await;
                self.succeed().await;
            }
            Ok(End::Forgotten) => {
                self.succeed().await;
                engine.spawn_look_after_retained();
            }
            Ok(End::Superseded) | Err(EngineError::Superseded(_)) => self.give_way().await,
            Err(error) => self.fail(&Failure::from(&error), engine).await,
        }
    }

    /// The store has ended this operation already, in favour of the later one; whoever follows it is told.
    async fn give_way(&self) {
        if self.about.operation.is_none() {
            return;
        }
        let failure = Failure::from(&EngineError::Superseded(self.name.clone()));
        self.inner
            .journal
            .record(&self.about, EventKind::Failed { failure });
    }

    async fn clear_fault(&self) {
        if let Err(error) = self.inner.store.set_fault(self.name, None).await {
            warn!(guest = %self.name, %error, "the fault was not cleared");
        }
    }

    async fn succeed(&self) {
        self.inner.backoff.forgive(self.name);
        if self.about.operation.is_some() {
            self.inner.probe(self.verb, "finish", Edge::Before);
            finish(self.inner, &self.about, None, EventKind::Finished).await;
            self.inner.probe(self.verb, "finish", Edge::After);
        }
    }

    /// A create goes back to nothing, a start or an undelete goes back to stopped, and what was to be done with the files is given
    /// up; everything else stays as wanted, and is tried again later.
    async fn fail(&self, failure: &Failure, engine: &Engine) {
        warn!(guest = %self.name, verb = %self.verb, code = %failure.code, "{failure}");
        let back = match self.verb {
            Verb::Create | Verb::Fork => Some(DesiredState::Absent),
            // With the files that it has, or is to have.
            Verb::Start | Verb::Undelete => Some(DesiredState::Stopped),
            _ => None,
        };
        let settled = match (back, self.verb) {
            (Some(desired), _) => self.undo(desired, failure).await.is_ok(),
            (None, Verb::Snapshot | Verb::RestoreSnapshot) => self.go_back(engine).await,
            (None, _) => false,
        };
        if !settled {
            self.keep_fault(failure, engine).await;
        }
        let kind = EventKind::Failed {
            failure: failure.clone(),
        };
        finish(self.inner, &self.about, Some(failure), kind).await;
    }

    async fn undo(&self, desired: DesiredState, failure: &Failure) -> Result<(), EngineError> {
        let store = &self.inner.store;
        store.set_desired_state(self.name, desired).await?;
        let Some(guest) = store.guest(self.name).await? else {
            return Ok(());
        };
        let seen = observe(&self.inner.host, &guest).await?;
        // The last stage of a removal deletes the record; the reason goes with the operation, so it is
        // written in the same transaction.
        let stages: Vec<Stage> = plan(desired, None, &seen)
            .into_iter()
            .filter(|s| !s.contains(&Step::Forget))
            .collect();
        self.carry_out(guest.desired, &stages).await?;
        if desired == DesiredState::Absent {
            self.forget(Some(failure)).await?;
        }
        Ok(())
    }

    /// Gives up what was to be done with the files, if it was that which failed, and lets the guest be as before.
    async fn go_back(&self, engine: &Engine) -> bool {
        let given_up = self.inner.give_up_file_work(self.name).await;
        if matches!(given_up, Ok(true)) {
            engine.spawn_drive(self.name.clone(), None);
        }
        matches!(given_up, Ok(true))
    }

    /// Shows the failure with the guest and arranges for another attempt.
    async fn keep_fault(&self, failure: &Failure, engine: &Engine) {
        if let Err(error) = self.inner.store.set_fault(self.name, Some(failure)).await {
            warn!(guest = %self.name, %error, "the fault was not recorded");
        }
        engine.try_again_later(self.name);
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

/// Builds an output, or takes what was built before when `anew` is false or nothing has changed. A member's build neither
/// reads nor changes what is remembered for the host.
pub(crate) async fn build_closure(
    inner: &Inner,
    progress: ProgressSink,
    installable: &Installable,
    trust: Trust,
    anew: bool,
) -> Result<StorePath, EngineError> {
    let closures = &inner.host.closures;
    if trust == Trust::Member {
        let built = closures.build(installable, trust, None, progress).await?;
        return Ok(built.closure);
    }
    let known = inner
        .store
        .cached_closure(installable)
        .await?
        .map(|cached| Built {
            closure: cached.closure,
            fingerprint: cached.fingerprint,
        });
    if let (false, Some(built)) = (anew, &known)
        && closures.verify(&built.closure).await.is_ok()
    {
        return Ok(built.closure.clone());
    }
    let built = closures
        .build(installable, trust, known.as_ref(), progress)
        .await?;
    inner
        .store
        .cache_closure(installable, &built.closure, &built.fingerprint)
        .await?;
    Ok(built.closure)
}

async fn finish(inner: &Inner, about: &About, failure: Option<&Failure>, kind: EventKind) {
    if let Some(id) = about.operation
        && let Err(error) = inner.store.finish_operation(id, failure).await
    {
        warn!(operation = %id, code = %error.code(), %error, "the end of an operation was not recorded");
    }
    inner.journal.record(about, kind);
}
