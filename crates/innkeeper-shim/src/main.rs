//! The helper beside and inside each guest. To stay small, it uses only the standard library.
//!
//! The daemon embeds it as a static program, so that it also runs without the host's files: it is bind-mounted read-only
//! into each guest and is the guest's first process.
//!
//! | verb | where | purpose |
//! | --- | --- | --- |
//! | `door` | first process in the guest | waits until the daemon has set up the guest's network, then executes its init |
//! | `supervise` | host | records a guest's log and exit status, also while the daemon does not run |
//! | `join` | host | enters cgroups and executes a program |

mod arguments;
mod door;
mod join;
mod log;
mod supervise;

use std::io::Write as _;
use std::process::ExitCode;

use arguments::Verb;

/// The exit status of a usage error, as in `env(1)` and `nohup(1)`.
const USAGE: u8 = 125;

fn main() -> ExitCode {
    let verb = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(verb) => verb,
        Err(error) => {
            print_error(&error);
            return ExitCode::from(USAGE);
        }
    };
    match verb {
        Verb::Door { socket, program } => door::wait(&socket, &program),
        Verb::Supervise(settings) => supervise::run(&settings),
        Verb::Join { cgroups, program } => join::run(&cgroups, &program),
    }
}

/// Prints an error to standard error, best effort.
fn print_error(line: &str) {
    drop(writeln!(std::io::stderr(), "innkeeper-shim: {line}"));
}
