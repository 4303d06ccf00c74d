//! The guests' processes: systemd-nspawn, started and kept by one of two supervisors.
//!
//! ```text
//!            ensure                 release                  stop, or by itself
//! (nothing) ────────► waits at the ─────────► the closure's ────────────────────► exited
//!     ▲               door                    init runs                             │
//!     └──────────────────────────────── remove ─────────────────────────────────────┘
//! ```
//!
//! `nspawn` describes how a guest runs, `supervised` takes it through these states. `direct` keeps its
//! processes with a small process of ours, `systemd` with a transient unit. What there is, the kernel
//! says: which processes are in the guest's cgroup (`cgroup`), which of them is the guest's first one
//! and what program it executes (`leader`).

mod bounds;
pub(crate) mod cgroup;
mod checks;
mod config;
mod console;
mod direct;
mod door;
mod error;
mod exec;
mod guests;
mod journal;
mod keeper;
mod leader;
mod litter;
mod machine_id;
mod nspawn;
pub(crate) mod process;
mod shim;
mod signals;
mod supervised;
mod systemd;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use config::{Supervisor, UnitConfig};
pub use error::UnitError;

use direct::Direct;
use supervised::SupervisedUnits;
use systemd::Systemd;

use innkeeper_facilities::{FacilityError, Units};

use crate::FileErrorExt;

/// Finds the guests that run already, and takes care of them and of new ones.
///
/// # Errors
/// When the runtime directory cannot be written, there are no cgroups, or systemd cannot be reached.
pub async fn open(
    config: UnitConfig,
    supervisor: Supervisor,
) -> Result<Arc<dyn Units>, FacilityError> {
    signals::hand_down_defaults()
        .on("reset the signals of", "programs in guests")
        .map_err(UnitError::from)?;
    Ok(if supervisor.is_systemd() {
        let keeper = Systemd::connect(&config).await?;
        Arc::new(SupervisedUnits::open(config, keeper).await?)
    } else {
        let keeper = Direct::new(&config)?;
        Arc::new(SupervisedUnits::open(config, keeper).await?)
    })
}
