//! Mounts of this process, from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The mount point.
    pub(crate) point: PathBuf,
    /// The filesystem's type, such as `ext4`.
    pub(super) filesystem: String,
    /// The filesystem's own options. Those of a cgroup v1 hierarchy include its controllers.
    pub(super) options: Vec<String>,
}

/// Parses all lines, skipping malformed ones.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    // The number of fields before the hyphen varies, and no field is a lone hyphen.
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    Some(Mount {
        point: unescape(before.split(' ').nth(4)?),
        filesystem: after.next()?.to_owned(),
        options: after
            .nth(1)
            .unwrap_or_default()
            .split(',')
            .map(str::to_owned)
            .collect(),
    })
}

/// Decodes space, tab, newline and backslash, written as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(decoded) if byte == b'\\' => {
                bytes.push(decoded);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Returns the mount that contains a path without symbolic links: the last one of the longest mount point above it, because a
/// later mount covers an earlier one.
pub(super) fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// Filesystems that support idmapped mounts, with the first Linux release that does (mount_setattr(2)).
///
/// `overlay` is missing on purpose: its layers may be on idmapped mounts, but it cannot be idmapped itself (`EINVAL` on
/// 6.18); nor can `ext2` and `ext3` through the driver of ext4. A filesystem that is not listed counts as unsupported, which
/// costs a change of ownership and is always correct.
const MAPPABLE: [(&str, Release); 10] = [
    ("btrfs", Release(5, 15)),
    ("ceph", Release(6, 7)),
    ("erofs", Release(5, 19)),
    ("ext4", Release(5, 12)),
    ("f2fs", Release(5, 18)),
    ("ntfs3", Release(5, 15)),
    ("squashfs", Release(6, 2)),
    ("tmpfs", Release(6, 3)),
    ("vfat", Release(5, 12)),
    ("xfs", Release(5, 12)),
];

/// Reports whether a kernel supports idmapped mounts of a filesystem.
pub(super) fn is_mappable(filesystem: &str, kernel: Release) -> bool {
    MAPPABLE
        .iter()
        .any(|(name, since)| *name == filesystem && kernel >= *since)
}

/// A kernel's release, as major and minor version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(pub(super) u32, pub(super) u32);

impl Release {
    /// Parses `/proc/sys/kernel/osrelease`, such as `6.12.9-amd64`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit());
        Some(Self(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_in_the_latest_of_the_nearest_mounts() {
        let mounts = parse(
            "22 1 0:1 / / rw - overlay overlay rw,lowerdir=/a\n\
             23 22 0:2 / /var rw shared:1 master:2 - ext4 /dev/a rw\n\
             24 22 0:3 / /var rw - xfs /dev/b rw\n\
             25 22 0:4 / /with\\040space rw - tmpfs tmpfs rw\n\
             this is no line\n",
        );
        assert_eq!(mounts.len(), 4);
        for (path, filesystem) in [
            ("/var/lib/innkeeper", "xfs"),
            ("/variable", "overlay"),
            ("/with space/x", "tmpfs"),
        ] {
            let found = holding(&mounts, Path::new(path)).expect("a mount");
            assert_eq!(found.filesystem, filesystem, "{path}");
        }
    }

    #[test]
    fn filesystem_is_mappable_since_a_release() {
        let release = |text| Release::parse(text).expect("release");
        assert!(is_mappable("ext4", release("5.12.0")));
        assert!(is_mappable("ext4", release("6.18.44-fc-v669\n")));
        assert!(!is_mappable("ext4", release("5.10.0-28-amd64")));
        assert!(!is_mappable("tmpfs", release("6.2")));
        assert!(!is_mappable("overlay", release("6.18")));
        assert!(!is_mappable("zfs", release("6.18")));
        assert_eq!(Release::parse("mainline"), None);
    }
}
