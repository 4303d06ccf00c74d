//! Processes by pidfd, so that a reused process id is never mistaken for them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cgroup;
use crate::CommandError;

/// A process, by its pidfd.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

impl Process {
    /// Opens a process that is in a cgroup. `None` when it has ended. A reused id is detected: its process is not in the
    /// cgroup.
    pub(super) fn in_cgroup(pid: u32, cgroup: &Path) -> io::Result<Option<Self>> {
        let Some(process) = Self::open(pid)? else {
            return Ok(None);
        };
        Ok(cgroup::contains(cgroup, pid)?.then_some(process))
    }

    /// Opens a process. The caller must check that it is the right one.
    pub(super) fn open(pid: u32) -> io::Result<Option<Self>> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| pidfd_open(pid, PidfdFlags::NONBLOCK)) {
            None | Some(Err(Errno::SRCH)) => Ok(None),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(descriptor)) => Ok(Some(Self(descriptor))),
        }
    }

    /// Sends a signal. Has no effect on a process that has ended.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reports whether it has not ended.
    pub(super) fn is_alive(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(rustix::event::poll(&mut polled, Some(&Timespec::default()))? == 0)
    }

    /// Returns when the process has ended.
    pub(super) async fn ended(self) -> io::Result<()> {
        // A pidfd becomes readable when the process ends (pidfd_open(2)).
        watched(self.0, Interest::READABLE)?
            .readable()
            .await
            .map(drop)
    }
}

/// Registers a descriptor with the runtime.
///
/// The deprecated constructor is unsound for types that hand out descriptors they do not own; an
/// [`OwnedFd`] owns its descriptor for as long as it lives, and the replacement needs `unsafe`.
#[expect(deprecated, reason = "sound for an OwnedFd")]
pub(crate) fn watched(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, interest)
}

/// Finds a program of the host by its path, or by its name in `PATH`.
pub(super) fn find_program(program: &Path) -> Result<PathBuf, CommandError> {
    let found = if program.components().count() > 1 {
        program.is_file().then(|| program.to_owned())
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|dir| dir.join(program))
            .find(|path| path.is_file())
    };
    found.ok_or_else(|| CommandError::Missing {
        program: program.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_program_accepts_a_path_or_a_name() {
        let find = |program: &str| find_program(Path::new(program));
        assert!(find("sh").is_ok_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh").expect("there"), Path::new("/bin/sh"));
        for missing in ["/no/such/program", "no-such-program"] {
            assert!(matches!(find(missing), Err(CommandError::Missing { .. })));
        }
    }
}
