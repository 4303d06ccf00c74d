//! Moves this process into cgroups.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::arguments::Program;
use crate::{USAGE, door, print_error};

/// Enters the cgroups, then executes `program`. Returns only on failure.
pub(crate) fn run(cgroups: &[PathBuf], program: &Program) -> ExitCode {
    if let Err(error) = enter(cgroups) {
        print_error(&error);
        return ExitCode::from(USAGE);
    }
    let error = door::execute(program);
    print_error(&error.message);
    ExitCode::from(error.status)
}

/// Moves this process into each of the cgroups. Fails at the first error: a program must not run without its limits.
///
/// This process has one thread, so `tasks` of cgroup version 1 suffices and is preferred. Moving a whole process takes 5
/// to 15 ms, because the kernel waits until no process of the host forks or exits.
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

/// 0 stands for the writing thread or process, in every PID namespace. Never creates the file: the cgroup may have been
/// removed.
fn write(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(b"0")
}
