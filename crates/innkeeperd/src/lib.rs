//! The daemon: configuration, API server, wiring, shutdown.

pub mod api;
pub mod config;
mod crash;
mod daemon;
mod lock;
mod service;
mod wiring;

pub use daemon::{DaemonError, run};
