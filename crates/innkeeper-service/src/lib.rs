//! Shared by the long-running programs, `innkeeperd` and `innkeeper-webhook`.
//!
//! | module | subject |
//! | --- | --- |
//! | `config` | the configuration loader: one TOML file, overridden by environment variables |
//! | `environment` | the names of those variables; misspelled ones are rejected |
//! | `error` | configuration errors |
//! | `log` | the section `[log]`, and the program's own log |
//! | `webhook` | the section `[webhook]`, which both programs read |
//! | `print` | output on the terminal, and the report of a failed start |

mod config;
mod environment;
mod error;
mod log;
mod print;
mod webhook;

pub use config::{Loaded, Settings, check_variables, load, load_at_start};
pub use error::ConfigError;
pub(crate) use error::DEFAULT_FILE;
pub use log::{Log, LogFormat};
pub use print::{print, report_failure};
pub use webhook::{Webhook, parse_allowed_repos};
