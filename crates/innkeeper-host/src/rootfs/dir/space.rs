//! The space that trees need, and the permissions of their directory.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use innkeeper_model::api::{Check, PoolReport, RetainedSpace, Verdict};
use innkeeper_model::{Explain, GuestName};

use super::{DirConfig, GuestPaths};
use crate::rootfs::{RootfsError, USAGE_TIME};
use crate::{FileErrorExt, tree};

/// Returns the permission bits of a file.
pub(super) fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

/// Returns the file system that holds the trees, or will hold them.
fn disk(config: &DirConfig) -> Result<rustix::fs::StatVfs, RootfsError> {
    let existing = config
        .guests
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    Ok(rustix::fs::statvfs(existing).on("read", existing)?)
}

/// Returns the free bytes of that file system.
fn free(config: &DirConfig) -> Result<u64, RootfsError> {
    let disk = disk(config)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Returns the size and use of the file system.
pub(super) fn pool(config: &DirConfig) -> Result<PoolReport, RootfsError> {
    let disk = disk(config)?;
    let permille = 1000 - disk.f_bavail.saturating_mul(1000) / disk.f_blocks.max(1);
    let full = require_space(config).err();
    Ok(PoolReport {
        driver: "dir".to_owned(),
        place: config.guests.display().to_string(),
        size_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        data_percent: f64::from(u32::try_from(permille).unwrap_or(0)) / 10.0,
        metadata_percent: None,
        limit_percent: None,
        min_free_bytes: Some(config.min_free),
        retained: RetainedSpace::default(),
        remedy: full.and_then(|full| full.remedy()),
        volumes: Vec::new(),
    })
}

/// Fails if less space is free than a new tree needs.
pub(super) fn require_space(config: &DirConfig) -> Result<(), RootfsError> {
    let free = free(config)?;
    if free < config.min_free {
        let (path, needed) = (config.guests.clone(), config.min_free);
        return Err(RootfsError::DiskFull { path, free, needed });
    }
    Ok(())
}

/// The free inodes below which a check warns. A new tree alone takes some hundred.
const MIN_FREE_INODES: u64 = 10_000;

/// Checks bytes and inodes, and names the guests that use the most when they run short.
pub(super) fn check_space(config: &DirConfig) -> Check {
    let path = config.guests.display();
    let (verdict, finding) = match disk(config) {
        Err(error) => (Verdict::Broken, innkeeper_model::chain(&error)),
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            // Some file systems, such as btrfs, have no fixed number of inodes, and report none.
            let inodes = (disk.f_files > 0).then_some(disk.f_favail);
            let verdict = match free {
                free if free < config.min_free || inodes == Some(0) => Verdict::Broken,
                free if free / 2 < config.min_free => Verdict::Warning,
                _ if inodes.is_some_and(|free| free < MIN_FREE_INODES) => Verdict::Warning,
                _ => Verdict::Ok,
            };
            let inodes = inodes.map_or_else(String::new, |free| format!(" and {free} inodes"));
            let finding = format!(
                "{path} has {} MiB{inodes} left; a new guest or snapshot needs {} MiB",
                free >> 20,
                config.min_free.div_ceil(1 << 20)
            );
            (verdict, finding)
        }
    };
    Check {
        subject: "disk".to_owned(),
        verdict,
        finding,
        remedy: (verdict != Verdict::Ok).then(|| {
            let largest = largest(config);
            format!("Destroy guests and delete snapshots that are no longer needed, or free space on the disk that holds {path}.{largest}")
        }),
    }
}

/// Returns the bytes that a guest's tree takes, fewer when counting takes too long; `None` without a tree.
pub(in crate::rootfs) fn bytes(
    config: &DirConfig,
    guest: &GuestName,
) -> Result<Option<u64>, RootfsError> {
    let tree = GuestPaths::of(config, guest).rootfs();
    if !tree.is_dir() {
        return Ok(None);
    }
    let usage = tree::usage(&tree, Instant::now() + USAGE_TIME)?;
    Ok(Some(usage.bytes))
}

/// Returns a sentence with the three largest guests; empty without guests.
fn largest(config: &DirConfig) -> String {
    let deadline = Instant::now() + USAGE_TIME;
    let guests = fs::read_dir(&config.guests).into_iter().flatten().flatten();
    let mut found: Vec<_> = guests
        .filter_map(|entry| {
            let name: GuestName = entry.file_name().to_str()?.parse().ok()?;
            Some((tree::usage(&entry.path(), deadline).ok()?, name))
        })
        .collect();
    found.sort_by_key(|(usage, _)| std::cmp::Reverse((usage.bytes, usage.inodes)));
    let shown: Vec<_> = found
        .iter()
        .take(3)
        .map(|(usage, name)| {
            let least = if usage.complete { "" } else { "at least " };
            let (mebibytes, inodes) = (usage.bytes >> 20, usage.inodes);
            format!("{name} ({least}{mebibytes} MiB in {inodes} files)")
        })
        .collect();
    if shown.is_empty() {
        String::new()
    } else {
        format!(" The largest guests: {}.", shown.join(", "))
    }
}

/// Checks that only root can enter the directory of the trees.
pub(in crate::rootfs) fn check_mode(config: &DirConfig) -> Check {
    let path = config.guests.display();
    let (verdict, finding, remedy) = match mode(&config.guests) {
        Ok(0o700) => (
            Verdict::Ok,
            format!("{path} is closed to other users"),
            None,
        ),
        Ok(mode) => (
            Verdict::Broken,
            format!("{path} has mode {mode:o}: users of the host reach setuid files of guests"),
            Some(format!("chmod 700 {path}")),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            Verdict::Ok,
            format!("{path} will be created with the first guest"),
            None,
        ),
        Err(error) => (
            Verdict::Broken,
            format!("cannot read {path}: {error}"),
            Some("Run innkeeperd as root.".to_owned()),
        ),
    };
    Check {
        subject: "rootfs".to_owned(),
        verdict,
        finding,
        remedy,
    }
}
