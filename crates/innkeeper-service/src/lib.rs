//! What our long-running programs have in common: where the configuration is and what is said when it is
//! wrong, the sections that more than one of them reads, the variables that override settings, the log, what they print, and how
//! a start is refused.

mod config;
mod environment;
mod log;
mod print;
mod refusal;
mod webhook;

pub use config::{ConfigError, DEFAULT_FILE};
pub use environment::{refuse_unknown_variables, variable_of};
pub use log::{Log, LogFormat};
pub use print::print;
pub use refusal::refuse;
pub use webhook::{ENVIRONMENT_FILES, Webhook};
