//! The unprivileged program that GitHub speaks to.
//!
//! It is the only part of Innkeeper that strangers can send bytes to, so it knows little and may do nothing:
//! the webhook's secrets, a list of repositories, and the way to innkeeperd's intake socket.
//!
//! ```text
//! GitHub ── Caddy ──► server ──► receive ──► gate: signature, repository
//!                                  │
//!                                  ▼
//!                               intake ──► innkeeperd: on disk ──► 202
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | the settings |
//! | [`gate`] | who may pass: secrets and repositories, read again on SIGHUP |
//! | [`receive`] | from a request to its answer |
//! | [`intake`] | handing deliveries to innkeeperd, many at a time, also while it restarts |
//! | [`server`] | connections, and what they may take |
//!
//! It keeps nothing: a delivery is answered with 202 when innkeeperd has said that it is on disk.

mod answer;
pub mod config;
mod error;
pub mod gate;
pub mod intake;
mod peers;
pub mod receive;
mod run;
pub mod server;
mod service;
mod throttle;

pub use error::WebhookError;
pub use run::run;
