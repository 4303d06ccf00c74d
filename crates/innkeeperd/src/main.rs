//! `innkeeperd`: makes the host agree with the store, and answers on the API socket.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use innkeeper_service::refuse;
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
    let loaded = match config::load(arguments.config.as_deref(), |name| std::env::var(name).ok()) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error),
    };
    if arguments.check_config {
        show(&loaded);
        return ExitCode::SUCCESS;
    }
    match innkeeperd::run(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

#[expect(clippy::print_stdout, reason = "this is what --check-config is for")]
fn show(loaded: &Loaded) {
    for setting in &loaded.report.settings {
        println!("{} = {} # {}", setting.name, setting.value, setting.origin);
    }
}
