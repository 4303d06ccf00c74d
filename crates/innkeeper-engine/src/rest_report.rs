//! The report of the uses that keep a guest awake, and of the time when it rests.

use std::time::Duration;

use innkeeper_model::{DesiredState, GuestName, IdlePolicy, Level, RestReport};

use crate::EngineError;
use crate::engine::Engine;

impl Engine {
    /// Records the use of a guest's idle time; `None` for that of its kind.
    ///
    /// # Errors
    /// When the guest does not exist.
    pub async fn set_idle_policy(
        &self,
        name: &GuestName,
        policy: Option<IdlePolicy>,
    ) -> Result<(), EngineError> {
        Ok(self.inner.store.set_idle_policy(name, policy).await?)
    }

    /// Reports what keeps a guest awake, and when it rests if it is not used.
    ///
    /// # Errors
    /// When the guest does not exist, or the host cannot be queried.
    pub async fn rest_report(&self, name: &GuestName) -> Result<RestReport, EngineError> {
        let view = self.show(name).await?;
        let guest = &view.guest;
        let now = self.inner.started.elapsed();
        let (usage, unreached) = {
            let uses = self.inner.uses.lock();
            (uses.usage(name), uses.unreached(name, now))
        };
        let idle = usage.map(|usage| now.saturating_sub(usage.used_at));
        let kept_awake_by = self.exemption(guest).await?;
        let may_rest = guest.desired == DesiredState::Running && kept_awake_by.is_none();
        let left = |after: Option<Duration>, idle: Option<Duration>| {
            let (after, idle) = after.zip(idle).filter(|_| may_rest)?;
            Some(after.saturating_sub(idle).as_secs())
        };
        let rule = self.rule(guest);
        let pause_after = rule.pause_after.filter(|_| guest.level == Level::Awake);
        Ok(RestReport {
            name: name.clone(),
            state: view.state,
            idle_policy: self.policy(guest),
            is_own_policy: guest.idle_policy.is_some(),
            idle_seconds: idle.map(|idle| idle.as_secs()),
            last_use: usage.map(|usage| usage.by.to_string()),
            keepalive_seconds: self.kept_awake(name).map(|left| left.as_secs()),
            pause_in_seconds: left(pause_after, idle),
            sleep_in_seconds: left(rule.sleep_after, idle.zip(unreached).map(|(a, b)| a.min(b))),
            kept_awake_by,
        })
    }
}
