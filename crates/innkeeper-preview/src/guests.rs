//! The guests of previews: one runs the closure of the version that is served.

use std::net::Ipv4Addr;

use innkeeper_engine::{Engine, EngineError};
use innkeeper_model::api::{Accepted, GuestView};
use innkeeper_model::{
    Addresses, Code, DesiredState, Explain, Guest, GuestKind, GuestName, GuestState, Level,
    OperationState, SlotRange, StorePath, UnitPhase, Verb,
};

use crate::PreviewError;

/// Actor of the operations that previews start on their guests.
const ACTOR: &str = "previews";

/// Number of looks at the guest before its changes count as a fault. Each look may find it in another state: being
/// restored after a reboot, ended by itself, stopped by a user.
const LOOKS: usize = 10;

/// The intent that keeps a guest down, or paused: only a new version or a command overrides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldBack {
    /// A user stopped it.
    Stopped,
    /// It is at this level, or about to be.
    Resting(Level),
}

/// Guests of previews.
#[derive(Clone)]
pub(crate) struct Guests {
    engine: Engine,
    range: SlotRange,
}

impl Guests {
    pub(crate) fn new(engine: Engine, range: SlotRange) -> Self {
        Self { engine, range }
    }

    /// Has the guest run this closure. A guest with another closure is stopped and started with this one; its files stay.
    /// Unless `overrides` is set, a guest that is held back stays as it is, and the reason is returned.
    ///
    /// # Errors
    /// The guest does not start.
    pub(crate) async fn ensure(
        &self,
        slug: &GuestName,
        closure: &StorePath,
        overrides: bool,
    ) -> Result<Option<HeldBack>, PreviewError> {
        for _ in 0..LOOKS {
            self.await_operations(slug).await?;
            if !overrides && let Some(held) = self.held_back(slug).await? {
                return Ok(Some(held));
            }
            let Some(view) = self.view(slug).await? else {
                let created = self.engine.create_preview(slug, closure, ACTOR).await;
                self.finished(created).await?;
                continue;
            };
            let guest = view.guest;
            if guest.kind != GuestKind::Preview {
                return Err(PreviewError::new(
                    Code::SlugConflict,
                    format!("an agent is named '{slug}'"),
                    "Choose another slug with `preview create --slug`; `agent list` shows the agents.",
                ));
            }
            match (guest.desired, view.state) {
                (DesiredState::Absent, _) => {
                    self.finished(self.engine.destroy(slug, true, ACTOR).await)
                        .await?;
                }
                (DesiredState::Running, GuestState::Running)
                    if guest.closure.as_ref() == Some(closure) =>
                {
                    return Ok(None);
                }
                (DesiredState::Running, _) if guest.closure.as_ref() != Some(closure) => {
                    self.finished(self.engine.stop(slug, ACTOR).await).await?;
                }
                (DesiredState::Running | DesiredState::Stopped, _) => {
                    self.engine.set_closure(slug, closure).await?;
                    self.finished(self.engine.start(slug, ACTOR).await).await?;
                }
            }
        }
        Err(keeps_changing(slug))
    }

    /// Lets the guest start at once that would wait for its turn after a reboot of the host.
    pub(crate) fn hasten(&self, slug: &GuestName) {
        self.engine.hasten(slug);
    }

    /// Waits until no operation works on the guest. The next look shows the result.
    async fn await_operations(&self, slug: &GuestName) -> Result<(), PreviewError> {
        while let Some(operation) = self.engine.operation_on(slug).await? {
            self.engine.ended_operation(operation.id).await?;
        }
        Ok(())
    }

    /// Removes the guest with all its resources.
    ///
    /// # Errors
    /// A resource is left.
    pub(crate) async fn remove(&self, slug: &GuestName) -> Result<(), PreviewError> {
        match self.engine.destroy(slug, true, ACTOR).await {
            Err(error) if error.code() == Code::GuestNotFound => Ok(()),
            accepted => self.finished(accepted).await,
        }
    }

    /// Reports whether a user stopped the guest (`preview stop`) and it was not started since. A guest that ended by
    /// itself, did not start or was stopped by a worker must not stay down.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn is_stopped_by_user(&self, slug: &GuestName) -> Result<bool, PreviewError> {
        let store = self.engine.store();
        let guest = store.guest(slug).await?;
        if guest.is_none_or(|guest| guest.desired != DesiredState::Stopped) {
            return Ok(false);
        }
        let last = store.last_operation_on(slug).await?;
        Ok(last.is_some_and(|last| last.verb == Verb::Stop && last.actor != ACTOR))
    }

    /// Reports whether a request is starting or waking the guest.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn is_being_started(&self, slug: &GuestName) -> Result<bool, PreviewError> {
        let operation = self.engine.operation_on(slug).await?;
        Ok(operation.is_some_and(|running| matches!(running.verb, Verb::Start | Verb::Wake)))
    }

    /// Returns the intent that keeps the guest from running.
    ///
    /// # Errors
    /// The store or the host cannot be queried.
    pub(crate) async fn held_back(
        &self,
        slug: &GuestName,
    ) -> Result<Option<HeldBack>, PreviewError> {
        if self.is_stopped_by_user(slug).await? {
            return Ok(Some(HeldBack::Stopped));
        }
        let Some(view) = self.view(slug).await? else {
            return Ok(None);
        };
        let level = view.guest.rests().map(|level| match view.unit {
            Some(UnitPhase::Running) => level,
            // A paused guest that has lost its processes falls asleep.
            _ => Level::Asleep,
        });
        Ok(level.map(HeldBack::Resting))
    }

    /// Stops the guest, if one should run.
    ///
    /// # Errors
    /// The guest does not stop.
    pub(crate) async fn stop(&self, slug: &GuestName) -> Result<(), PreviewError> {
        for _ in 0..LOOKS {
            self.await_operations(slug).await?;
            match self.view(slug).await? {
                Some(view) if view.guest.desired == DesiredState::Running => {
                    self.finished(self.engine.stop(slug, ACTOR).await).await?;
                }
                _ => return Ok(()),
            }
        }
        Err(keeps_changing(slug))
    }

    /// Returns the guest's record.
    ///
    /// # Errors
    /// The guest does not exist, or the store cannot be read.
    pub(crate) async fn record(&self, slug: &GuestName) -> Result<Guest, PreviewError> {
        Ok(self.engine.guest(slug).await?)
    }

    /// Returns the guest as observed, if it exists.
    ///
    /// # Errors
    /// The store or the host cannot be queried.
    pub(crate) async fn view(&self, slug: &GuestName) -> Result<Option<GuestView>, PreviewError> {
        match self.engine.show(slug).await {
            Ok(view) => Ok(Some(view)),
            Err(error) if error.code() == Code::GuestNotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns why the daemon let the guest rest, as a clause.
    pub(crate) async fn rest_reason(&self, slug: &GuestName) -> Option<String> {
        self.engine.rest_reason(slug).await.ok().flatten()
    }

    /// Returns the guest's first process, which is another one after each start. `None` while it does not run.
    ///
    /// # Errors
    /// The host cannot be queried.
    pub(crate) async fn leader(&self, slug: &GuestName) -> Result<Option<u32>, PreviewError> {
        Ok(self.engine.leader(slug).await?)
    }

    /// Returns the guest's address.
    ///
    /// # Errors
    /// The slot is not in the host's range (any more). No address can stand in for it: 0.0.0.0 would be the host itself,
    /// with every service on its loopback.
    pub(crate) fn address(&self, guest: &Guest) -> Result<Ipv4Addr, PreviewError> {
        self.addresses(guest).map(|addresses| addresses.guest)
    }

    /// Returns the addresses of both ends.
    ///
    /// # Errors
    /// As for [`Self::address`].
    pub(crate) fn addresses(&self, guest: &Guest) -> Result<Addresses, PreviewError> {
        self.range.addresses(guest.slot).ok_or_else(|| {
            PreviewError::new(
                Code::InvalidConfig,
                format!(
                    "guest '{}' has a slot that network.subnet does not have",
                    guest.name
                ),
                "Give network.subnet its former value in innkeeperd's configuration.",
            )
        })
    }

    /// Waits for the end of an operation that the engine accepted. Another operation on the guest is no failure: the
    /// next look shows its result.
    async fn finished(&self, accepted: Result<Accepted, EngineError>) -> Result<(), PreviewError> {
        let busy = |code| {
            matches!(
                code,
                Code::GuestBusy | Code::GuestExists | Code::GuestNotFound
            )
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) if busy(error.code()) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let operation = self.engine.ended_operation(accepted.operation).await?;
        match (operation.state, operation.failure) {
            (OperationState::Failed, Some(failure)) if !busy(failure.code) => Err(failure.into()),
            _ => Ok(()),
        }
    }
}

fn keeps_changing(slug: &GuestName) -> PreviewError {
    PreviewError::new(
        Code::GuestBusy,
        format!("guest '{slug}' keeps changing"),
        format!("`innkeeper events --guest {slug}` shows its operations."),
    )
}
