//! `innkeeperd`: reconciles the host with the store, and serves the API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::{load_at_start, print, report_failure};
use innkeeperd::DaemonError;
use innkeeperd::config::Loaded;

/// The daemon of Innkeeper. It reconciles the host with the desired state in its store.
///
/// `agent`, `preview` and `innkeeper` connect to its API socket. It can be killed at any time: interrupted operations
/// resume at the next start.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print every setting with its origin, and exit
    #[arg(long)]
    check_config: bool,
    /// Report in JSON whether the daemon would start with the configuration and the present database, and exit
    ///
    /// Changes nothing, also beside a running daemon. The exit status is that of the failure, if it would not start.
    #[arg(long, conflicts_with = "check_config")]
    check_start: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check_start {
        return check_start(arguments.config.as_deref());
    }
    let result = load_at_start(arguments.config.as_deref())
        .map_err(DaemonError::from)
        .and_then(|loaded| match arguments.check_config {
            true => show(&loaded),
            false => innkeeperd::run(loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&error),
    }
}

/// Prints the report, also of a configuration that cannot be loaded.
fn check_start(config: Option<&Path>) -> ExitCode {
    let report = match load_at_start(config) {
        Ok(loaded) => innkeeperd::check_start(&loaded),
        Err(error) => innkeeperd::check_start_failed(&error.into()),
    };
    let printed = serde_json::to_string(&report)
        .map_err(std::io::Error::from)
        .and_then(|json| print(format_args!("{json}\n")));
    match (printed, report.failure) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(failure)) => ExitCode::from(failure.code.kind().exit_code()),
        (Err(source), _) => report_failure(&DaemonError::System {
            action: "print the report",
            source,
        }),
    }
}

fn show(loaded: &Loaded) -> Result<(), DaemonError> {
    print(loaded).map_err(|source| DaemonError::System {
        action: "print the settings",
        source,
    })
}
