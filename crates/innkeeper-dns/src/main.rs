//! `innkeeper-dns`: resolves names for guests.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_dns::config::Loaded;
use innkeeper_dns::{DnsError, run};
use innkeeper_service::{load_at_start, print, report_failure};

/// The resolver of Innkeeper's guests.
///
/// The firewall redirects a guest's queries to it. It resolves the hosts of the guest's own preview to the guest's gateway,
/// and forwards all other queries to the host's name servers. The program needs no rights.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print every setting, and exit
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = load_at_start(arguments.config.as_deref())
        .map_err(DnsError::from)
        .and_then(|loaded| match arguments.check_config {
            true => check(&loaded),
            false => run(&loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&error),
    }
}

fn check(loaded: &Loaded) -> Result<(), DnsError> {
    print(format_args!("{loaded}")).map_err(|source| DnsError::System {
        action: "print the settings",
        source,
    })
}
