//! `--check-start`: whether the daemon would start with a configuration and the present database.

use innkeeper_model::{Failure, StartReport};
use innkeeper_store::{inspect, supported_schema};

use crate::config::Loaded;
use crate::error::DaemonError;
use crate::{previews, wiring};

/// Checks the start with a configuration: the version of the database, and the subnet and the slots of its guests. Changes
/// nothing, also beside a running daemon.
#[must_use]
pub fn check_start(loaded: &Loaded) -> StartReport {
    let mut report = StartReport {
        settings: loaded.report.settings.clone(),
        domain: previews::domain(&loaded.config).ok().flatten(),
        ..empty()
    };
    let checked = check_database(loaded, &mut report);
    report.failure = checked.err().map(|error| Failure::from(&error));
    report
}

/// Creates the report of a configuration that cannot be loaded.
#[must_use]
pub fn check_start_failed(error: &DaemonError) -> StartReport {
    StartReport {
        failure: Some(Failure::from(error)),
        ..empty()
    }
}

fn empty() -> StartReport {
    StartReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        supported_schema: supported_schema(),
        ..StartReport::default()
    }
}

fn check_database(loaded: &Loaded, report: &mut StartReport) -> Result<(), DaemonError> {
    let config = &loaded.config;
    let Some(found) = inspect(&wiring::database(config), config.network.range())? else {
        return Ok(());
    };
    report.schema = Some(found.schema);
    report.guests = Some(found.slots.len());
    wiring::check_slots(config.network.slots, found.slots.into_iter())
}
