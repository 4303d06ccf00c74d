//! Enters cgroups.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::arguments::Program;
use crate::{USAGE, door, say};

/// Enters the cgroups, then becomes `program`. Returns only when that is impossible.
pub(crate) fn run(cgroups: &[PathBuf], program: &Program) -> ExitCode {
    if let Err(complaint) = enter(cgroups) {
        say(&complaint);
        return ExitCode::from(USAGE);
    }
    let error = door::become_program(program);
    say(&error.complaint);
    ExitCode::from(error.status)
}

/// Moves this process into each of the cgroups. A program must not run where its limits do not reach it,
/// so the first failure ends the attempt.
///
/// This process has one thread. For that alone, version 1 has `tasks`, which is taken where it is: to move a
/// whole process, the kernel first waits until nobody forks or exits anywhere, for 5 to 15 ms.
pub(crate) fn enter(cgroups: &[PathBuf]) -> Result<(), String> {
    for cgroup in cgroups {
        match write(&cgroup.join("tasks")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&cgroup.join("cgroup.procs"))
            }
            result => result,
        }
        .map_err(|error| format!("cannot enter {}: {error}", cgroup.display()))?;
    }
    Ok(())
}

/// 0 is the writing thread or process, in every pid namespace. Nothing is created: a cgroup that is gone
/// stays gone.
fn write(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(b"0")
}
