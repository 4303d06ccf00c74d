//! Frees the memory of suspended cgroups: by `memory.reclaim` of version 2 (Linux manual, "Control Group v2"), which Linux has
//! since 5.19, or `memory.force_empty` of version 1 ("Memory Resource Controller").
//!
//! Running guests have no swap: a guest that exceeds its limit ends a process instead of slowing the host down. So version 2
//! permits swap for the time of a reclaim only. Pages that are in swap when it is forbidden again stay there until they are
//! used. Version 1 limits memory and swap together, which a reclaim does not change.
//!
//! A guest with a `memory.min` or `memory.low` in cgroups of its own keeps that much.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::freezer::{Suspension, suspension};
use super::listing::is_gone;
use crate::{FileError, FileErrorExt};

/// The amount of one request, in bytes. The processes may continue in between.
const PART: u64 = 16 << 20;

/// The limit of swap of version 2.
const SWAP_LIMIT: &str = "memory.swap.max";

/// The files by which the kernel reclaims memory, newest version first.
const RECLAIM: [&str; 2] = ["memory.reclaim", "memory.force_empty"];

/// Reports whether the kernel can reclaim the memory of a cgroup.
pub(in super::super) fn can_reclaim(cgroup: &Path) -> bool {
    RECLAIM.iter().any(|file| cgroup.join(file).exists())
}

/// Frees memory of a cgroup and those below it, as long as their processes are suspended. Returns the bytes that were freed;
/// `None` if the kernel cannot.
pub(in super::super) fn reclaim(
    cgroup: &Path,
    freezer: &[PathBuf],
) -> Result<Option<u64>, FileError> {
    let Some(before) = used(cgroup) else {
        return Ok(None);
    };
    let [by_amount, at_once] = RECLAIM.map(|file| cgroup.join(file));
    if by_amount.exists() {
        permit_swap(cgroup)?;
        let result = reclaim_parts(cgroup, &by_amount, freezer);
        forbid_swap(cgroup)?;
        result?;
    } else if at_once.exists() {
        if is_frozen(freezer) {
            tolerate(fs::write(&at_once, "0")).on("write", &at_once)?;
        }
    } else {
        return Ok(None);
    }
    let after = used(cgroup).unwrap_or(before);
    Ok(Some(before.saturating_sub(after)))
}

fn reclaim_parts(cgroup: &Path, file: &Path, freezer: &[PathBuf]) -> Result<(), FileError> {
    let mut left = used(cgroup).unwrap_or(0);
    while left > 0 && is_frozen(freezer) {
        let part = left.min(PART);
        match fs::write(file, part.to_string()) {
            // The kernel found less than that.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            result => tolerate(result).on("write", file)?,
        }
        left -= part;
    }
    Ok(())
}

fn is_frozen(freezer: &[PathBuf]) -> bool {
    matches!(suspension(freezer), Suspension::Complete)
}

/// Returns the memory in a cgroup and below it, with all of its file cache, in bytes.
fn used(cgroup: &Path) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let text = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
    text.trim().parse().ok()
}

fn permit_swap(cgroup: &Path) -> Result<(), FileError> {
    set_swap_limit(cgroup, "max")
}

/// Forbids the processes of a cgroup of version 2 to move further memory to swap. Has no effect on other cgroups.
pub(in super::super) fn forbid_swap(cgroup: &Path) -> Result<(), FileError> {
    match fs::read_to_string(cgroup.join(SWAP_LIMIT)) {
        Ok(limit) if limit.trim() != "0" => set_swap_limit(cgroup, "0"),
        _ => Ok(()),
    }
}

fn set_swap_limit(cgroup: &Path, limit: &str) -> Result<(), FileError> {
    let file = cgroup.join(SWAP_LIMIT);
    match fs::write(&file, limit) {
        // A kernel without accounting of swap limits none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => tolerate(result).on("write", &file),
    }
}

/// Turns the error of a cgroup that was removed meanwhile into success.
fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_gone(&error) => Ok(()),
        result => result,
    }
}
