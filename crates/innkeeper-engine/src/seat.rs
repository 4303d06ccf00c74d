//! One seat: a guest without a name that waits at its door. Its slot, tree, unit and network are those of the guest that takes it.

use innkeeper_facilities::UnitSeen;
use innkeeper_model::{
    ClosureSource, DesiredState, Guest, GuestKind, GuestName, Level, Slot, StorePath, UnitPhase,
    Verb,
};
use jiff::Timestamp;

use crate::EngineError;
use crate::inner::Inner;
use crate::observe::{Observed, has, observe, resources};
use crate::probe::Edge;

/// Stands for the closure of the guest that will take the seat. No driver reads it.
const NO_CLOSURE: &str = "/nix/store/00000000000000000000000000000000-seat";

impl Inner {
    /// Observes a guest and whether a seat is reserved for it.
    pub(crate) async fn observe(&self, guest: &Guest) -> Result<Observed, EngineError> {
        Ok(Observed {
            has_seat: self.store.seat_of(&guest.name).await?.is_some(),
            ..observe(&self.host, guest).await?
        })
    }

    /// Returns the names of all seats, also of those that a guest is about to take over.
    pub(crate) async fn seats(&self) -> Result<Vec<GuestName>, EngineError> {
        let slots = self.store.seats().await?;
        Ok(slots.into_iter().map(GuestName::of_seat).collect())
    }

    /// Makes a seat that is ready. If that fails, removes its objects; what is left is removed by the next daemon.
    pub(crate) async fn make_seat(&self) -> Result<(), EngineError> {
        self.require_firewall().await?;
        self.host.rootfs.require_room().await?;
        let _start = self.starts.acquire().await.ok();
        let slot = {
            let _activity = self.activity.read().await;
            let added = self.store.add_seat();
            self.seat_step("record-seat", async { Ok(added.await?) })
                .await?
        };
        let made = self.furnish(slot).await;
        if made.is_err() {
            self.remove_seat(slot).await?;
        }
        made
    }

    async fn furnish(&self, slot: Slot) -> Result<(), EngineError> {
        let seat = self.guest_at(slot)?;
        let _seat = self.guest_locks.lock(&seat.name).await;
        let _activity = self.activity.read().await;
        // It may have been removed before it was locked.
        if !self.store.seats().await?.contains(&slot) {
            return Ok(());
        }
        let host = &self.host;
        let tree = async { Ok(host.rootfs.ensure(&seat).await?) };
        self.seat_step("seat-tree", tree).await?;
        let unit = async {
            let prepared = host.units.prepare(&seat).await?;
            Ok(host.units.ensure(&seat, prepared).await?)
        };
        let UnitSeen { leader, .. } = self.seat_step("seat-unit", unit).await?;
        let leader = leader
            .ok_or_else(|| EngineError::Invalid(format!("the seat '{}' has ended", seat.name)))?;
        let network = async { Ok(host.network.ensure(&seat, leader).await?) };
        self.seat_step("seat-network", network).await?;
        let ready = async { Ok(self.store.set_seat_ready(slot, true).await?) };
        self.seat_step("seat-ready", ready).await.map(drop)
    }

    /// Removes a seat, unless a guest has taken it.
    pub(crate) async fn remove_seat(&self, slot: Slot) -> Result<(), EngineError> {
        let name = GuestName::of_seat(slot);
        let _seat = self.guest_locks.lock(&name).await;
        let _activity = self.activity.read().await;
        if !self.store.set_seat_ready(slot, false).await? {
            return Ok(());
        }
        let objects = self.remove_objects(&name);
        self.seat_step("remove-seat", objects).await?;
        for resource in resources(&self.host) {
            if has(resource, &name).await? {
                return Err(EngineError::Left {
                    object: name.to_string(),
                    guest: name,
                    what: resource.kind(),
                });
            }
        }
        let forget = async { Ok(self.store.delete_seat(slot).await?) };
        self.seat_step("forget-seat", forget).await
    }

    /// Reports whether a seat still waits at its door.
    pub(crate) async fn is_seat_alive(&self, slot: Slot) -> Result<bool, EngineError> {
        let seen = self.host.units.phase(&GuestName::of_seat(slot)).await?;
        Ok(seen.is_some_and(|seen| seen.phase == UnitPhase::AtDoor && seen.leader.is_some()))
    }

    /// Gives the objects of the seat that is reserved for a guest to the guest.
    pub(crate) async fn take_seat(&self, guest: &Guest) -> Result<(), EngineError> {
        let name = &guest.name;
        if let Some(slot) = self.store.seat_of(name).await? {
            let seat = GuestName::of_seat(slot);
            let _seat = self.guest_locks.lock(&seat).await;
            let host = &self.host;
            if host.rootfs.rename(&seat, name).await? {
                let (network, unit) = tokio::join!(
                    host.network.rename(&seat, guest),
                    host.units.take_seat(&seat, guest),
                );
                network.and(unit)?;
            } else {
                // The guest has a tree that somebody put there: it is started with that, as without a seat.
                self.remove_objects(&seat).await?;
            }
            self.store.leave_seat(name).await?;
        }
        self.seats_changed.notify_one();
        Ok(())
    }

    /// Removes the objects of the seat that is reserved for a guest. The guest's record keeps the slot.
    pub(crate) async fn drop_seat(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(slot) = self.store.seat_of(&guest.name).await? {
            let seat = GuestName::of_seat(slot);
            let _seat = self.guest_locks.lock(&seat).await;
            self.remove_objects(&seat).await?;
        }
        self.seats_changed.notify_one();
        Ok(())
    }

    async fn remove_objects(&self, seat: &GuestName) -> Result<(), EngineError> {
        self.host.units.remove(seat).await?;
        let (network, tree) = tokio::join!(
            self.host.network.remove(seat),
            self.host.rootfs.remove(seat)
        );
        Ok(network.and(tree)?)
    }

    /// Runs a step between its two probe points: the crash tests cover it like those of operations.
    async fn seat_step<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        self.probe(Verb::Create, step, Edge::Before);
        let result = work.await;
        self.probe(Verb::Create, step, Edge::After);
        result
    }

    /// Returns what drivers need to know of a seat.
    fn guest_at(&self, slot: Slot) -> Result<Guest, EngineError> {
        let none = StorePath::parse(NO_CLOSURE);
        let none = none.map_err(|error| EngineError::Invalid(error.to_string()))?;
        Ok(Guest {
            name: GuestName::of_seat(slot),
            kind: GuestKind::Agent,
            slot,
            desired: DesiredState::Running,
            level: Level::Awake,
            source: ClosureSource::Path(none),
            closure: None,
            limits: self.config.limits,
            ssh_host_key: None,
            fault: None,
            idle_policy: None,
            owner: None,
            wake_failure: None,
            file_work: None,
            retain: None,
            change: None,
            last_change: None,
            own_system: None,
            declared: false,
            created_at: Timestamp::now(),
        })
    }
}
