//! When idle guests rest: the rules, and what the engine remembers about their rest.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use innkeeper_model::{Failure, Guest, GuestKind, GuestName, IdlePolicy, Level};
use parking_lot::Mutex;

use crate::EngineError;

/// The actor of the daemon's own operations.
pub(crate) const ACTOR: &str = "innkeeperd";

/// When idle guests rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestConfig {
    /// Agents.
    pub agents: KindRest,
    /// Previews.
    pub previews: KindRest,
}

/// When idle guests of one kind rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRest {
    /// The policy of guests without one of their own.
    pub idle: IdlePolicy,
    /// The idle time after which a guest is paused; zero means never.
    pub pause_after: Duration,
    /// The idle time after which a guest is put to sleep; zero means never.
    pub sleep_after: Duration,
}

impl Default for KindRest {
    /// No guest rests by itself.
    fn default() -> Self {
        Self {
            idle: IdlePolicy::AlwaysOn,
            pause_after: Duration::from_secs(300),
            sleep_after: Duration::from_secs(2100),
        }
    }
}

/// When a guest rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RestRule {
    pub(crate) pause_after: Option<Duration>,
    pub(crate) sleep_after: Option<Duration>,
}

impl RestConfig {
    fn of(&self, kind: GuestKind) -> KindRest {
        match kind {
            GuestKind::Agent => self.agents,
            GuestKind::Preview => self.previews,
        }
    }

    pub(crate) fn policy(&self, guest: &Guest) -> IdlePolicy {
        guest.idle_policy.unwrap_or(self.of(guest.kind).idle)
    }

    pub(crate) fn rule(&self, guest: &Guest) -> RestRule {
        let kind = self.of(guest.kind);
        let after = |time: Duration| (!time.is_zero()).then_some(time);
        match self.policy(guest) {
            IdlePolicy::AlwaysOn => RestRule::default(),
            IdlePolicy::Pause => RestRule {
                pause_after: after(kind.pause_after),
                sleep_after: None,
            },
            IdlePolicy::Sleep => RestRule {
                pause_after: after(kind.pause_after),
                sleep_after: after(kind.sleep_after),
            },
        }
    }
}

/// The part of a rest that previews add.
#[async_trait]
pub trait LevelHooks: Send + Sync {
    /// Prepares a preview's guest for a level that the daemon chose. Reports whether the guest may rest: not while the preview
    /// is being changed.
    ///
    /// # Errors
    /// When the preparation fails. The guest stays awake.
    async fn before_rest(&self, guest: &Guest, level: Level) -> Result<bool, Failure>;

    /// Follows a rest that was prepared, and accepted or refused.
    async fn after_rest(&self, guest: &Guest, accepted: bool);

    /// Wakes a preview's guest that received a packet while it was asleep, and its app. Returns when the guest's processes run.
    ///
    /// # Errors
    /// When the guest does not wake.
    async fn wake(&self, guest: &GuestName) -> Result<(), EngineError>;

    /// Receives the previews' guests that were in use since the last call, at intervals of a minute or less.
    async fn used(&self, guests: &[GuestName]);
}

/// The guests that the daemon lets rest at this moment.
#[derive(Debug, Default)]
pub(crate) struct Resting(Mutex<HashSet<GuestName>>);

/// Removes a guest from [`Resting`] when it is dropped.
pub(crate) struct Rests<'a> {
    resting: &'a Resting,
    guest: &'a GuestName,
}

impl Resting {
    /// Notes that the daemon lets a guest rest, until the result is dropped. `None` if it does so already.
    pub(crate) fn begin<'a>(&'a self, guest: &'a GuestName) -> Option<Rests<'a>> {
        let resting = self;
        (self.0.lock().insert(guest.clone())).then_some(Rests { resting, guest })
    }

    pub(crate) fn has(&self, guest: &GuestName) -> bool {
        self.0.lock().contains(guest)
    }
}

impl Drop for Rests<'_> {
    fn drop(&mut self) {
        self.resting.0.lock().remove(self.guest);
    }
}

/// The ends of keepalives. The store has them too, in running time.
#[derive(Debug, Default)]
pub(crate) struct Keepalives(Mutex<HashMap<GuestName, Instant>>);

impl Keepalives {
    /// Sets the end of a guest's keepalive, `left` from now; `None` for none.
    pub(crate) fn set(&self, guest: &GuestName, left: Option<Duration>) {
        let mut ends = self.0.lock();
        let now = Instant::now();
        ends.retain(|_, end| *end > now);
        match left {
            Some(left) => ends.insert(guest.clone(), now + left),
            None => ends.remove(guest),
        };
    }

    /// Returns how long a keepalive lasts from now; `None` without one.
    pub(crate) fn left(&self, guest: &GuestName) -> Option<Duration> {
        let end = *self.0.lock().get(guest)?;
        let left = end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
