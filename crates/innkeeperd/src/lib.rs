//! The daemon: configuration, API server, intake of deliveries, wiring, shutdown.

pub mod api;
mod claims;
pub mod config;
mod crash;
mod daemon;
pub mod intake;
mod lock;
mod previews;
mod registry;
mod service;
mod socket;
mod wiring;

pub use daemon::{DaemonError, run};
