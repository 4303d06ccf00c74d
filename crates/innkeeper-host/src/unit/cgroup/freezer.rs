//! Suspends the processes of a cgroup of version 2 (Linux manual, "Control Group v2", "cgroup.freeze").

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::PAUSE;
use crate::{FileError, FileErrorExt};

/// The time that processes have to stop. One that waits for a disk or a server stops when it has its answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Suspends all processes of a cgroup and below it, and returns when they have stopped. Reports whether the cgroup can.
pub(in super::super) async fn freeze(cgroup: &Path) -> Result<bool, FileError> {
    let file = cgroup.join("cgroup.freeze");
    if !file.exists() {
        return Ok(false);
    }
    let frozen = async {
        fs::write(&file, "1")?;
        while !fs::read_to_string(cgroup.join("cgroup.events"))?.contains("frozen 1") {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    };
    let frozen = tokio::time::timeout(LIMIT, frozen).await;
    let frozen: io::Result<()> = frozen.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if frozen.is_err() {
        thaw(cgroup)?;
    }
    frozen.on("freeze", &file)?;
    Ok(true)
}

/// Continues the processes of a cgroup. Has no effect if it does not exist or is not frozen.
pub(in super::super) fn thaw(cgroup: &Path) -> Result<(), FileError> {
    let file = cgroup.join("cgroup.freeze");
    match fs::read_to_string(&file) {
        Ok(state) if state.trim() == "1" => fs::write(&file, "0").on("write", &file),
        _ => Ok(()),
    }
}
