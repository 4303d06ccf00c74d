//! The unprivileged program that receives GitHub's deliveries.
//!
//! It is the only part of Innkeeper that accepts bytes from strangers, so it has no rights and few secrets: the webhook's
//! secrets, a list of repositories, and access to innkeeperd's intake socket.
//!
//! ```text
//! GitHub ── Caddy ──► server ──► receive ──► allowlist: signature, repository
//!                                  │
//!                                  ▼
//!                               intake ──► innkeeperd: on disk ──► 202
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | the settings |
//! | [`allowlist`] | secrets and repositories, reloaded on SIGHUP |
//! | `receive` | from a request to its response |
//! | `intake` | handing deliveries to innkeeperd: in batches, with retries while it restarts |
//!
//! It has no state: 202 means that innkeeperd has written the delivery to disk.

pub mod allowlist;
pub mod config;
mod error;
mod intake;
mod peers;
mod receive;
mod response;
mod run;

pub use error::WebhookError;
pub use run::run;
