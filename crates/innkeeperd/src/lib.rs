//! The daemon: configuration, API server, intake of deliveries, wiring, shutdown.

mod access;
mod api;
mod api_error;
mod audit;
mod backup;
mod claims;
pub mod config;
mod crash;
mod daemon;
mod error;
mod gateway;
mod gateway_check;
mod guarded;
mod intake;
mod lock;
mod prefetch;
mod previews;
mod quotas;
mod registry;
mod socket;
mod start_check;
mod systemd;
mod wakes;
mod wiring;

pub use daemon::run;
pub use error::DaemonError;
pub use lock::LockError;
pub use registry::RegistryError;
pub use start_check::{check_start, check_start_failed};
