//! When idle guests rest: the rules, and what the engine remembers about their rest.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper_model::{Failure, Guest, GuestKind, GuestName, IdlePolicy, Level};
use parking_lot::Mutex;

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
    pub(crate) fn rule(&self, guest: &Guest) -> RestRule {
        let kind = match guest.kind {
            GuestKind::Agent => self.agents,
            GuestKind::Preview => self.previews,
        };
        let after = |time: Duration| (!time.is_zero()).then_some(time);
        match kind.idle {
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
