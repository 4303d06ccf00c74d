//! The guest's first process, which waits at the door: a barrier before the guest's init.
//!
//! While it waits, it is the guest's only process, and the daemon sets up the guest's network. The daemon opens the
//! door by sending one byte. Then this process executes the closure's init, still as PID 1. That closes the connection,
//! because the standard library opens every descriptor close-on-exec; the daemon detects the start of init by it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::arguments::Program;
use crate::print_error;

/// The pause before a retry. The daemon is unavailable only during a restart.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for the daemon's byte, then executes `program`. Returns only on failure.
pub(crate) fn wait(socket: &Path, program: &Program) -> ExitCode {
    let mut connection = loop {
        match connect(socket) {
            Some(connection) => break connection,
            None => std::thread::sleep(PAUSE),
        }
    };
    let error = execute(program);
    // The daemon reports these bytes as the reason why init did not start. Best effort.
    let _sent = connection.write_all(error.message.as_bytes());
    print_error(&error.message);
    ExitCode::from(error.status)
}

/// Returns the connection after the byte has arrived, or `None` if the daemon is unavailable.
fn connect(socket: &Path) -> Option<UnixStream> {
    let mut connection = UnixStream::connect(socket).ok()?;
    connection.read_exact(&mut [0]).ok()?;
    Some(connection)
}

/// A failed execution of a program, with the exit status that shells use for it.
pub(crate) struct ExecuteError {
    pub(crate) message: String,
    pub(crate) status: u8,
}

/// Replaces this process by `program`, with the same environment. Returns only on failure.
#[expect(
    clippy::disallowed_methods,
    reason = "this program holds no secrets, and has no crate::command"
)]
pub(crate) fn execute(program: &Program) -> ExecuteError {
    let error = Command::new(&program.path).args(&program.arguments).exec();
    ExecuteError {
        message: format!("cannot execute {}: {error}", program.path.display()),
        status: if error.kind() == ErrorKind::NotFound {
            127
        } else {
            126
        },
    }
}
