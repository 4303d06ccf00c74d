//! The door pool: a few seats are kept ready at their doors, and a new guest takes one. [`crate::warm_pool`] keeps the others.

use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Code, Explain, Failure, Guest, Operation, UnitPhase, UserIdCount};
use innkeeper_store::{NewGuest, Seat, StoreError};
use tracing::{info, warn};

use crate::EngineError;
use crate::engine::Engine;

/// The pause before the next look while operations are in flight.
const PAUSE: Duration = Duration::from_millis(50);

/// The number of looks before a seat is made nevertheless.
const LOOKS: u32 = 40;

/// The interval of checks that the seats still wait.
const INTERVAL: Duration = Duration::from_secs(30);

/// The subject of the finding in `innkeeper doctor`.
const SUBJECT: &str = "door pool";

impl Engine {
    /// Keeps seats ready until the engine stops. Those of an earlier daemon are removed first: their settings may differ.
    pub async fn keep_seats(&self) {
        self.remove_seats().await;
        tokio::join!(self.keep_at_doors(), self.keep_warm(), self.exercise_warm());
    }

    async fn keep_at_doors(&self) {
        if self.seats_wanted() == 0 {
            return;
        }
        loop {
            let filled = self.fill_seats().await;
            if let Err(error) = &filled {
                warn!(code = %error.code(), "no seat at a door: {}", innkeeper_model::chain(error));
            }
            *self.inner.seats_failure.lock() = filled.err().as_ref().map(Failure::from);
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = self.inner.seats_changed.notified() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Removes the seats, and has others made, in a task: facts of the host changed that guests know from their start.
    pub(crate) fn spawn_renew_seats(&self) {
        let engine = self.clone();
        self.spawn(async move {
            engine.remove_seats().await;
            engine.inner.notify_seats_changed();
        });
    }

    /// Records a new guest at a seat, if one is ready and suits it.
    pub(crate) async fn record_at_seat(
        &self,
        new: &NewGuest,
        actor: &str,
    ) -> Result<Option<(Guest, Operation)>, StoreError> {
        let Some(closure) = new.closure.as_ref().filter(|_| new.origin.is_none()) else {
            return Ok(None);
        };
        let units = &self.inner.host.units;
        let fits_warm = self.fits_warm(new);
        let fits_door = self.seats_wanted() > 0 && units.fits_seat(new.kind, closure, &new.limits);
        if !fits_warm && !fits_door {
            return Ok(None);
        }
        // The room that a seat found when it was made may be gone. The ordinary path makes room, or refuses.
        if self.inner.host.rootfs.require_room().await.is_err() {
            return Ok(None);
        }
        for (fits, is_warm) in [(fits_warm, true), (fits_door, false)] {
            if !fits {
                continue;
            }
            let new = new.clone();
            let recorded = self.inner.store.create_guest_at_seat(new, is_warm, actor);
            match recorded.await {
                // Room is made for one without a seat.
                Err(error) if error.code() == Code::DiskFull => return Ok(None),
                Ok(None) => {}
                recorded => return recorded,
            }
        }
        Ok(None)
    }

    /// Records a guest with slots of its own. While none is free, guests that wait without a name give theirs up.
    pub(crate) async fn with_slot<T, F>(&self, record: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match record().await {
                Err(StoreError::NoSlotLeft { .. } | StoreError::NoSlotRun { .. })
                    if self.inner.discard_for_slot().await => {}
                result => return result,
            }
        }
    }

    /// Checks the door pool and the warm pool, as far as they are configured.
    pub(crate) async fn check_pools(&self) -> Result<Vec<Check>, EngineError> {
        let mut checks = Vec::from_iter(self.check_seats().await?);
        checks.extend(self.check_warm().await?);
        Ok(checks)
    }

    /// Checks that seats wait.
    async fn check_seats(&self) -> Result<Option<Check>, EngineError> {
        let configured = self.inner.config.seats;
        if configured == 0 {
            return Ok(None);
        }
        let check = |verdict, finding, remedy: Option<&str>| Check {
            subject: SUBJECT.to_owned(),
            verdict,
            finding,
            remedy: remedy.map(str::to_owned),
        };
        if self.seats_wanted() == 0 {
            return Ok(Some(check(
                Verdict::Warning,
                "no guest waits at its door: this needs file trees in directories, and guests with 65536 user ids".to_owned(),
                Some("Set pool.size to 0, or storage.driver to \"dir\" and guest.user_ids to 65536."),
            )));
        }
        let ready = self.ready_at_doors().await?;
        let failure = self.inner.seats_failure.lock().clone();
        Ok(Some(match failure {
            Some(failure) => Check {
                remedy: failure.remedy.clone(),
                ..check(
                    Verdict::Warning,
                    format!("{ready} of {configured} guests wait at their doors: {failure}"),
                    None,
                )
            },
            None => check(
                Verdict::Ok,
                format!("{ready} of {configured} guests wait at their doors"),
                None,
            ),
        }))
    }

    /// Returns the number of seats to keep: none where guests cannot take them.
    fn seats_wanted(&self) -> usize {
        match self.can_take_seats() {
            true => self.inner.config.seats,
            false => 0,
        }
    }

    /// Reports whether guests with the default limits can take seats.
    pub(crate) fn can_take_seats(&self) -> bool {
        let inner = &self.inner;
        inner.host.rootfs.renames()
            && inner.config.limits.user_ids == UserIdCount::MIN
            && !inner.config.limits.nesting
    }

    /// Returns the seats at their doors that no guest has taken.
    async fn at_doors(&self) -> Result<Vec<Seat>, EngineError> {
        let mut seats = self.inner.store.seats().await?;
        seats.retain(|seat| seat.closure.is_none() && seat.guest.is_none());
        Ok(seats)
    }

    async fn ready_at_doors(&self) -> Result<usize, EngineError> {
        let seats = self.at_doors().await?;
        Ok(seats.iter().filter(|seat| seat.ready).count())
    }

    async fn fill_seats(&self) -> Result<(), EngineError> {
        // No seat is made while remains of another one are left. Those that a guest has taken are not removed.
        for Seat { slot, ready, .. } in self.at_doors().await? {
            if !ready || !self.inner.is_seat_alive(slot, UnitPhase::AtDoor).await? {
                self.inner.remove_seat(slot).await?;
            }
        }
        while self.ready_at_doors().await? < self.seats_wanted() {
            self.await_quiet().await;
            if self.inner.stopping.is_cancelled() {
                return Ok(());
            }
            self.inner.make_seat().await?;
        }
        Ok(())
    }

    /// Lets operations in flight come first, for a while: a build may take hours.
    pub(crate) async fn await_quiet(&self) {
        for _ in 0..LOOKS {
            if self.inner.in_flight.lock().is_empty() || self.inner.stopping.is_cancelled() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes all seats that no guest has taken.
    async fn remove_seats(&self) {
        let seats = match self.inner.store.seats().await {
            Ok(seats) => seats,
            Err(error) => return warn!(code = %error.code(), "{}", innkeeper_model::chain(&error)),
        };
        let count = seats.len();
        for seat in seats {
            if let Err(error) = self.inner.remove_seat(seat.slot).await {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
            }
        }
        if count > 0 {
            info!(count, "removed the guests that waited without a name");
        }
    }
}
