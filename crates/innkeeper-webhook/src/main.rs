//! `innkeeper-webhook`: takes deliveries from GitHub, and innkeeperd's word for what became of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::refuse;
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

#[expect(clippy::print_stdout, reason = "this is what --check-config is for")]
fn check(loaded: &Loaded) -> Result<(), WebhookError> {
    let gate = Gate::load(loaded)?;
    for setting in &loaded.settings {
        println!("{} = {} # {}", setting.name, setting.value, setting.origin);
    }
    println!("# {gate}");
    Ok(())
}
