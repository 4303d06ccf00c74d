//! The guest's first process: it waits at the door.
//!
//! While it waits, it is the only process of the guest, and the manager gives the guest its network. The
//! manager opens the door by sending one byte; then this process becomes the closure's init, still as
//! PID 1. The connection closes with that (the standard library opens every descriptor close-on-exec),
//! which is how the manager learns that init has taken over.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::arguments::Program;
use crate::say;

/// The pause before the manager is looked for again. It is away only while it is being restarted.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits for the manager's byte, then becomes `program`. Returns only when that is impossible.
pub(crate) fn wait(socket: &Path, program: &Program) -> ExitCode {
    let mut connection = loop {
        match knock(socket) {
            Some(connection) => break connection,
            None => std::thread::sleep(PAUSE),
        }
    };
    let error = become_program(program);
    // The manager takes whatever comes back as the reason why init did not take over.
    let _told = connection.write_all(error.complaint.as_bytes());
    say(&error.complaint);
    ExitCode::from(error.status)
}

/// The connection over which the byte came, or `None` when the manager is away.
fn knock(socket: &Path) -> Option<UnixStream> {
    let mut connection = UnixStream::connect(socket).ok()?;
    connection.read_exact(&mut [0]).ok()?;
    Some(connection)
}

/// Why a program could not be executed, with the exit status that shells give it.
pub(crate) struct CannotExecute {
    pub(crate) complaint: String,
    pub(crate) status: u8,
}

/// Replaces this process by `program`, with the same environment. Returns only on failure.
#[expect(
    clippy::disallowed_methods,
    reason = "this program is nobody's secret keeper, and has no crate::command"
)]
pub(crate) fn become_program(program: &Program) -> CannotExecute {
    let error = Command::new(&program.path).args(&program.arguments).exec();
    CannotExecute {
        complaint: format!("cannot execute {}: {error}", program.path.display()),
        status: if error.kind() == ErrorKind::NotFound {
            127
        } else {
            126
        },
    }
}
