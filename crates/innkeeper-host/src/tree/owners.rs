//! Owners of a tree whose ids are those of a guest's slot.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use innkeeper_model::Slot;
use rustix::fs::{CWD, Mode, OFlags, XattrFlags, lgetxattr, lsetxattr, openat};
use rustix::io::Errno;

use crate::{FileError, FileErrorExt};

/// Attributes that contain ids, or that a change of the owner removes.
const ATTRIBUTES: [&str; 3] = [
    "system.posix_acl_access",
    "system.posix_acl_default",
    CAPABILITY,
];

/// The capabilities of a file.
const CAPABILITY: &str = "security.capability";

/// The largest value of an attribute, in bytes (xattr(7)).
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Changes the owners of a tree from the ids of any slot to those in the guest. Can run again after a crash. Follows no links.
/// The tree must not be in use. Blocks.
///
/// # Errors
/// If it is not a directory, or an owner cannot be changed.
pub fn to_ids_in_guest(directory: &Path) -> Result<(), FileError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, directory, flags, Mode::empty()).on("read", directory)?;
    // The length of the directory's own path does not count.
    let base = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        let path = base.join(&relative);
        change(&path).on("change the owner of", directory.join(&relative))?;
        if fs::symlink_metadata(&path).is_ok_and(|seen| seen.is_dir()) {
            let entries = fs::read_dir(&path).on("list", directory.join(&relative))?;
            for entry in entries {
                let entry = entry.on("list", directory.join(&relative))?;
                pending.push(relative.join(entry.file_name()));
            }
        }
    }
    Ok(())
}

fn change(path: &Path) -> io::Result<()> {
    let seen = fs::symlink_metadata(path)?;
    let mut attributes = Vec::new();
    for name in ATTRIBUTES {
        let mut value = vec![0; MAX_ATTRIBUTE];
        match lgetxattr(path, name, &mut value[..]) {
            Ok(length) => attributes.push((name, converted(name, &value[..length]))),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let (uid, gid) = (id_in_guest(seen.uid()), id_in_guest(seen.gid()));
    if (uid, gid) != (seen.uid(), seen.gid()) {
        lchown(path, Some(uid), Some(gid))?;
        // The kernel clears the bits for setuid and setgid.
        if !seen.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(seen.mode()))?;
        }
    }
    for (name, value) in attributes {
        lsetxattr(path, name, &value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Returns an id without the first id of its slot. Slots begin at multiples of their size.
fn id_in_guest(id: u32) -> u32 {
    id % Slot::USER_IDS
}

/// Returns the value of an attribute with ids of the guest.
fn converted(name: &str, value: &[u8]) -> Vec<u8> {
    let mut value = value.to_owned();
    let (header, entry, at) = match name {
        // Revision 3 ends with the id of the root user of its namespace (linux/capability.h).
        CAPABILITY if value.len() == 24 => (20, 4, 0),
        CAPABILITY => return value,
        // A version; then tag, permissions and id of each entry (linux/posix_acl_xattr.h). Entries without an id have -1.
        _ => (4, 8, 4),
    };
    for entry in value
        .get_mut(header..)
        .unwrap_or_default()
        .chunks_exact_mut(entry)
    {
        if let Some(bytes) = entry.get_mut(at..at + 4)
            && let Ok(id) = <[u8; 4]>::try_from(&*bytes)
        {
            let id = u32::from_le_bytes(id);
            if id != u32::MAX {
                bytes.copy_from_slice(&id_in_guest(id).to_le_bytes());
            }
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn ids_of_a_slot_become_those_in_the_guest() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        let first = Slot::new(3).first_user_id();
        fs::create_dir(at("home")).expect("directory");
        fs::write(at("home/work"), "kept").expect("file");
        symlink("/etc/shadow", at("link")).expect("link");
        for (name, id) in [("", 0), ("home", 1000), ("home/work", 1000), ("link", 5)] {
            lchown(at(name), Some(first + id), Some(first + id + 1)).expect("owner");
        }
        let mode = fs::Permissions::from_mode(0o4755);
        fs::set_permissions(at("home/work"), mode).expect("mode");
        let owner = |tag: u8, id: u32| [&[tag, 0, 7, 0][..], &id.to_le_bytes()].concat();
        let list = |id| {
            let entries = [
                owner(1, u32::MAX),
                owner(2, id),
                owner(4, u32::MAX),
                owner(16, u32::MAX),
                owner(32, u32::MAX),
            ];
            [&[2, 0, 0, 0][..], &entries.concat()].concat()
        };
        let list_name = ATTRIBUTES[0];
        let set =
            |name: &str, value: &[u8]| lsetxattr(at("home/work"), name, value, XattrFlags::empty());
        let has_lists = set(list_name, &list(first + 7)).is_ok();
        // Revision 3, cap_net_raw as permitted and effective.
        let capability = |root: u32| {
            let start: [u32; 5] = [0x0300_0001, 1 << 13, 0, 0, 0];
            let numbers = start.into_iter().chain([root]);
            numbers.flat_map(u32::to_le_bytes).collect::<Vec<_>>()
        };
        set(CAPABILITY, &capability(first)).expect("capability");

        for _ in 0..2 {
            to_ids_in_guest(dir.path()).expect("changes");
            for (name, id) in [("", 0), ("home", 1000), ("home/work", 1000), ("link", 5)] {
                let seen = fs::symlink_metadata(at(name)).expect("there");
                assert_eq!((seen.uid(), seen.gid()), (id, id + 1), "{name}");
            }
            let seen = fs::metadata(at("home/work")).expect("there");
            // The mask of the list is the mode of the group.
            assert_eq!(seen.mode() & 0o7700, 0o4700);
            let mut value = [0; 64];
            if has_lists {
                let length = lgetxattr(at("home/work"), list_name, &mut value[..]);
                assert_eq!(value[..length.expect("list")], list(7));
            }
            assert_eq!(converted(CAPABILITY, &capability(first)), capability(0));
            lgetxattr(at("home/work"), CAPABILITY, &mut value[..]).expect("capability");
        }
    }
}
