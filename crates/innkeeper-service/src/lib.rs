//! What our long-running programs have in common: where the configuration is and what is said when it is
//! wrong, the sections that more than one of them reads, the log, and how a start is refused.

mod config;
mod log;
mod refusal;
mod webhook;

pub use config::{ConfigError, DEFAULT_FILE};
pub use log::{Log, LogFormat};
pub use refusal::refuse;
pub use webhook::{ENVIRONMENT_FILES, Webhook};
