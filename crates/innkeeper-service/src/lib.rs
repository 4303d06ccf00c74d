//! What our long-running programs have in common: where the configuration is and what is said when it is
//! wrong, the log, and how a start is refused.

mod config;
mod log;
mod refusal;

pub use config::{ConfigError, DEFAULT_FILE};
pub use log::{Log, LogFormat};
pub use refusal::refuse;
