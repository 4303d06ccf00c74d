//! `innkeeper-pages`: shows visitors the state of a preview whose app does not answer.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_pages::config::Loaded;
use innkeeper_pages::{PagesError, run};
use innkeeper_service::{load_at_start, print, report_failure};

/// The state pages of Innkeeper's previews.
///
/// Caddy requests them on a Unix socket while a preview's app does not answer. The program needs no rights: it reads the
/// status files that innkeeperd writes, so pages stay available while innkeeperd is down.
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
        .map_err(PagesError::from)
        .and_then(|loaded| match arguments.check_config {
            true => check(&loaded),
            false => run(&loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&error),
    }
}

fn check(loaded: &Loaded) -> Result<(), PagesError> {
    print(format_args!("{loaded}")).map_err(|source| PagesError::System {
        action: "print the settings",
        source,
    })
}
