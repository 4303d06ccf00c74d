//! Cgroups of directly supervised guests, on hosts with version 2, version 1 or both.
//!
//! ```text
//! <hierarchy>/<parent>/<machine>/shim         the shim that supervises; only where guests are tracked
//! <hierarchy>/<parent>/<machine>/guest        nspawn and all processes of the guest, with the limits
//! <hierarchy>/<parent>/<machine>/guest/exec/* commands run in the guest from outside, one cgroup each
//! ```
//!
//! One hierarchy tracks the guests' processes: version 2 if it is mounted, because it can kill a cgroup at once. The
//! others only limit. In version 2 processes live in leaves only, and nspawn makes leaves of its own below `guest`.
//!
//! `hierarchy` holds the limits and controllers of a mounted hierarchy, `machine` the cgroups of a guest in all
//! hierarchies, `listing` reads cgroups, `processes` creates, kills and removes them, `freezer` suspends them,
//! and `reclaim` frees the memory of suspended ones.

mod freezer;
mod hierarchy;
mod listing;
mod machine;
mod processes;
mod reclaim;

pub(super) use freezer::{Suspension, freeze, suspension, thaw};
pub(super) use hierarchy::confine;
pub(super) use listing::{children, contains, cpu_time, memory, oom_kills, pids};
pub(crate) use machine::{Cgroups, MachineCgroups};
pub(crate) use processes::emptied;
pub(super) use processes::{PAUSE, kill, make, remove};
pub(super) use reclaim::{can_reclaim, forbid_swap, reclaim};
