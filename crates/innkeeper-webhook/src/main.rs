//! `innkeeper-webhook`: receives deliveries from GitHub and hands them to innkeeperd.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::{load_at_start, print, report_failure};
use innkeeper_webhook::WebhookError;
use innkeeper_webhook::allowlist::Allowlist;
use innkeeper_webhook::config::Loaded;

/// The webhook of Innkeeper. It verifies GitHub's deliveries and hands them to innkeeperd.
///
/// It needs no rights: it listens on a port of the loopback interface, or on a socket that systemd passes to it, and
/// connects to innkeeperd's Unix socket. SIGHUP reloads secrets and repositories.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and the secrets, print every setting, and exit
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = load_at_start(arguments.config.as_deref())
        .map_err(WebhookError::from)
        .and_then(|loaded| match arguments.check_config {
            true => check(&loaded),
            false => innkeeper_webhook::run(&loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&error),
    }
}

fn check(loaded: &Loaded) -> Result<(), WebhookError> {
    let allowlist = Allowlist::load(&loaded.config)?;
    print(format_args!("{loaded}# {allowlist}\n")).map_err(|source| WebhookError::System {
        action: "print the settings",
        source,
    })
}
