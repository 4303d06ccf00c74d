//! Views of guests and of the daemon.

use std::collections::HashMap;

use innkeeper_facilities::UnitSeen;
use innkeeper_model::api::{GuestView, SlotReport, Status};
use innkeeper_model::{Guest, GuestName, GuestState, UnitPhase};
use jiff::Timestamp;

use crate::EngineError;
use crate::engine::Engine;

impl Engine {
    /// Returns every guest, by name.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn list(&self) -> Result<Vec<GuestView>, EngineError> {
        // Read the host first: a guest that is created in between is shown as starting, not as failed.
        let units = self.inner.host.units.phases().await?;
        let units: HashMap<_, _> = units
            .into_iter()
            .map(|unit| (unit.guest.clone(), unit))
            .collect();
        let guests = self.inner.store.guests().await?;
        Ok(guests
            .into_iter()
            .map(|guest| {
                let unit = units.get(&guest.name);
                self.view(guest, unit)
            })
            .collect())
    }

    /// Returns one guest, after an update of the record of its own system.
    ///
    /// # Errors
    /// When the guest does not exist, or the host cannot be queried.
    pub async fn show(&self, name: &GuestName) -> Result<GuestView, EngineError> {
        let mut guest = self.guest(name).await?;
        let unit = self.inner.host.units.phase(name).await?;
        let runs = unit
            .as_ref()
            .is_some_and(|unit| unit.phase == UnitPhase::Running);
        // While an operation has the lock, it decides.
        if runs && let Some(_guest) = self.inner.guest_locks.try_lock(name) {
            // Read again: the guest may have changed before the lock.
            self.inner.follow_own_system(&self.guest(name).await?).await;
            guest = self.guest(name).await?;
        }
        Ok(self.view(guest, unit.as_ref()))
    }

    /// Returns the host's id of a guest's first process, which is another one after each start. `None` while it does not run.
    ///
    /// # Errors
    /// When the host cannot be queried.
    pub async fn leader(&self, name: &GuestName) -> Result<Option<u32>, EngineError> {
        let unit = self.inner.host.units.phase(name).await?;
        Ok(unit.and_then(|unit| unit.leader))
    }

    /// Returns the slots and their owners.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn slots(&self) -> Result<SlotReport, EngineError> {
        Ok(self.inner.store.slots().await?)
    }

    /// Returns the daemon's status.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn status(&self, started_at: Timestamp) -> Result<Status, EngineError> {
        let mut guests: Vec<(GuestState, usize)> = Vec::new();
        for view in self.list().await? {
            match guests.iter_mut().find(|(state, _)| *state == view.state) {
                Some((_, count)) => *count += 1,
                None => guests.push((view.state, 1)),
            }
        }
        let slots = self.inner.store.slots().await?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at,
            supervisor: self.inner.host.units.supervisor().to_owned(),
            user_namespaces: self.inner.host.features.user_namespaces(),
            guests,
            slots_taken: slots.in_use() as usize,
            slots: slots.capacity,
            retained: self.inner.retained_space().await?,
            pools: self.check_pools().await?,
            operations: self.inner.store.running_operations().await?,
            memory: self.inner.host_memory().ok(),
            audit: None,
            resident_bytes: resident_bytes().unwrap_or(0),
        })
    }

    fn view(&self, guest: Guest, unit: Option<&UnitSeen>) -> GuestView {
        let frozen = unit.is_some_and(|unit| unit.frozen);
        let unit = unit.map(|unit| unit.phase);
        let addresses = self.inner.config.range.addresses(guest.slot);
        GuestView {
            state: GuestState::of(&guest, unit, frozen),
            unit,
            host_address: addresses.map(|a| a.host),
            guest_address: addresses.map(|a| a.guest),
            interface: guest.slot.interface(),
            oom_kills: self
                .inner
                .host
                .units
                .oom_kills(&guest.name)
                .max(self.inner.oom.total(&guest.name)),
            memory_bytes: self.inner.host.units.memory(&guest.name),
            owner_name: None,
            guest,
        }
    }
}

/// Returns this process's resident memory, from `/proc/self/statm` (proc(5): pages, second field).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some(pages * page)
}
