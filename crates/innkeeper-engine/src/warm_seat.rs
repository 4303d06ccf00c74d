//! One warm seat: a guest without a name that has booted its closure, came up and was paused. It was never used.

use std::time::{Duration, Instant};

use innkeeper_model::{Explain, Guest, GuestName, Slot, StorePath};
use innkeeper_store::Seat;
use tracing::{info, warn};

use crate::EngineError;
use crate::inner::Inner;

/// The time without new warm guests after some were removed to make room.
const HOLD: Duration = Duration::from_secs(60);

impl Inner {
    /// Boots a seat with a closure, and pauses it once its system is up. If that fails, removes its objects; what is left is removed
    /// by the next daemon. Has no effect on a seat that is removed meanwhile.
    pub(crate) async fn make_warm_seat(&self, closure: &StorePath) -> Result<(), EngineError> {
        let slot = self.record_seat(Some(closure)).await?;
        let made = self.warm_up(slot, closure).await;
        match made {
            Err(_) if !self.is_recorded(slot).await? => Ok(()),
            Ok(true) => Ok(()),
            made => {
                self.remove_seat(slot).await?;
                made.map(drop)
            }
        }
    }

    /// Reports whether the seat is ready. It is not if it was removed meanwhile, or others need what it takes.
    async fn warm_up(&self, slot: Slot, closure: &StorePath) -> Result<bool, EngineError> {
        let seat = self.guest_at(slot, Some(closure))?;
        if !self.boot_seat(&seat).await? {
            return Ok(false);
        }
        // Without its lock, and no start of a guest waits: this may take minutes, and the seat may be removed meanwhile.
        let settle = self.await_settled(&seat);
        self.seat_step("seat-settle", settle).await?;
        self.note_warm_memory(&seat.name);
        let _seat = self.guest_locks.lock(&seat.name).await;
        let _activity = self.activity.read().await;
        if self.is_warm_held() || !self.is_recorded(slot).await? {
            return Ok(false);
        }
        let freeze = self.freeze_seat(&seat.name);
        self.seat_step("seat-freeze", freeze).await?;
        self.record_ready(slot).await?;
        Ok(true)
    }

    /// Starts the init of a seat. Reports whether it still exists.
    async fn boot_seat(&self, seat: &Guest) -> Result<bool, EngineError> {
        let _start = self.starts.acquire().await.ok();
        let _seat = self.guest_locks.lock(&seat.name).await;
        let _activity = self.activity.read().await;
        if !self.is_recorded(seat.slot).await? {
            return Ok(false);
        }
        self.place(seat).await?;
        let release = async { Ok(self.host.units.release(&seat.name, None).await?) };
        self.seat_step("seat-release", release).await?;
        Ok(true)
    }

    async fn freeze_seat(&self, seat: &GuestName) -> Result<(), EngineError> {
        match self.host.units.freeze(seat).await? {
            true => Ok(()),
            false => {
                self.lacks_freezer();
                Err(EngineError::NoFreezer(seat.clone()))
            }
        }
    }

    /// Gives a guest what it has beside the network and the unit of its seat, whose tree it has: GC root, names, keys and
    /// credentials. Its processes are suspended, or have not served anybody. Can be repeated.
    pub(crate) async fn take_identity(
        &self,
        seat: &GuestName,
        guest: &Guest,
        closure: &StorePath,
    ) -> Result<(), EngineError> {
        let take = async {
            let host = &self.host;
            let pin = async {
                host.closures.ensure(guest, closure).await?;
                host.closures.remove(seat).await
            };
            let (pinned, key) = tokio::join!(pin, host.secrets.take_over(guest, seat));
            pinned?;
            Ok(self.store.set_ssh_host_key(&guest.name, &key?).await?)
        };
        self.seat_step("take-identity", take).await
    }

    /// Lets the counts of a guest that took a warm seat begin now.
    pub(crate) async fn begin_use(&self, guest: &Guest) -> Result<(), EngineError> {
        let (host, name) = (&self.host, &guest.name);
        // The packets of its boot are not the guest's.
        if let Some(address) = self.address(guest) {
            host.traffic.forget(address).await?;
        }
        self.oom.begin(name, host.units.oom_kills(name));
        let unit = host.units.phase(name).await?;
        // Its service manager has responded before it was paused.
        if let Some(leader) = unit.and_then(|unit| unit.leader) {
            self.responsive.lock().insert(name.clone(), leader);
        }
        Ok(())
    }

    /// Lets the processes of a free seat run for a moment. Service managers end services that were silent for too long, and cannot know
    /// that they were suspended. A guest may take the seat meanwhile.
    pub(crate) async fn exercise(&self, slot: Slot, pause: Duration) -> Result<(), EngineError> {
        let seat = GuestName::of_seat(slot);
        {
            let _seat = self.guest_locks.lock(&seat).await;
            if !self.is_recorded(slot).await? {
                return Ok(());
            }
            self.host.units.thaw(&seat).await?;
        }
        tokio::time::sleep(pause).await;
        let _seat = self.guest_locks.lock(&seat).await;
        match self.is_recorded(slot).await? {
            true => self.freeze_seat(&seat).await,
            false => Ok(()),
        }
    }

    /// Removes the warm seats, and makes none for a while: a guest needs what they take. Leaves one alone whose objects are being made
    /// at this moment. Returns the number of those that are gone.
    pub(crate) async fn discard_warm(&self) -> usize {
        if self.config.warm.guests.is_empty() {
            return 0;
        }
        *self.warm.held.lock() = Some(Instant::now());
        let mut removed = 0;
        for seat in self.free_seats().await {
            if seat.closure.is_some() {
                removed += usize::from(self.discard(seat.slot).await);
            }
        }
        if removed > 0 {
            info!(
                count = removed,
                "removed warm guests: others need their memory or disk"
            );
        }
        removed
    }

    /// Removes one seat, because a guest needs its slot: a warm one before one at its door. Returns false without any.
    pub(crate) async fn discard_for_slot(&self) -> bool {
        *self.warm.held.lock() = Some(Instant::now());
        let mut seats = self.free_seats().await;
        seats.sort_by_key(|seat| (seat.closure.is_none(), !seat.ready));
        for seat in seats {
            if self.discard(seat.slot).await {
                return true;
            }
        }
        false
    }

    /// Returns the seats that no guest has taken, also those that are not ready.
    async fn free_seats(&self) -> Vec<Seat> {
        match self.store.seats().await {
            Ok(mut seats) => {
                seats.retain(|seat| seat.guest.is_none());
                seats
            }
            Err(error) => {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                Vec::new()
            }
        }
    }

    /// Removes a seat unless its lock is held. Reports whether it is gone, or was taken.
    async fn discard(&self, slot: Slot) -> bool {
        if self
            .guest_locks
            .try_lock(&GuestName::of_seat(slot))
            .is_none()
        {
            return false;
        }
        match self.remove_seat(slot).await {
            Ok(()) => true,
            Err(error) => {
                warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                false
            }
        }
    }

    /// Reports whether warm guests were removed a moment ago to make room.
    pub(crate) fn is_warm_held(&self) -> bool {
        let held = *self.warm.held.lock();
        held.is_some_and(|since| since.elapsed() < HOLD)
    }

    fn note_warm_memory(&self, seat: &GuestName) {
        if let Some(bytes) = self.host.units.memory(seat) {
            let mut memory = self.warm.memory.lock();
            *memory = (*memory).max(bytes);
        }
    }
}
