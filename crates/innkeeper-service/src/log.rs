//! A program's own log.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::ConfigError;

/// A program's own log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,innkeeper_engine=debug`.
    pub level: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// To the journal where systemd has given us one, and as text otherwise.
    Auto,
    /// Lines for people, on standard error.
    Text,
    /// One JSON object in each line, on standard error.
    Json,
    /// To the journal, with fields.
    Journald,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        }
    }
}

impl Log {
    /// Starts logging as configured.
    ///
    /// # Errors
    /// When the level is none.
    pub fn start(&self) -> Result<(), ConfigError> {
        let filter =
            EnvFilter::builder()
                .parse(&self.level)
                .map_err(|error| ConfigError::Value {
                    setting: "log.level",
                    problem: error.to_string(),
                })?;
        let registry = tracing_subscriber::registry().with(filter);
        let journald = match self.format {
            LogFormat::Journald => true,
            // systemd says with this variable that our standard error is its journal.
            LogFormat::Auto => std::env::var_os("JOURNAL_STREAM").is_some(),
            LogFormat::Text | LogFormat::Json => false,
        };
        let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let started = match tracing_journald::layer() {
            Ok(layer) if journald => registry.with(layer).try_init(),
            _ if self.format == LogFormat::Json => registry.with(text.json()).try_init(),
            _ => registry
                .with(text.with_ansi(std::io::stderr().is_terminal()))
                .try_init(),
        };
        // An error means that a test has started logging before.
        drop(started);
        Ok(())
    }
}
