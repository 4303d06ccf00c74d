//! Seats: guests without a name that wait until a new guest takes their place, at their doors or with a closure that they have
//! booted. A seat is named by its slot ([`GuestName::of_seat`]).

use innkeeper_model::{Guest, GuestName, Operation, Slot, StorePath, Verb};

use super::Store;
use super::guests::{begin, refuse_taken};
use crate::database::Durability;
use crate::error::StoreError;
use crate::sql::guests::NewGuest;
use crate::sql::seats::Seat;
use crate::sql::{held, seats, slots};

/// The most slots that are skipped because guests have the names of their seats.
const MAX_SKIPPED: u32 = 100;

impl Store {
    /// Records a seat that is about to be made, and reserves its slot. With `closure`, it is to boot that. Durable.
    ///
    /// # Errors
    /// [`StoreError::NoSlotLeft`].
    pub async fn add_seat(&self, closure: Option<&StorePath>) -> Result<Slot, StoreError> {
        let (range, closure) = (self.range, closure.cloned());
        self.insert("record a seat", move |transaction| {
            let mut skipped = 0;
            loop {
                let slot = slots::take(transaction, range, 1)?;
                let name = GuestName::of_seat(slot);
                if !seats::is_used(transaction, &name)?
                    && !held::has_any(transaction, std::slice::from_ref(&name))?
                {
                    seats::insert(transaction, slot, closure.as_ref())?;
                    return Ok(slot);
                }
                // The counter has moved on. The slot is the oldest free one at the earliest after a round.
                slots::free(transaction, slot.number())?;
                skipped += 1;
                if skipped > MAX_SKIPPED {
                    let capacity = range.capacity();
                    return Err(StoreError::NoSlotLeft {
                        subnet: range,
                        capacity,
                    }
                    .into());
                }
            }
        })
        .await
    }

    /// Records whether a guest can take a seat. Reports whether the seat exists and no guest has taken it. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn set_seat_ready(&self, slot: Slot, ready: bool) -> Result<bool, StoreError> {
        self.write("record a seat", Durability::Now, move |transaction| {
            seats::set_ready(transaction, slot, ready)
        })
        .await
    }

    /// Records that no guest can take any of the present seats. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn retire_seats(&self) -> Result<(), StoreError> {
        let action = "retire the seats";
        self.write(action, Durability::Now, seats::retire).await
    }

    /// Records a new guest as [`Store::create_guest`] does, with the slot of a seat that is ready: one that has booted the guest's
    /// closure if `is_warm`, or one at its door. Returns `None` if none is ready. Durable. The guest has the seat until
    /// [`Store::leave_seat`].
    ///
    /// # Errors
    /// As [`Store::create_guest`].
    pub async fn create_guest_at_seat(
        &self,
        new: NewGuest,
        is_warm: bool,
        actor: &str,
    ) -> Result<Option<(Guest, Operation)>, StoreError> {
        let actor = actor.to_owned();
        self.insert("record a guest", move |transaction| {
            refuse_taken(transaction, &new)?;
            held::refuse(transaction, &new.name)?;
            let closure = new.closure.as_ref().filter(|_| is_warm);
            if is_warm && closure.is_none() {
                return Ok(None);
            }
            let Some(slot) = seats::take(transaction, &new.name, closure)? else {
                return Ok(None);
            };
            begin(transaction, slot, new, None, Verb::Create, &actor).map(Some)
        })
        .await
    }

    /// Returns the seat that a guest has taken.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn seat_of(&self, guest: &GuestName) -> Result<Option<Seat>, StoreError> {
        let guest = guest.clone();
        self.read("read a guest's seat", move |connection| {
            seats::of(connection, &guest)
        })
        .await
    }

    /// Deletes the seat that a guest has taken: all of its objects have the guest's name.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn leave_seat(&self, guest: &GuestName) -> Result<(), StoreError> {
        let guest = guest.clone();
        self.write("delete a seat", Durability::Soon, move |transaction| {
            seats::leave(transaction, &guest)
        })
        .await
    }

    /// Deletes a seat that no guest has taken, and frees its slot. Durable. Call it when every object of the seat is observed to be
    /// gone.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn delete_seat(&self, slot: Slot) -> Result<(), StoreError> {
        self.write("delete a seat", Durability::Now, move |transaction| {
            if seats::delete(transaction, slot)? {
                slots::free(transaction, slot.number())?;
            }
            Ok(())
        })
        .await
    }

    /// Returns all seats, also those that a guest has taken and not left.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn seats(&self) -> Result<Vec<Seat>, StoreError> {
        self.read("read the seats", seats::list).await
    }
}
