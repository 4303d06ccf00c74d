//! The guest's first process, which waits at the door: a barrier before the guest's init.
//!
//! While it waits, it is the guest's only process, and the daemon sets up the guest's network. The daemon opens the
//! door by sending one byte. Then this process executes the closure's init, still as PID 1. That closes the connection,
//! because the standard library opens every descriptor close-on-exec; the daemon detects the start of init by it.
//!
//! With `--filters`, nspawn has installed no system call filters. This process then receives them with the byte, installs
//! them and executes init; it never does without them. The daemon may be another version than the one that started the
//! guest, so the requirement is part of the command line and not of the daemon's message.
//!
//! With 3, a path and a line break before the byte, it executes the closure's `etc/innkeeper/boot-own` in place of init, with
//! that path: a system of the guest's own.
//!
//! Before it waits, it turns SYN cookies off in the guest's network namespace: see [`SYN_COOKIES`].
//!
//! A guest that waits without a name has no init on its command line. Its message begins with 4, the guest's name and the path of
//! init, each with a line break.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::arguments::Program;
use crate::{USAGE, filters, kernel, print_error};

/// The setting of SYN cookies (ip-sysctl, `tcp_syncookies`) of this process' network namespace.
///
/// With them, an app whose queue of connections is full, as when all requests that waited for its wake arrive at once, loses requests:
/// the kernel answers a connection and forgets it, and resets it if the first data that it accepts is not the beginning of the
/// request, which is so for most bodies. Without them, the client's connection waits. SYN cookies protect a server on
/// the internet from floods with forged addresses, and a guest is reached through the host only.
const SYN_COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// The pause before a retry. The daemon is unavailable only during a restart.
const PAUSE: Duration = Duration::from_millis(50);

/// The time that the daemon has to look at this process after an error.
const LAST_LOOK: Duration = Duration::from_secs(5);

/// The daemon's byte when the filters follow. Without filters it sends 1, but every byte opens the door.
const WITH_FILTERS: u8 = 2;

/// Announces the path of the guest's own system, before that byte.
const BOOT_OWN: u8 = 3;

/// Announces the guest's name and the path of its init, first of all.
const NAMED: u8 = 4;

/// The maximum length of a path or a name, in bytes.
const MAX_LINE: usize = 1000;

/// Marks the message about filters that are not in force, so that the daemon can tell it from init's.
const UNFILTERED: char = '\u{1}';

/// A message of the daemon.
struct Opened {
    connection: UnixStream,
    /// The guest's name and its init, for a guest that has waited without them.
    named: Option<(OsString, Program)>,
    /// The guest's own system to boot.
    own: Option<OsString>,
    /// An error if the required filters are not in force.
    filtered: Result<(), String>,
}

/// Waits for the daemon's byte, installs the filters if they are required, then executes `program`, or the one that the message
/// names. Returns only on failure.
pub(crate) fn wait(socket: &Path, needs_filters: bool, program: Option<Program>) -> ExitCode {
    // A kernel without SYN cookies lacks the file.
    let _written = fs::write(SYN_COOKIES, "0");
    let opened = loop {
        // Also after a connection that ended early: the daemon was killed, and another one will listen.
        if let Some(opened) = open(socket, needs_filters) {
            break opened;
        }
        std::thread::sleep(PAUSE);
    };
    let Opened {
        mut connection,
        named,
        own,
        filtered,
    } = opened;
    let (report, error) = match filtered {
        Ok(()) => {
            let error = enter(named, program, own);
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
    await_end(&mut connection);
    ExitCode::from(error.status)
}

/// Gives the guest its name if it has none, then executes its init or its own system. Returns only on failure.
fn enter(
    named: Option<(OsString, Program)>,
    program: Option<Program>,
    own: Option<OsString>,
) -> ExecuteError {
    let failed = |message: String| ExecuteError {
        message,
        status: USAGE,
    };
    let program = match (named, program) {
        (Some((name, init)), _) => {
            // As `--hostname=` of nspawn does.
            if let Err(error) = kernel::set_host_name(&name) {
                return failed(format!("cannot set the host name: {error}"));
            }
            init
        }
        (None, Some(program)) => program,
        (None, None) => {
            return failed("innkeeperd named no init: it is an older version".to_owned());
        }
    };
    match own {
        None => execute(&program),
        Some(own) => execute(&boot_own(&program, own)),
    }
}

/// Waits until the daemon has closed the connection: it looks at this process, which would otherwise be gone.
fn await_end(connection: &mut UnixStream) {
    let limited = connection
        .shutdown(Shutdown::Write)
        .and_then(|()| connection.set_read_timeout(Some(LAST_LOOK)));
    if limited.is_ok() {
        let _ended = connection.read(&mut [0]);
    }
}

/// Connects and waits for the byte. Returns `None` if the daemon is unavailable.
fn open(socket: &Path, needs_filters: bool) -> Option<Opened> {
    let mut connection = UnixStream::connect(socket).ok()?;
    let mut byte = [0];
    connection.read_exact(&mut byte).ok()?;
    let mut named = None;
    if byte == [NAMED] {
        let name = read_line(&mut connection)?;
        let init = Program {
            path: read_line(&mut connection)?,
            arguments: Vec::new(),
        };
        named = Some((name, init));
        connection.read_exact(&mut byte).ok()?;
    }
    let mut own = None;
    if byte == [BOOT_OWN] {
        own = Some(read_line(&mut connection)?);
        connection.read_exact(&mut byte).ok()?;
    }
    let filtered = if !needs_filters {
        Ok(())
    } else if byte != [WITH_FILTERS] {
        Err("innkeeperd sent no system call filters: it is an older version".to_owned())
    } else {
        match filters::receive(&mut connection) {
            Ok(list) => filters::install(&list),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(format!("cannot read the system call filters: {error}"))
            }
            Err(_) => return None,
        }
    };
    Some(Opened {
        connection,
        named,
        own,
        filtered,
    })
}

/// Reads a line, and nothing after it; `None` if the connection ends before it does.
fn read_line(connection: &mut UnixStream) -> Option<OsString> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE {
        connection.read_exact(&mut byte).ok()?;
        match byte {
            [b'\n'] => return Some(OsString::from_vec(line)),
            [byte] => line.push(byte),
        }
    }
    None
}

/// Returns the program that boots a system of the guest's own. It is part of the closure whose init is `init`.
fn boot_own(init: &Program, own: OsString) -> Program {
    Program {
        path: Path::new(&init.path)
            .with_file_name("etc/innkeeper/boot-own")
            .into(),
        arguments: vec![own],
    }
}

/// A failed execution of a program, with the exit status that shells use for it.
pub(crate) struct ExecuteError {
    pub(crate) message: String,
    pub(crate) status: u8,
}

/// Replaces this process by `program`, with the same environment. Returns only on failure.
pub(crate) fn execute(program: &Program) -> ExecuteError {
    execute_with(program, |command| command)
}

/// Replaces this process like [`execute`]. `set` sets the program's standard input and output.
#[expect(
    clippy::disallowed_methods,
    reason = "this program holds no secrets, and has no crate::command"
)]
pub(crate) fn execute_with(
    program: &Program,
    set: impl FnOnce(&mut Command) -> &mut Command,
) -> ExecuteError {
    let mut command = Command::new(&program.path);
    let error = set(command.args(&program.arguments)).exec();
    ExecuteError {
        message: format!("cannot execute {}: {error}", program.path.display()),
        status: if error.kind() == ErrorKind::NotFound {
            127
        } else {
            126
        },
    }
}
