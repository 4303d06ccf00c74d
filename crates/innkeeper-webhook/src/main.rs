//! `innkeeper-webhook`: takes deliveries from GitHub, and innkeeperd's word for what became of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::{print, refuse};
use innkeeper_webhook::WebhookError;
use innkeeper_webhook::config::Loaded;
use innkeeper_webhook::gate::Gate;

/// The webhook of Innkeeper. It checks that deliveries come from GitHub and hands them to innkeeperd.
///
/// It needs no rights: it listens on a port of the loopback interface, or on a socket that systemd gives it,
/// and speaks to innkeeperd on a Unix socket. SIGHUP has it read secrets and repositories again.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file [default: /etc/innkeeper/config.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration and the secrets: print every setting, and start nothing
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let variable = |name: &str| std::env::var(name).ok();
    let result = Loaded::read(arguments.config.as_deref(), variable)
        .and_then(|loaded| {
            let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
            loaded.refuse_unknown_variables(variables).map(|()| loaded)
        })
        .map_err(WebhookError::from)
        .and_then(|loaded| match arguments.check_config {
            true => check(&loaded),
            false => innkeeper_webhook::run(loaded),
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

fn check(loaded: &Loaded) -> Result<(), WebhookError> {
    let gate = Gate::load(loaded)?;
    let settings: String = loaded
        .settings
        .iter()
        .map(|setting| {
            format!(
                "{} = {} # {}\n",
                setting.name, setting.value, setting.origin
            )
        })
        .collect();
    print(format_args!("{settings}# {gate}\n")).map_err(|source| WebhookError::System {
        action: "print the settings",
        source,
    })
}
