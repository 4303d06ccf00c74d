//! Keeps a guest's log and exit status, so that the daemon may be restarted at any time.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use crate::arguments::Supervision;
use crate::log::Log;
use crate::{USAGE, join, say};

/// Runs the program to its end and exits as it does.
///
/// The program starts when a byte comes on standard input: until then, the manager still makes the guest's file
/// tree. When the manager ends before that, nothing is started.
pub(crate) fn run(plan: &Supervision) -> ExitCode {
    let mut log = Log::new(&plan.log, plan.log_limit);
    let status = match start(plan) {
        Ok((child, output)) => watch(child, output, log),
        Err(failure) => {
            log.drain(format!("innkeeper-shim: {}\n", failure.complaint).as_bytes());
            say(&failure.complaint);
            failure.status
        }
    };
    if let Err(error) = keep(&plan.exit, status) {
        say(&format!("cannot write {}: {error}", plan.exit.display()));
    }
    ExitCode::from(status)
}

struct Failure {
    complaint: String,
    status: u8,
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program is nobody's secret keeper, and has no crate::command"
)]
fn start(plan: &Supervision) -> Result<(Child, PipeReader), Failure> {
    join::enter(&plan.cgroups).map_err(|complaint| Failure {
        complaint,
        status: USAGE,
    })?;
    io::stdin().read_exact(&mut [0]).map_err(|_| Failure {
        complaint: "the manager ended before it let the guest start".to_owned(),
        status: USAGE,
    })?;
    let spawn = || {
        let (reader, writer) = io::pipe()?;
        // The command holds the pipe's writing end; it must be gone before the end of the pipe can come.
        Command::new(&plan.program.path)
            .args(&plan.program.arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()
            .map(|child| (child, reader))
    };
    spawn().map_err(|error| Failure {
        complaint: format!("cannot run {}: {error}", plan.program.path.display()),
        status: if error.kind() == io::ErrorKind::NotFound {
            127
        } else {
            126
        },
    })
}

/// Copies the output until nobody can write any more, and returns the exit status.
fn watch(mut child: Child, output: PipeReader, mut log: Log) -> u8 {
    let copying = thread::spawn(move || log.drain(output));
    let status = child.wait().map_or(USAGE, code);
    // A panic of the copying thread aborts the whole program, so there is no other result.
    let _copied = copying.join();
    status
}

/// 128 + n for signal n, as shells say it.
fn code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => i32::from(USAGE),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// The file is there whole or not at all. It tells of this boot only, so it need not reach the disk.
fn keep(path: &Path, status: u8) -> io::Result<()> {
    let aside = path.with_added_extension("new");
    let mut file = fs::File::create(&aside)?;
    writeln!(file, "{status}")?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_apart_from_exit_codes() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(133 << 8)), 133);
    }
}
