//! `innkeeper`: the host and its daemon.

fn main() -> std::process::ExitCode {
    innkeeper_cli::start::<innkeeper_cli::Innkeeper>()
}
