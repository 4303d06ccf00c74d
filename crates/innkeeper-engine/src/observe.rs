//! Observation of guests on the host.

use innkeeper_facilities::{Facilities, FacilityError, Found, Resource};
use innkeeper_model::{DesiredState, Guest, GuestName, Level, OwnSystemState, UnitPhase};

use crate::own_system::boots_own;

/// The observed state of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// A seat is reserved for the guest, and objects may still have the seat's name.
    pub(crate) has_seat: bool,
    /// The guest took its seat in this drive, and everything but its closure, its secrets and its init is there.
    pub(crate) waits_complete: bool,
    /// The record names the closure.
    pub(crate) closure_known: bool,
    /// The closure has a GC root.
    pub(crate) closure_pinned: bool,
    /// A removal retains the files.
    pub(crate) keep_files: bool,
    /// The guest has an interface.
    pub(crate) network_present: bool,
    /// The interface has its addresses and routes.
    pub(crate) network_complete: bool,
    /// The guest has no processes, and its address is parked.
    pub(crate) parked: bool,
    /// The phase of its unit, if it has one.
    pub(crate) unit: Option<UnitPhase>,
    /// Its processes are suspended.
    pub(crate) frozen: bool,
    /// Its processes are to be suspended, and some still run.
    pub(crate) freezing: bool,
    /// The guest can boot a system of its own.
    pub(crate) boots_own: bool,
    /// The state of its own system in the record.
    pub(crate) own_system: Option<OwnSystemState>,
}

/// Observes only what the plan for this guest depends on: a removal removes every resource anyway, and a guest that is
/// not running gets a new interface anyway.
///
/// # Errors
/// When the host cannot be queried.
pub(crate) async fn observe(host: &Facilities, guest: &Guest) -> Result<Observed, FacilityError> {
    let mut observed = Observed {
        closure_known: guest.closure.is_some(),
        keep_files: guest.retain.is_some(),
        own_system: guest.own_system.as_ref().map(|own| own.state),
        ..Observed::default()
    };
    if guest.desired == DesiredState::Absent {
        return Ok(observed);
    }
    let unit = host.units.phase(&guest.name).await?;
    observed.frozen = unit.as_ref().is_some_and(|unit| unit.frozen);
    observed.freezing = unit.as_ref().is_some_and(|unit| unit.freezing);
    observed.unit = unit.map(|unit| unit.phase);
    // Also while it runs: a restore restarts it.
    if guest.desired == DesiredState::Running {
        observed.boots_own = boots_own(host, guest).await?;
    }
    let is_running = observed.unit == Some(UnitPhase::Running);
    let settled = match (guest.desired, guest.level) {
        (DesiredState::Running, Level::Awake) => is_running,
        (DesiredState::Running, Level::Paused) => is_running || observed.unit.is_none(),
        (DesiredState::Running, Level::Asleep)
        | (DesiredState::Stopped | DesiredState::Absent, _) => observed.unit.is_none(),
    };
    if settled {
        observed.network_present = has(&*host.network, &guest.name).await?;
        observed.network_complete =
            observed.network_present && host.network.is_complete(guest).await?;
        observed.closure_pinned = has(&*host.closures, &guest.name).await?;
    }
    Ok(observed)
}

/// Reports whether a guest has objects of a resource. Objects of another daemon's guest with the same name do not count.
pub(crate) async fn has(
    resource: &(impl Resource + ?Sized),
    guest: &GuestName,
) -> Result<bool, FacilityError> {
    let found = resource.observe().await?;
    Ok(found
        .iter()
        .any(|found| found.guest.as_ref() == Some(guest) && found.ownership.is_ours()))
}

/// Returns every object on the host with Innkeeper's naming, and its resource.
pub(crate) async fn everything(
    host: &Facilities,
) -> Result<Vec<(ResourceRef<'_>, Found)>, FacilityError> {
    let mut all = Vec::new();
    for resource in resources(host) {
        let found = resource.observe().await?;
        all.extend(found.into_iter().map(|found| (resource, found)));
    }
    Ok(all)
}

/// A resource of the host.
pub(crate) type ResourceRef<'a> = &'a dyn Resource;

/// The resources that guests own, in the order of their removal: processes first.
pub(crate) fn resources(host: &Facilities) -> [ResourceRef<'_>; 4] {
    [&*host.units, &*host.network, &*host.rootfs, &*host.closures]
}
