//! The helper beside and inside each guest. To stay small, it uses only the standard library, and `innkeeper-copy`, which does the
//! same.
//!
//! The daemon embeds it as a static program, so that it also runs without the host's files: it is bind-mounted read-only
//! into each guest and is the guest's first process.
//!
//! | verb | where | purpose |
//! | --- | --- | --- |
//! | `door` | first process in the guest | waits until the daemon has set up the guest's network, gives the guest its name and installs its system call filters where nspawn has not, then executes its init |
//! | `read-filters` | host | starts a guest that only parks, and reads the system call filters that nspawn has installed there |
//! | `filters-of` | host | prints the system call filters of a process, for tests |
//! | `park` | first process in that guest | waits until it is ended |
//! | `supervise` | host | records a guest's log and exit status, also while the daemon does not run |
//! | `join` | host | enters cgroups and executes a program |
//! | `limit-users` | host | limits the use of a user namespace's kernel tables |
//! | `copy-in` | guest, as the user of the copy | creates the files that it reads from standard input |
//! | `copy-out` | guest, as the user of the copy | writes files to standard output |

mod arguments;
mod copy;
mod door;
mod filters;
mod join;
mod kernel;
mod limit;
mod log;
mod read_filters;
mod spawn;
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
        Verb::Door {
            socket,
            needs_filters,
            program,
        } => door::wait(&socket, needs_filters, program),
        Verb::Park { socket } => read_filters::park(&socket),
        Verb::FiltersOf { pid } => read_filters::print(pid),
        Verb::ReadFilters { dir, nspawn } => read_filters::run(&dir, &nspawn),
        Verb::Supervise(settings) => supervise::run(&settings),
        Verb::Join { cgroups, program } => join::run(&cgroups, &program),
        Verb::LimitUsers(limits) => limit::run(&limits),
        Verb::CopyIn {
            target,
            is_directory,
        } => copy::receive(&target, is_directory),
        Verb::CopyOut { sources } => copy::send(&sources),
    }
}

/// Prints an error to standard error, best effort.
fn print_error(line: &str) {
    drop(writeln!(std::io::stderr(), "innkeeper-shim: {line}"));
}
