//! `preview`: branches and pull requests as web apps.

fn main() -> std::process::ExitCode {
    innkeeper_cli::start::<innkeeper_cli::Preview>()
}
