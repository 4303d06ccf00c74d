//! Lets idle guests rest by the daemon's own decision.

use std::sync::atomic::Ordering;

use innkeeper_model::{
    DesiredState, Explain, Guest, GuestKind, GuestName, IdlePolicy, Level, OperationState, chain,
};
use innkeeper_store::StoreError;
use tracing::{debug, warn};

use crate::EngineError;
use crate::activity::Use;
use crate::engine::Engine;
use crate::idle::{ACTOR, LevelHooks, RestRule};
use crate::inner::Inner;

impl Inner {
    /// Refuses a rest by the daemon's own decision of a guest in which a session was opened since. A session that is opened
    /// later wakes the guest.
    pub(crate) fn refuse_in_session(&self, guest: &GuestName) -> Result<(), EngineError> {
        let is_own = self.resting.has(guest);
        match self.sessions.count(guest) {
            0 => Ok(()),
            _ if is_own => Err(EngineError::InUse(guest.clone())),
            _ => Ok(()),
        }
    }
}

impl Engine {
    /// Sets the part of a rest that previews add. Has no effect the second time.
    pub fn set_level_hooks(&self, hooks: Box<dyn LevelHooks>) {
        drop(self.inner.hooks.set(hooks));
    }

    /// Returns the policy in force.
    pub(crate) fn policy(&self, guest: &Guest) -> IdlePolicy {
        self.inner.config.rest.policy(guest)
    }

    /// Returns why a guest stays awake also when memory runs short, as a clause: a user wants it to. The policy of its kind
    /// is about rest with enough memory.
    pub(crate) fn wanted_awake(&self, guest: &Guest) -> Option<&'static str> {
        if guest.idle_policy == Some(IdlePolicy::AlwaysOn) {
            return Some("its own idle policy is always-on");
        }
        self.kept_awake(&guest.name)
            .map(|_| "a keepalive is in force")
    }

    pub(crate) fn rule(&self, guest: &Guest) -> RestRule {
        self.inner.config.rest.rule(guest)
    }

    /// Reports whether a guest is paused when it is idle.
    pub(crate) fn pauses_when_idle(&self, guest: &Guest) -> bool {
        self.rule(guest).pause_after.is_some() && self.kept_awake(&guest.name).is_none()
    }

    /// Lets the guests rest that have been idle for the configured time.
    pub(crate) async fn rest_idle(&self) -> Result<(), EngineError> {
        for guest in self.inner.store.guests().await? {
            if guest.desired != DesiredState::Running {
                continue;
            }
            if let Some((level, packets)) = self.due(&guest) {
                let engine = self.clone();
                self.spawn(async move {
                    if let Err(error) = engine.rest_due(&guest, level, packets).await {
                        debug!(guest = %guest.name, code = %error.code(), "it does not rest: {}", chain(&error));
                    }
                });
            }
        }
        self.report_uses().await;
        Ok(())
    }

    /// Tells the hooks which previews' guests were in use since the last call.
    async fn report_uses(&self) {
        let Some(hooks) = self.inner.hooks.get() else {
            return;
        };
        let now = self.inner.started.elapsed();
        let used = self.inner.uses.lock().used_since_report(now);
        if !used.is_empty() {
            hooks.used(&used).await;
        }
    }

    /// Returns the level that an idle guest should have, and the number of packets that it had received when this was read.
    fn due(&self, guest: &Guest) -> Option<(Level, u64)> {
        let (rule, now) = (self.rule(guest), self.inner.started.elapsed());
        let uses = self.inner.uses.lock();
        let can_sleep = rule
            .sleep_after
            .and_then(|after| uses.can_sleep(&guest.name, now, after));
        if let Some(packets) = can_sleep.filter(|_| guest.level != Level::Asleep) {
            return Some((Level::Asleep, packets));
        }
        let can_pause =
            guest.level == Level::Awake && !self.inner.no_freezer.load(Ordering::Relaxed);
        let after = rule.pause_after.filter(|_| can_pause)?;
        Some((Level::Paused, uses.can_pause(&guest.name, now, after)?))
    }

    async fn rest_due(&self, guest: &Guest, level: Level, packets: u64) -> Result<(), EngineError> {
        // The decision and this may be seconds apart.
        if level == Level::Asleep && self.packets_to(guest).await? != packets {
            return Ok(());
        }
        if self.rest(guest, level).await? && level == Level::Paused {
            return self.continue_if_reached(guest, packets).await;
        }
        Ok(())
    }

    async fn packets_to(&self, guest: &Guest) -> Result<u64, EngineError> {
        let traffic = self.inner.host.traffic.traffic().await?;
        let address = self.inner.address(guest);
        let counted = address.and_then(|address| traffic.get(&address).copied());
        Ok(counted.unwrap_or_default().to.packets)
    }

    /// Pauses a guest or puts it to sleep by the daemon's own decision, and returns when it rests. Returns false if it is in
    /// use, busy, or cannot rest; its idle time then starts again.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn rest(&self, guest: &Guest, level: Level) -> Result<bool, EngineError> {
        let name = &guest.name;
        let Some(_resting) = self.inner.resting.begin(name) else {
            return Ok(false);
        };
        let now = self.inner.started.elapsed();
        if let Some(used) = self.unmeasured_use(guest).await? {
            self.inner.uses.lock().used(name, now, used);
            return Ok(false);
        }
        if !self.is_prepared(guest, level).await {
            self.inner.uses.lock().used(name, now, Use::Operation);
            return Ok(false);
        }
        if self.inner.sessions.count(name) > 0 {
            self.conclude_rest(guest, false).await;
            return Ok(false);
        }
        let rests = self.change_level(guest, level).await?;
        if rests == Some(false) {
            self.inner
                .uses
                .lock()
                .postpone(name, self.inner.started.elapsed());
        }
        Ok(rests == Some(true))
    }

    /// Notes that a user wants a guest awake: its idle time starts again. Otherwise a guest that is woken while the host's
    /// memory runs short would rest again before anybody can use it.
    pub(crate) fn note_request(&self, name: &GuestName, actor: &str) {
        if actor != ACTOR {
            let now = self.inner.started.elapsed();
            self.inner.uses.lock().used(name, now, Use::Operation);
        }
    }

    /// Puts a guest to sleep although it is in use. Returns false if it is busy, or does not fall asleep.
    pub(crate) async fn sleep_in_use(&self, guest: &Guest) -> Result<bool, EngineError> {
        if !self.is_prepared(guest, Level::Asleep).await {
            return Ok(false);
        }
        let asleep = self.change_level(guest, Level::Asleep).await?;
        Ok(asleep == Some(true))
    }

    /// Lets a guest rest, and reports whether it does; `None` if it is busy.
    async fn change_level(&self, guest: &Guest, level: Level) -> Result<Option<bool>, EngineError> {
        let name = &guest.name;
        let accepted = match level {
            Level::Paused => self.pause(name, ACTOR).await,
            _ => self.sleep(name, ACTOR).await,
        };
        self.conclude_rest(guest, accepted.is_ok()).await;
        match accepted {
            Ok(accepted) => {
                let operation = self.ended_operation(accepted.operation).await?;
                Ok(Some(operation.state == OperationState::Done))
            }
            Err(EngineError::Store(StoreError::GuestBusy { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn conclude_rest(&self, guest: &Guest, accepted: bool) {
        if let Some(hooks) = self.inner.hooks.get()
            && guest.kind == GuestKind::Preview
        {
            hooks.after_rest(guest, accepted).await;
        }
    }

    async fn is_prepared(&self, guest: &Guest, level: Level) -> bool {
        let hooks = self.inner.hooks.get();
        let Some(hooks) = hooks.filter(|_| guest.kind == GuestKind::Preview) else {
            return true;
        };
        hooks
            .before_rest(guest, level)
            .await
            .unwrap_or_else(|failure| {
                warn!(guest = %guest.name, code = %failure.code, "it does not rest: {failure}");
                false
            })
    }

    /// Returns the use of a guest that readings do not show: a keepalive, or an open SSH session.
    async fn unmeasured_use(&self, guest: &Guest) -> Result<Option<Use>, EngineError> {
        if self.kept_awake(&guest.name).is_some() {
            return Ok(Some(Use::Kept));
        }
        Ok(match self.ssh_sessions(guest).await? {
            0 => None,
            number => Some(Use::Ssh(number)),
        })
    }

    pub(crate) async fn ssh_sessions(&self, guest: &Guest) -> Result<usize, EngineError> {
        let unit = self.inner.host.units.phase(&guest.name).await?;
        Ok(match unit.and_then(|unit| unit.leader) {
            Some(leader) => self.inner.host.network.ssh_sessions(guest, leader).await?,
            None => 0,
        })
    }

    /// Returns the reason for which the daemon does not let a guest rest, as a phrase such as `its idle policy is
    /// always-on`; `None` if it may.
    ///
    /// # Errors
    /// When the host cannot be queried.
    pub async fn exemption(&self, guest: &Guest) -> Result<Option<String>, EngineError> {
        if self.rule(guest) == RestRule::default() {
            return Ok(Some("its idle policy is always-on".to_owned()));
        }
        if self.kept_awake(&guest.name).is_some() {
            return Ok(Some(Use::Kept.to_string()));
        }
        let open = match self.inner.sessions.count(&guest.name) {
            0 => self.ssh_sessions(guest).await?,
            open => return Ok(Some(Use::Sessions(open).to_string())),
        };
        Ok((open > 0).then(|| Use::Ssh(open).to_string()))
    }
}
