//! `innkeeper-gateway`: authenticates requests of other machines and passes them on to innkeeperd.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_gateway::access::key::Keys;
use innkeeper_gateway::config::Loaded;
use innkeeper_gateway::pairs::Pairs;
use innkeeper_gateway::{GatewayError, run};
use innkeeper_service::{load_at_start, print, report_failure};

/// The gateway of Innkeeper. It authenticates requests of other machines and passes them on to innkeeperd.
///
/// It needs no rights: it listens on a Unix socket for Caddy, or on one that systemd passes to it, and connects to innkeeperd's
/// socket for it. SIGHUP reads the file of tokens again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the file of tokens, print every setting, and exit
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = load_at_start(arguments.config.as_deref())
        .map_err(GatewayError::from)
        .and_then(|loaded| match arguments.check_config {
            true => check(&loaded),
            false => run(&loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&error),
    }
}

fn check(loaded: &Loaded) -> Result<(), GatewayError> {
    let pairs = Pairs::load(&loaded.config)?;
    Keys::check(&loaded.config)?;
    print(format_args!("{loaded}# {pairs}\n")).map_err(|source| GatewayError::System {
        action: "print the settings",
        source,
    })
}
