//! The guest's first process, which waits at the door: a barrier before the guest's init.
//!
//! While it waits, it is the guest's only process, and the daemon sets up the guest's network. The daemon opens the
//! door by sending one byte. Then this process executes the closure's init, still as PID 1. That closes the connection,
//! because the standard library opens every descriptor close-on-exec; the daemon detects the start of init by it.
//!
//! With `--filters`, nspawn has installed no system call filters. This process then receives them with the byte, installs
//! them and executes init; it never does without them. The daemon may be another version than the one that started the
//! guest, so the requirement is part of the command line and not of the daemon's message.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::arguments::Program;
use crate::{USAGE, filters, print_error};

/// The pause before a retry. The daemon is unavailable only during a restart.
const PAUSE: Duration = Duration::from_millis(50);

/// The daemon's byte when the filters follow. Without filters it sends 1, but every byte opens the door.
const WITH_FILTERS: u8 = 2;

/// Marks the message about filters that are not in force, so that the daemon can tell it from init's.
const UNFILTERED: char = '\u{1}';

/// Waits for the daemon's byte, installs the filters if they are required, then executes `program`. Returns only on failure.
pub(crate) fn wait(socket: &Path, needs_filters: bool, program: &Program) -> ExitCode {
    let (mut connection, received) = loop {
        // Also after a connection that ended early: the daemon was killed, and another one will listen.
        if let Some(opened) = open(socket, needs_filters) {
            break opened;
        }
        std::thread::sleep(PAUSE);
    };
    let (report, error) = match received {
        Ok(()) => {
            let error = execute(program);
            (error.message.clone(), error)
        }
        Err(message) => (
            format!("{UNFILTERED}{message}"),
            ExecuteError {
                message,
                status: USAGE,
            },
        ),
    };
    // The daemon reports these bytes as the reason why init did not start. Best effort.
    let _sent = connection.write_all(report.as_bytes());
    print_error(&error.message);
    ExitCode::from(error.status)
}

/// Connects and waits for the byte. Returns whether the required filters are in force, or `None` if the daemon is
/// unavailable.
fn open(socket: &Path, needs_filters: bool) -> Option<(UnixStream, Result<(), String>)> {
    let mut connection = UnixStream::connect(socket).ok()?;
    let mut byte = [0];
    connection.read_exact(&mut byte).ok()?;
    if !needs_filters {
        return Some((connection, Ok(())));
    }
    if byte != [WITH_FILTERS] {
        let message = "innkeeperd sent no system call filters: it is an older version";
        return Some((connection, Err(message.to_owned())));
    }
    let installed = match filters::receive(&mut connection) {
        Ok(list) => filters::install(&list),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(format!("cannot read the system call filters: {error}"))
        }
        Err(_) => return None,
    };
    Some((connection, installed))
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
