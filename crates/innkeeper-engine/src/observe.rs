//! What can be seen of a guest on the host.

use innkeeper_host::HostError;
use innkeeper_host::facilities::{Facilities, Found, Resource};
use innkeeper_model::{DesiredState, Guest, GuestName, UnitPhase};

/// What can be seen of one guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether the record says which closure it boots from.
    pub closure_known: bool,
    /// Whether its closure has a GC root.
    pub closure_pinned: bool,
    /// Whether its files are to be kept when it is gone.
    pub keep_files: bool,
    /// Whether it has an interface.
    pub network_present: bool,
    /// Whether its network is complete.
    pub network_complete: bool,
    /// Its processes.
    pub unit: Option<UnitPhase>,
}

/// Looks at what a plan for this guest depends on, and at no more: a guest that is about to be removed is
/// removed whatever there is, and the interface of a guest that is not up is made anew in any case.
///
/// # Errors
/// When the host cannot be asked.
pub async fn observe(host: &Facilities, guest: &Guest) -> Result<Seen, HostError> {
    let mut seen = Seen {
        closure_known: guest.closure.is_some(),
        keep_files: guest.retain.is_some(),
        ..Seen::default()
    };
    if guest.desired == DesiredState::Absent {
        return Ok(seen);
    }
    seen.unit = host.units.phase(&guest.name).await?.map(|unit| unit.phase);
    let settled = match guest.desired {
        DesiredState::Running => seen.unit == Some(UnitPhase::Running),
        DesiredState::Stopped | DesiredState::Absent => seen.unit.is_none(),
    };
    if settled {
        seen.network_present = has(&*host.network, &guest.name).await?;
        seen.network_complete = seen.network_present && host.network.is_complete(guest).await?;
        seen.closure_pinned = has(&*host.closures, &guest.name).await?;
    }
    Ok(seen)
}

/// Whether a guest has anything of a resource. Another daemon's guest of the same name does not count.
pub(crate) async fn has(
    resource: &(impl Resource + ?Sized),
    guest: &GuestName,
) -> Result<bool, HostError> {
    let found = resource.observe().await?;
    Ok(found
        .iter()
        .any(|found| found.guest.as_ref() == Some(guest) && found.ownership.is_ours()))
}

/// Everything on the host that has our naming, with the resource it is of.
pub(crate) async fn everything(
    host: &Facilities,
) -> Result<Vec<(ResourceRef<'_>, Found)>, HostError> {
    let mut all = Vec::new();
    for resource in resources(host) {
        let found = resource.observe().await?;
        all.extend(found.into_iter().map(|found| (resource, found)));
    }
    Ok(all)
}

/// A resource of the host.
pub(crate) type ResourceRef<'a> = &'a dyn Resource;

/// The resources that guests own, in the order in which they have to go: processes first.
pub(crate) fn resources(host: &Facilities) -> [ResourceRef<'_>; 4] {
    [&*host.units, &*host.network, &*host.rootfs, &*host.closures]
}
