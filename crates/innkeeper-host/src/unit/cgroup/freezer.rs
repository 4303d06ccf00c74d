//! Suspends the processes of a cgroup: by `cgroup.freeze` of version 2 (Linux manual, "Control Group v2"), or the freezer of
//! version 1 ("Cgroup Freezer").
//!
//! Both suspend the cgroups below too, and processes that enter them later. A process of a frozen cgroup of version 1 does
//! not end before it is continued, not even by SIGKILL.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::PAUSE;
use crate::{FileError, FileErrorExt};

/// The time that processes have to stop. One that waits for a disk or a server stops when it has its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// The files that suspend a cgroup.
enum Freezer<'a> {
    /// Those of version 2.
    Two(&'a Path),
    /// Those of version 1.
    One(&'a Path),
}

impl<'a> Freezer<'a> {
    /// Returns the files of the first cgroup that has any.
    fn find(cgroups: &'a [PathBuf]) -> Option<Self> {
        cgroups.iter().find_map(|cgroup| {
            let has = |file: &str| cgroup.join(file).exists();
            match () {
                () if has("cgroup.freeze") => Some(Self::Two(cgroup)),
                () if has("freezer.state") => Some(Self::One(cgroup)),
                () => None,
            }
        })
    }

    /// Returns the file that suspends and continues.
    fn control(&self) -> PathBuf {
        match self {
            Self::Two(cgroup) => cgroup.join("cgroup.freeze"),
            Self::One(cgroup) => cgroup.join("freezer.state"),
        }
    }

    fn suspend(&self) -> io::Result<()> {
        fs::write(
            self.control(),
            match self {
                Self::Two(_) => "1",
                Self::One(_) => "FROZEN",
            },
        )
    }

    fn resume(&self) -> io::Result<()> {
        fs::write(
            self.control(),
            match self {
                Self::Two(_) => "0",
                Self::One(_) => "THAWED",
            },
        )
    }

    /// Reports whether the cgroup is to be suspended, also while processes still run ([`Self::has_stopped`]).
    fn is_suspended(&self) -> io::Result<bool> {
        let path = match self {
            Self::Two(cgroup) => cgroup.join("cgroup.freeze"),
            // The state would also be that of a container in which the daemon runs.
            Self::One(cgroup) => cgroup.join("freezer.self_freezing"),
        };
        Ok(fs::read_to_string(path)?.trim() == "1")
    }

    /// Reports whether all processes have stopped.
    fn has_stopped(&self) -> io::Result<bool> {
        Ok(match self {
            Self::Two(cgroup) => {
                fs::read_to_string(cgroup.join("cgroup.events"))?.contains("frozen 1")
            }
            Self::One(_) => fs::read_to_string(self.control())?.trim() == "FROZEN",
        })
    }
}

/// Suspends all processes of the first of these cgroups that can, and below it. Returns when they have stopped. Reports
/// whether any of the cgroups can.
pub(in super::super) async fn freeze(cgroups: &[PathBuf]) -> Result<bool, FileError> {
    let Some(freezer) = Freezer::find(cgroups) else {
        return Ok(false);
    };
    let frozen = async {
        freezer.suspend()?;
        while !freezer.has_stopped()? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    let frozen = tokio::time::timeout(LIMIT, frozen).await;
    let frozen: io::Result<()> = frozen.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if frozen.is_err() {
        thaw(cgroups)?;
    }
    frozen.on("freeze", freezer.control())?;
    Ok(true)
}

/// Continues the processes of cgroups. Has no effect if none exists or is frozen.
pub(in super::super) fn thaw(cgroups: &[PathBuf]) -> Result<(), FileError> {
    match Freezer::find(cgroups) {
        Some(freezer) if is_suspended(&freezer) => match freezer.resume() {
            // It was removed meanwhile, without processes.
            Err(_) if !freezer.control().exists() => Ok(()),
            result => result.on("write", freezer.control()),
        },
        _ => Ok(()),
    }
}

/// How far the processes of a cgroup are suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Suspension {
    /// They run.
    None,
    /// They are to be suspended, and some still run.
    Begun,
    /// All are suspended.
    Complete,
}

/// Returns how far the processes of cgroups are suspended.
pub(in super::super) fn suspension(cgroups: &[PathBuf]) -> Suspension {
    match Freezer::find(cgroups) {
        Some(freezer) if is_suspended(&freezer) => match freezer.has_stopped() {
            Ok(true) => Suspension::Complete,
            _ => Suspension::Begun,
        },
        _ => Suspension::None,
    }
}

/// A cgroup that cannot be read is gone, with its processes.
fn is_suspended(freezer: &Freezer<'_>) -> bool {
    freezer.is_suspended().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspension_is_complete_when_all_processes_have_stopped() {
        let cgroup = tempfile::tempdir().expect("a directory");
        let cgroups = [cgroup.path().to_owned()];
        assert_eq!(suspension(&cgroups), Suspension::None);
        let write = |file: &str, content: &str| {
            fs::write(cgroup.path().join(file), content).expect("written");
        };
        // As the kernel shows it, in both versions.
        for (requested, reached, expected) in [
            ("0\n", "frozen 0\n", Suspension::None),
            ("1\n", "frozen 0\n", Suspension::Begun),
            ("1\n", "frozen 1\n", Suspension::Complete),
        ] {
            write("cgroup.freeze", requested);
            write("cgroup.events", &format!("populated 1\n{reached}"));
            assert_eq!(suspension(&cgroups), expected);
        }
        fs::remove_file(cgroup.path().join("cgroup.freeze")).expect("removed");
        for (requested, reached, expected) in [
            ("0\n", "THAWED\n", Suspension::None),
            ("1\n", "FREEZING\n", Suspension::Begun),
            ("1\n", "FROZEN\n", Suspension::Complete),
        ] {
            write("freezer.self_freezing", requested);
            write("freezer.state", reached);
            assert_eq!(suspension(&cgroups), expected);
        }
    }
}
