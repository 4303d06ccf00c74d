//! `innkeeperd`: makes the host agree with the store, and answers on the API socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::{print, refuse};
use innkeeperd::DaemonError;
use innkeeperd::config::{self, Loaded};

/// The daemon of Innkeeper. It keeps guests as the store says they should be.
///
/// `agent`, `preview` and `innkeeper` speak to it on its API socket. It can be killed at any time: what it was doing
/// goes on at the next start.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration: print every setting and where it comes from, and start nothing
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = load(&arguments).and_then(|loaded| match arguments.check_config {
        true => show(&loaded),
        false => innkeeperd::run(loaded),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

fn load(arguments: &Arguments) -> Result<Loaded, DaemonError> {
    let file = arguments.config.as_deref();
    let loaded = config::load(file, |name| std::env::var(name).ok())?;
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    loaded.refuse_unknown_variables(variables)?;
    Ok(loaded)
}

fn show(loaded: &Loaded) -> Result<(), DaemonError> {
    let lines: String = loaded
        .report
        .settings
        .iter()
        .map(|setting| {
            format!(
                "{} = {} # {}\n",
                setting.name, setting.value, setting.origin
            )
        })
        .collect();
    print(lines).map_err(|source| DaemonError::System {
        action: "print the settings",
        source,
    })
}
