//! Records a guest's log and exit status, so that the daemon can be restarted at any time.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, ExitCode, ExitStatus};
use std::thread;

use crate::arguments::Supervision;
use crate::kernel::Child;
use crate::log::Log;
use crate::spawn::{self, Place};
use crate::{USAGE, print_error};

/// Runs the program until it exits, and exits with its status.
///
/// Prints a line with the number of the process that does so: this one, or a sibling of it, which is in its cgroup from the
/// start. This one exits at once then. The program starts when a byte arrives on standard input: until then, the daemon still
/// creates the guest's file tree. If the daemon exits before that, the program is not started.
pub(crate) fn run(settings: &Supervision) -> ExitCode {
    let place = spawn::move_into(&settings.cgroups);
    if place == Ok(Place::Sibling) {
        return ExitCode::SUCCESS;
    }
    // Without a reader, the daemon is gone.
    let _printed = writeln!(io::stdout(), "{}", process::id());
    supervise(settings, place.map(drop))
}

fn supervise(settings: &Supervision, entered: Result<(), String>) -> ExitCode {
    let mut log = Log::new(&settings.log, settings.log_limit);
    let status = match start(settings, entered) {
        Ok((child, output)) => watch(child, output, log),
        Err(failure) => {
            log.drain(format!("innkeeper-shim: {}\n", failure.message).as_bytes());
            print_error(&failure.message);
            failure.status
        }
    };
    if let Err(error) = record(&settings.exit, status) {
        print_error(&format!(
            "cannot write {}: {error}",
            settings.exit.display()
        ));
    }
    ExitCode::from(status)
}

struct Failure {
    message: String,
    status: u8,
}

fn start(
    settings: &Supervision,
    entered: Result<(), String>,
) -> Result<(Child, PipeReader), Failure> {
    entered.map_err(|message| Failure {
        message,
        status: USAGE,
    })?;
    io::stdin().read_exact(&mut [0]).map_err(|_| Failure {
        message: "the daemon exited before it started the guest".to_owned(),
        status: USAGE,
    })?;
    let start = || {
        let (reader, writer) = io::pipe()?;
        let child = spawn::spawn(&settings.guest_cgroups, &settings.program, writer)?;
        Ok((child, reader))
    };
    start().map_err(|error: io::Error| Failure {
        message: format!("cannot start a process: {error}"),
        status: USAGE,
    })
}

/// Copies the output until its last writer closes it, and returns the exit status.
fn watch(child: Child, output: PipeReader, mut log: Log) -> u8 {
    let copying = thread::spawn(move || log.drain(output));
    let status = child.wait().map_or(USAGE, code);
    // Cannot fail: a panic of the copying thread aborts the whole program.
    let _copied = copying.join();
    status
}

/// Returns the exit code, or 128 + n for signal n as shells do.
fn code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(USAGE),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Writes the exit status atomically. Without fsync: the file is used until the next boot only.
fn record(path: &Path, status: u8) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    let mut file = fs::File::create(&temporary)?;
    writeln!(file, "{status}")?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_distinguished_from_exit_codes() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(133 << 8)), 133);
    }
}
