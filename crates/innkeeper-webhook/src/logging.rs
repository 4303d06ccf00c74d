//! The program's own log. Bodies and secrets are never part of it.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, Log, LogFormat};

/// Starts logging as configured.
pub(crate) fn start(log: &Log) -> Result<(), ConfigError> {
    let filter = EnvFilter::builder()
        .parse(&log.level)
        .map_err(|error| ConfigError::Value {
            setting: "log.level",
            problem: error.to_string(),
        })?;
    let registry = tracing_subscriber::registry().with(filter);
    let journald = match log.format {
        LogFormat::Journald => true,
        // systemd says with this variable that our standard error is its journal.
        LogFormat::Auto => std::env::var_os("JOURNAL_STREAM").is_some(),
        LogFormat::Text | LogFormat::Json => false,
    };
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match tracing_journald::layer() {
        Ok(layer) if journald => registry.with(layer).try_init(),
        _ if log.format == LogFormat::Json => registry.with(text.json()).try_init(),
        _ => registry
            .with(text.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
    };
    // An error means that a test has started logging before.
    drop(started);
    Ok(())
}
