//! One seat: a guest without a name that waits at its door, or with a closure that it has booted. Its slot, tree, unit and network
//! are those of the guest that takes it.

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

/// Stands for the closure of the guest that will take a seat at its door. No driver reads it.
const NO_CLOSURE: &str = "/nix/store/00000000000000000000000000000000-seat";

impl Inner {
    /// Observes a guest and whether a seat is reserved for it.
    pub(crate) async fn observe(&self, guest: &Guest) -> Result<Observed, EngineError> {
        let observed = observe(&self.host, guest).await?;
        let is_down = guest.desired != DesiredState::Absent
            && !guest.should_have_processes()
            && observed.unit.is_none();
        Ok(Observed {
            has_seat: self.store.seat_of(&guest.name).await?.is_some(),
            parked: is_down && self.is_parked(guest).await?,
            ..observed
        })
    }

    /// Returns the names of all seats, also of those that a guest is about to take over.
    pub(crate) async fn seats(&self) -> Result<Vec<GuestName>, EngineError> {
        let seats = self.store.seats().await?;
        let names = seats.iter().map(|seat| GuestName::of_seat(seat.slot));
        Ok(names.collect())
    }

    /// Makes a seat that waits at its door. If that fails, removes its objects; what is left is removed by the next daemon.
    pub(crate) async fn make_seat(&self) -> Result<(), EngineError> {
        let _start = self.starts.acquire().await.ok();
        let slot = self.record_seat(None).await?;
        let made = self.furnish(slot).await;
        if made.is_err() {
            self.remove_seat(slot).await?;
        }
        made
    }

    async fn furnish(&self, slot: Slot) -> Result<(), EngineError> {
        let seat = self.guest_at(slot, None)?;
        let _seat = self.guest_locks.lock(&seat.name).await;
        let _activity = self.activity.read().await;
        // It may have been removed before it was locked.
        if self.is_recorded(slot).await? {
            self.place(&seat).await?;
            self.record_ready(slot).await?;
        }
        Ok(())
    }

    /// Records a seat that is about to be made, and returns its slot.
    pub(crate) async fn record_seat(
        &self,
        closure: Option<&StorePath>,
    ) -> Result<Slot, EngineError> {
        self.require_firewall().await?;
        self.host.rootfs.require_room().await?;
        let _activity = self.activity.read().await;
        let added = self.store.add_seat(closure);
        self.seat_step("record-seat", async { Ok(added.await?) })
            .await
    }

    /// Reports whether a seat is recorded and no guest has taken it. The caller must hold its lock.
    pub(crate) async fn is_recorded(&self, slot: Slot) -> Result<bool, EngineError> {
        let seats = self.store.seats().await?;
        Ok(seats
            .iter()
            .any(|seat| seat.slot == slot && seat.guest.is_none()))
    }

    /// Lets guests take a seat.
    pub(crate) async fn record_ready(&self, slot: Slot) -> Result<(), EngineError> {
        let ready = async { Ok(self.store.set_seat_ready(slot, true).await?) };
        self.seat_step("seat-ready", ready).await.map(drop)
    }

    /// Makes the objects of a seat: its first process waits at its door when this returns, with a complete network.
    pub(crate) async fn place(&self, seat: &Guest) -> Result<(), EngineError> {
        let host = &self.host;
        if let Some(closure) = &seat.closure {
            let pin = async {
                host.closures.ensure(seat, closure).await?;
                // After pinning: before that, Nix may have garbage-collected it.
                Ok(host.closures.verify(closure).await?)
            };
            self.seat_step("seat-closure", pin).await?;
        }
        let tree = async { Ok(host.rootfs.ensure(seat).await?) };
        self.seat_step("seat-tree", tree).await?;
        if seat.closure.is_some() {
            let secrets = async { Ok(host.secrets.ensure(seat).await?) };
            self.seat_step("seat-secrets", secrets).await?;
        }
        let unit = async {
            let prepared = host.units.prepare(seat).await?;
            Ok(host.units.ensure(seat, prepared).await?)
        };
        let UnitSeen { leader, .. } = self.seat_step("seat-unit", unit).await?;
        let leader = leader
            .ok_or_else(|| EngineError::Invalid(format!("the seat '{}' has ended", seat.name)))?;
        let network = async { Ok(host.network.ensure(seat, leader).await?) };
        self.seat_step("seat-network", network).await
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

    /// Reports whether a seat still waits in its phase: at its door, or running.
    pub(crate) async fn is_seat_alive(
        &self,
        slot: Slot,
        phase: UnitPhase,
    ) -> Result<bool, EngineError> {
        let seen = self.host.units.phase(&GuestName::of_seat(slot)).await?;
        Ok(seen.is_some_and(|seen| seen.phase == phase && seen.leader.is_some()))
    }

    /// Gives the objects of the seat that is reserved for a guest to the guest.
    pub(crate) async fn take_seat(&self, guest: &Guest) -> Result<(), EngineError> {
        let name = &guest.name;
        if let Some(taken) = self.store.seat_of(name).await? {
            let seat = GuestName::of_seat(taken.slot);
            let _seat = self.guest_locks.lock(&seat).await;
            if taken.closure.is_some() {
                // It continues without passing a door.
                self.require_firewall().await?;
            }
            let host = &self.host;
            if host.rootfs.rename(&seat, name).await? {
                let identity = async {
                    match &taken.closure {
                        Some(closure) => self.take_identity(&seat, guest, closure).await,
                        None => Ok(()),
                    }
                };
                let (network, unit, identity) = tokio::join!(
                    host.network.rename(&seat, guest),
                    host.units.take_seat(&seat, guest),
                    identity,
                );
                network.and(unit)?;
                identity?;
                if taken.closure.is_some() {
                    self.begin_use(guest).await?;
                }
            } else {
                // The guest has a tree that somebody put there: it is started with that, as without a seat.
                self.remove_objects(&seat).await?;
            }
            let leave = async { Ok(self.store.leave_seat(name).await?) };
            self.seat_step("leave-seat", leave).await?;
        }
        self.notify_seats_changed();
        Ok(())
    }

    /// Notifies those who keep seats that one was taken or removed, or that a closure was built.
    pub(crate) fn notify_seats_changed(&self) {
        self.seats_changed.notify_one();
        self.warm.changed.notify_one();
    }

    /// Removes the objects of the seat that is reserved for a guest. The guest's record keeps the slot.
    pub(crate) async fn drop_seat(&self, guest: &Guest) -> Result<(), EngineError> {
        if let Some(taken) = self.store.seat_of(&guest.name).await? {
            let seat = GuestName::of_seat(taken.slot);
            let _seat = self.guest_locks.lock(&seat).await;
            self.remove_objects(&seat).await?;
        }
        self.notify_seats_changed();
        Ok(())
    }

    async fn remove_objects(&self, seat: &GuestName) -> Result<(), EngineError> {
        let host = &self.host;
        host.units.remove(seat).await?;
        let (network, tree, closure) = tokio::join!(
            host.network.remove(seat),
            host.rootfs.remove(seat),
            host.closures.remove(seat)
        );
        Ok(network.and(tree).and(closure)?)
    }

    /// Runs a step between its two probe points: the crash tests cover it like those of operations.
    pub(crate) async fn seat_step<T>(
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
    pub(crate) fn guest_at(
        &self,
        slot: Slot,
        closure: Option<&StorePath>,
    ) -> Result<Guest, EngineError> {
        let source = match closure {
            Some(closure) => closure.clone(),
            None => StorePath::parse(NO_CLOSURE)
                .map_err(|error| EngineError::Invalid(error.to_string()))?,
        };
        Ok(Guest {
            name: GuestName::of_seat(slot),
            kind: GuestKind::Agent,
            slot,
            desired: DesiredState::Running,
            level: Level::Awake,
            source: ClosureSource::Path(source),
            closure: closure.cloned(),
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
