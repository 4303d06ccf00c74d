//! `agent`: guests for coding agents.

fn main() -> std::process::ExitCode {
    innkeeper_cli::start::<innkeeper_cli::Agent>()
}
