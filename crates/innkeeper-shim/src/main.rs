//! The helper beside and inside each guest, as small as it can be: the standard library, nothing else.
//!
//! The daemon embeds it as a static program, so that it also runs where nothing of the host can be seen:
//! it is bound read-only into each guest and is the guest's first process.
//!
//! | verb | where | what |
//! | --- | --- | --- |
//! | `door` | first process in the guest | waits until the manager has furnished the guest, then becomes its init |
//! | `supervise` | host | keeps a guest's log and exit status while the daemon may be away |
//! | `join` | host | puts itself into cgroups and becomes another program |

mod arguments;
mod door;
mod join;
mod log;
mod supervise;

use std::io::Write as _;
use std::process::ExitCode;

use arguments::Verb;

/// The exit status for a wrong command line, as in `env(1)` and `nohup(1)`.
const USAGE: u8 = 125;

fn main() -> ExitCode {
    let verb = match arguments::parse(std::env::args_os().skip(1)) {
        Ok(verb) => verb,
        Err(complaint) => {
            say(&complaint);
            return ExitCode::from(USAGE);
        }
    };
    match verb {
        Verb::Door { socket, program } => door::wait(&socket, &program),
        Verb::Supervise(plan) => supervise::run(&plan),
        Verb::Join { cgroups, program } => join::run(&cgroups, &program),
    }
}

/// Writes one line for people. There is nobody to tell when that fails.
fn say(line: &str) {
    drop(writeln!(std::io::stderr(), "innkeeper-shim: {line}"));
}
