//! Starts processes in cgroups: the kernel starts one in a cgroup of version 2 at once, while moving one there takes 5 to 15 ms.

use std::fs::File;
use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use crate::arguments::Program;
use crate::kernel::{Child, Forked, Parent, fork_here, fork_into};
use crate::{USAGE, door, join};

/// Starts a program in the cgroups, without input and with `output` as its output. Errors after the fork appear there, too.
/// This process must have one thread.
pub(crate) fn spawn(
    cgroups: &[PathBuf],
    program: &Program,
    output: PipeWriter,
) -> io::Result<Child> {
    let unified = cgroups.iter().position(|dir| is_unified(dir));
    let forked = unified.map(|index| fork_into(&File::open(&cgroups[index])?, Parent::This));
    let (forked, entered) = match forked {
        Some(Ok(forked)) => (forked, unified),
        // Old kernels, and containers that forbid it.
        Some(Err(_)) | None => (fork_here()?, None),
    };
    match forked {
        Forked::Parent(child) => Ok(child),
        Forked::Child => {
            let mut left = cgroups.to_vec();
            if let Some(index) = entered {
                left.remove(index);
            }
            process::exit(execute(&left, program, output).into())
        }
    }
}

/// The process that continues after [`move_into`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// This one.
    Here,
    /// A sibling of this one, which is to exit.
    Sibling,
}

/// Continues in the cgroups. This process must have one thread.
pub(crate) fn move_into(cgroups: &[PathBuf]) -> Result<Place, String> {
    if let [cgroup] = cgroups
        && is_unified(cgroup)
        && let Ok(dir) = File::open(cgroup)
    {
        match fork_into(&dir, Parent::Own) {
            Ok(Forked::Parent(_)) => return Ok(Place::Sibling),
            Ok(Forked::Child) => return Ok(Place::Here),
            // Old kernels, and containers that forbid it.
            Err(_) => {}
        }
    }
    join::enter(cgroups)?;
    Ok(Place::Here)
}

/// Reports whether a cgroup belongs to the hierarchy of version 2.
fn is_unified(dir: &Path) -> bool {
    !dir.join("tasks").exists()
}

/// Enters the cgroups and replaces this process by the program. Returns the exit status on failure.
fn execute(cgroups: &[PathBuf], program: &Program, mut output: PipeWriter) -> u8 {
    let executed = join::enter(cgroups)
        .map_err(|message| (message, USAGE))
        .and_then(|()| {
            let copies = output
                .try_clone()
                .and_then(|copy| Ok((copy.try_clone()?, copy)));
            let (first, second) = copies.map_err(|error| (error.to_string(), USAGE))?;
            let error = door::execute_with(program, |command| {
                command.stdin(Stdio::null()).stdout(first).stderr(second)
            });
            Err((error.message, error.status))
        });
    let Err((message, status)): Result<(), _> = executed else {
        return 0;
    };
    // Without a reader, the error is lost.
    let _written = writeln!(output, "innkeeper-shim: {message}");
    status
}
