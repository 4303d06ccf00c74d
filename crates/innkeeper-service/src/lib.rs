//! Shared by the long-running programs: `innkeeperd`, `innkeeper-webhook`, `innkeeper-gateway`,
//! `innkeeper-pages` and `innkeeper-dns`.
//!
//! | module | subject |
//! | --- | --- |
//! | `config` | the configuration loader: one TOML file, overridden by environment variables |
//! | `environment` | the names of those variables; misspelled ones are rejected |
//! | `error` | configuration errors |
//! | `log` | the section `[log]`, and the program's own log |
//! | `log_throttle` | the rate limit of log lines that strangers can cause |
//! | `webhook` | the section `[webhook]`, which `innkeeperd` and `innkeeper-webhook` read |
//! | `pages` | the section `[pages]`, which `innkeeperd` and `innkeeper-pages` read |
//! | `dns` | the section `[dns]`, which `innkeeperd` and `innkeeper-dns` read |
//! | `gateway` | the section `[gateway]`, which `innkeeperd` and `innkeeper-gateway` read |
//! | `socket_path` | checks of the paths of sockets |
//! | [`systemd`] | notifications to systemd |
//! | `quota` | the number of connections that one peer may hold |
//! | [`server`] | the HTTP server: connections and their limits; a feature of the crate |
//! | `print` | output on the terminal, and the report of a failed start |

mod config;
mod dns;
mod environment;
mod error;
mod gateway;
mod log;
mod log_throttle;
mod pages;
mod print;
mod quota;
#[cfg(feature = "server")]
pub mod server;
mod socket_path;
pub mod systemd;
mod webhook;

pub use config::{Loaded, Settings, check_variables, load, load_at_start};
pub use dns::Dns;
pub use error::ConfigError;
pub(crate) use error::DEFAULT_FILE;
pub use gateway::Gateway;
pub use log::{Log, LogFormat};
pub use log_throttle::LogThrottle;
pub use pages::Pages;
pub use print::{print, report_failure};
pub use quota::{PeerQuota, PeerSlot, subscriber};
pub use webhook::{Webhook, parse_allowed_repos};
