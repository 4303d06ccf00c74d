//! `innkeeperd`: reconciles the host with the store, and serves the API.

use std::path::PathBuf;
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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

fn show(loaded: &Loaded) -> Result<(), DaemonError> {
    print(loaded).map_err(|source| DaemonError::System {
        action: "print the settings",
        source,
    })
}
