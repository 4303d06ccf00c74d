//! The contracts between the engine, the previews and the host's drivers.
//!
//! Each facility is a trait. Its driver is a module of `innkeeper-host`, which talks to the kernel, to systemd, to Nix,
//! to Caddy or to PostgreSQL; its fake is in the module `fake`, behind the cargo feature of that name. The engine and
//! the previews know only the traits, so their tests compile and run without any driver. `innkeeperd` connects the two
//! sides.
//!
//! All methods are idempotent: they can be called again after a crash at any point, and removing what is absent is
//! success.
//!
//! | trait | resource |
//! | --- | --- |
//! | [`Closures`] | closures and their GC roots |
//! | [`Evaluator`] | closures of previews, from `preview-config.nix` |
//! | [`Rootfs`] | file trees, snapshots, retained files |
//! | [`Secrets`] | keys and credentials in the file tree |
//! | [`GuestFiles`] | files that are written while the guest runs |
//! | [`Network`] | veth pairs, addresses, routes |
//! | [`Firewall`], [`BuildNetwork`] | the host's rules |
//! | [`Traffic`], [`FirstPackets`] | counters of guests' packets, packets to paused guests |
//! | [`HostFacts`], [`HostFeatures`], [`Memory`], [`Load`] | the host itself |
//! | [`Units`] | the guest's processes |
//! | [`Routes`] | previews' routes |
//! | [`Pages`] | status files of previews, for their visitors |
//! | [`Databases`] | previews' databases |
//!
//! # What belongs here
//!
//! - A trait that the engine, the previews or the daemon's API call, and that a driver implements.
//! - The types in its signatures, unless they belong to `innkeeper-model`.
//! - A fake for each trait, which tests can observe and let fail.
//!
//! Settings and errors of a driver do not: a driver wraps its errors in the opaque [`FacilityError`]. This crate
//! touches nothing of the machine and depends on no driver's library.

mod access_list;
mod closures;
mod databases;
mod error;
mod evaluator;
#[cfg(feature = "fake")]
pub mod fake;
mod firewall;
mod guest_files;
mod host;
mod load;
mod memory;
mod network;
mod pages;
mod resource;
mod rootfs;
mod routes;
mod secrets;
mod traffic;
mod units;

pub use access_list::AccessList;
pub use closures::{Built, Closures, Effort, ProgressSink};
pub use databases::{DatabaseAccess, DatabaseSpec, Databases};
pub use error::FacilityError;
pub use evaluator::{Evaluated, EvaluationKey, Evaluator, Inspected, InvalidKey};
pub use firewall::{BuildNetwork, Builders, Firewall};
pub use guest_files::{GuestFile, GuestFiles};
pub use host::{Facilities, GuestUserIds, HostFacts, HostFeatures};
pub use load::Load;
pub use memory::{Memory, MemoryReading};
pub use network::Network;
pub use pages::Pages;
pub use resource::{Found, Resource};
pub use rootfs::{FileOwners, FilesMissing, FoundRetained, FoundSnapshot, Rootfs};
pub use routes::{RouteSpec, RouteState, Routes};
pub use secrets::Secrets;
pub use traffic::{FirstPackets, GuestTraffic, PROBE_MARK, PacketCount, Traffic};
pub use units::{
    BOOT_OWN, Console, ExecCommand, ExecSession, Input, Output, Prepared, UnitSeen, Units,
};
