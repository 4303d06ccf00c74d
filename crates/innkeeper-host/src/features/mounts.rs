//! What is mounted where, out of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where.
    pub(crate) point: PathBuf,
    /// The filesystem's type, such as `ext4`.
    pub(super) filesystem: String,
    /// The filesystem's own options; those of a cgroup v1 hierarchy name its controllers.
    pub(super) options: Vec<String>,
}

/// Reads all lines; what is not of the documented form is left out.
pub(crate) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &str) -> Option<Mount> {
    // There is any number of fields before the hyphen, and none of them is a lone hyphen.
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

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(meant) if byte == b'\\' => {
                bytes.push(meant);
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

/// The mount that a path without symlinks lies in: the last one of the longest mount points above it,
/// because a later mount covers an earlier one.
pub(super) fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// Since which Linux a filesystem can be mounted with mapped ids, out of mount_setattr(2). `overlay` is
/// missing on purpose: its layers may lie on mapped mounts, but it cannot be mapped itself (`EINVAL` on
/// 6.18), nor can `ext2` and `ext3` through the driver of ext4. What is not named here counts as unable,
/// which costs a change of ownership and is never wrong.
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

/// Whether this kernel can mount this filesystem with mapped ids.
pub(super) fn is_mappable(filesystem: &str, kernel: Release) -> bool {
    MAPPABLE
        .iter()
        .any(|(name, since)| *name == filesystem && kernel >= *since)
}

/// A kernel's release: the two numbers that features depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release(pub(super) u32, pub(super) u32);

impl Release {
    /// Reads `/proc/sys/kernel/osrelease`, such as `6.12.9-amd64`.
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
    fn a_path_lies_in_the_nearest_mount_and_there_in_the_latest() {
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
    fn a_filesystem_is_mappable_since_a_release() {
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
