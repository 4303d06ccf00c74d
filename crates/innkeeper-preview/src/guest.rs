//! A preview's guest, running, with the closure of the version that is to be served.

use innkeeper_model::api::GuestView;
use innkeeper_model::{
    Addresses, Code, DesiredState, Explain, Guest, GuestKind, GuestName, GuestState,
    OperationState, StorePath, Verb,
};
use std::net::Ipv4Addr;

use innkeeper_engine::EngineError;
use innkeeper_model::api::Accepted;

use crate::PreviewError;
use crate::previews::{ACTOR, Inner};

/// How often the guest is looked at before its changes count as a fault. Each look may find it in another
/// state: being restored after a reboot, ended by itself, stopped by somebody.
const LOOKS: usize = 10;

impl Inner {
    /// Makes the guest run with this closure and returns its record. One that has another closure is stopped
    /// and started with this one; what is on its disk stays.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn ensure_guest(
        &self,
        slug: &GuestName,
        closure: &StorePath,
    ) -> Result<Guest, PreviewError> {
        for _ in 0..LOOKS {
            self.settled_guest(slug).await?;
            let Some(view) = self.guest_view(slug).await? else {
                let created = self.engine.create_preview(slug, closure, ACTOR).await;
                self.done(created).await?;
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
                    self.done(self.engine.destroy(slug, true, ACTOR).await)
                        .await?;
                }
                (DesiredState::Running, GuestState::Running)
                    if guest.closure.as_ref() == Some(closure) =>
                {
                    return Ok(guest);
                }
                (DesiredState::Running, _) if guest.closure.as_ref() != Some(closure) => {
                    self.done(self.engine.stop(slug, ACTOR).await).await?;
                }
                (DesiredState::Running | DesiredState::Stopped, _) => {
                    self.engine.set_closure(slug, closure).await?;
                    self.done(self.engine.start(slug, ACTOR).await).await?;
                }
            }
        }
        Err(changes_all_the_time(slug))
    }

    /// Waits for the end of whatever is done to the guest; how that was is seen then.
    async fn settled_guest(&self, slug: &GuestName) -> Result<(), PreviewError> {
        while let Some(operation) = self.engine.operation_on(slug).await? {
            self.engine.ended_operation(operation.id).await?;
        }
        Ok(())
    }

    /// Removes the guest with everything of it.
    ///
    /// # Errors
    /// When something of it is left.
    pub(crate) async fn remove_guest(&self, slug: &GuestName) -> Result<(), PreviewError> {
        match self.engine.destroy(slug, true, ACTOR).await {
            Err(error) if error.code() == Code::GuestNotFound => Ok(()),
            accepted => self.done(accepted).await,
        }
    }

    /// Whether somebody stopped the guest (`preview stop`) and nothing has started it since. A guest that ended by
    /// itself, did not start or was stopped by a worker is not meant to stay down.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn is_stopped_by_request(
        &self,
        slug: &GuestName,
    ) -> Result<bool, PreviewError> {
        let guest = self.store.guest(slug).await?;
        if guest.is_none_or(|guest| guest.desired != DesiredState::Stopped) {
            return Ok(false);
        }
        let last = self.store.last_operation_on(slug).await?;
        Ok(last.is_some_and(|last| last.verb == Verb::Stop && last.actor != ACTOR))
    }

    /// Stops the guest, if there is one that should run.
    ///
    /// # Errors
    /// When it does not stop.
    pub(crate) async fn stop_guest(&self, slug: &GuestName) -> Result<(), PreviewError> {
        for _ in 0..LOOKS {
            self.settled_guest(slug).await?;
            match self.guest_view(slug).await? {
                Some(view) if view.guest.desired == DesiredState::Running => {
                    self.done(self.engine.stop(slug, ACTOR).await).await?;
                }
                _ => return Ok(()),
            }
        }
        Err(changes_all_the_time(slug))
    }

    /// The guest as it is, if there is one.
    pub(crate) async fn guest_view(
        &self,
        slug: &GuestName,
    ) -> Result<Option<GuestView>, PreviewError> {
        match self.engine.show(slug).await {
            Ok(view) => Ok(Some(view)),
            Err(error) if error.code() == Code::GuestNotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The address that the guest of a slot has.
    ///
    /// # Errors
    /// When the slot is not in the host's range (any more). There is no address to stand in for it: 0.0.0.0 would be
    /// the host itself, with all that listens on its loopback.
    pub(crate) fn address(&self, guest: &Guest) -> Result<Ipv4Addr, PreviewError> {
        self.addresses(guest).map(|addresses| addresses.guest)
    }

    /// The addresses of both ends.
    ///
    /// # Errors
    /// As for [`Self::address`].
    pub(crate) fn addresses(&self, guest: &Guest) -> Result<Addresses, PreviewError> {
        self.config.range.addresses(guest.slot).ok_or_else(|| {
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

    /// Waits until the engine has done what it accepted. That somebody else works on the guest meanwhile is no
    /// failure: the next look shows what came of it.
    async fn done(&self, accepted: Result<Accepted, EngineError>) -> Result<(), PreviewError> {
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

fn changes_all_the_time(slug: &GuestName) -> PreviewError {
    PreviewError::new(
        Code::GuestBusy,
        format!("guest '{slug}' changes all the time"),
        format!("`innkeeper events --guest {slug}` shows what is done to it."),
    )
}
