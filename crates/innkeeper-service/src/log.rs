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
    /// The level: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,innkeeper_engine=debug`.
    pub level: String,
    /// The format.
    pub format: LogFormat,
}

/// A format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// To the journal where standard error is connected to it, otherwise as text.
    Auto,
    /// Human-readable lines, on standard error.
    Text,
    /// One JSON object per line, on standard error.
    Json,
    /// To the journal, with structured fields.
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
    /// When the level is invalid.
    pub fn start(&self) -> Result<(), ConfigError> {
        let filter = EnvFilter::builder()
            .parse(&self.level)
            .map_err(|error| ConfigError::value("log.level", &error))?;
        let registry = tracing_subscriber::registry().with(filter);
        let journald = match self.format {
            LogFormat::Journald => true,
            // systemd sets it when standard error is connected to the journal (systemd.exec(5)).
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
        // An error means that a test has already started logging.
        drop(started);
        Ok(())
    }
}
