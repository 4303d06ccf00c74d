//! The guests' processes: systemd-nspawn under one of two supervisors.
//!
//! ```text
//!            ensure                 release                  stop, or by itself
//! (nothing) ────────► waits at the ─────────► the closure's ────────────────────► exited
//!     ▲               door                    init runs                             │
//!     └──────────────────────────────── remove ─────────────────────────────────────┘
//! ```
//!
//! `nspawn` builds the command line of a guest, `supervised` takes the guest through these states. `direct` supervises it
//! with a small process of Innkeeper, `systemd` with a transient unit. The state is read from the kernel: the processes in
//! the guest's cgroup (`cgroup`), the first of them and its program (`leader`).

mod bounds;
pub(crate) mod cgroup;
mod checks;
mod config;
mod console;
mod direct;
mod door;
mod error;
mod exec;
mod filters;
mod guests;
mod host_name;
mod journal;
mod leader;
mod machine_id;
mod machined;
mod nspawn;
mod nspawn_cleanup;
pub(crate) mod process;
mod seats;
mod shim;
mod signals;
mod slice;
mod supervised;
mod supervisor;
mod systemd;
#[cfg(test)]
mod tests;
mod waiting_shim;

use std::sync::Arc;

pub use config::{SupervisorKind, UnitConfig};
pub use error::UnitError;

use direct::Direct;
use supervised::SupervisedUnits;
use systemd::Systemd;

use innkeeper_facilities::{FacilityError, Units};

use crate::FileErrorExt;

/// Reports whether the kernel can reclaim the memory of a guest on request.
pub(crate) fn can_reclaim() -> bool {
    let memory = cgroup::Cgroups::detect("innkeeper").map(|cgroups| cgroups.memory());
    matches!(memory, Ok(Some(mount)) if cgroup::can_reclaim(&mount))
}

/// Opens the units of guests with a supervisor, and watches the guests that run already.
///
/// # Errors
/// When the runtime directory cannot be written, no cgroups are mounted, or systemd cannot be reached.
pub async fn open(
    config: UnitConfig,
    kind: SupervisorKind,
) -> Result<Arc<dyn Units>, FacilityError> {
    signals::hand_down_defaults()
        .on("reset the signals of", "programs in guests")
        .map_err(UnitError::from)?;
    Ok(if kind.is_systemd() {
        let supervisor = Systemd::connect(&config).await?;
        Arc::new(SupervisedUnits::open(config, supervisor).await?)
    } else {
        let supervisor = Direct::new(&config)?;
        Arc::new(SupervisedUnits::open(config, supervisor).await?)
    })
}
