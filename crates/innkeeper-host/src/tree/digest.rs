//! The digest of a tree in a backup set.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom, lgetxattr, llistxattr, openat, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::{FileError, FileErrorExt};

/// The size of the blocks whose contents count, in bytes.
const BLOCK_SIZE: usize = 4096;

/// The same, for offsets in a file.
const BLOCK: u64 = BLOCK_SIZE as u64;

/// The size of a read, in bytes: whole blocks.
const BUFFER: usize = 64 * BLOCK_SIZE;

/// The longest path in a tree, in bytes. The kernel resolves paths of up to 4096 bytes; the rest is for the directory of a
/// set, which can be a longer one on the host that restores it.
const MAX_PATH: usize = 3584;

/// The largest list of names and the largest value of extended attributes, in bytes (xattr(7)).
const MAX_ATTRIBUTE: usize = 64 << 10;

/// The extended attributes that a host sets by its own rules.
const OF_HOST: [&[u8]; 2] = [b"security.selinux", b"security.ima"];

/// The parts of a tree that a digest covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// Names, types, modes, owners, targets of links, contents. For sets of former releases.
    Files,
    /// The same and extended attributes, which include access control lists and capabilities of files.
    Attributes,
}

/// The digest of a tree or file, and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeDigest {
    /// SHA-256 in hexadecimal digits, over the parts that [`Covers`] lists.
    pub sha256: String,
    /// The number of files, directories and other entries below the top.
    pub entries: u64,
    /// The bytes of regular files.
    pub bytes: u64,
}

/// Computes the digest of a directory. Follows no links and opens regular files only. Blocks.
///
/// # Errors
/// If it is not a directory, a part cannot be read, or a path in it is longer than 3584 bytes.
pub fn digest(directory: &Path, covers: Covers) -> Result<TreeDigest, FileError> {
    let mut hash = Sha256::new();
    let mut found = TreeDigest {
        sha256: String::new(),
        entries: 0,
        bytes: 0,
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, directory, flags, Mode::empty()).on("read", directory)?;
    // The length of the directory's own path does not count.
    let base = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    // Relative paths; the top one is empty. Names are pushed in reverse order, so they are popped in order.
    let mut pending = vec![PathBuf::new()];
    while let Some(relative) = pending.pop() {
        // For messages.
        let named = || directory.join(&relative);
        if relative.as_os_str().len() > MAX_PATH {
            return Err(Errno::NAMETOOLONG).on("read", named());
        }
        let path = base.join(&relative);
        let seen = fs::symlink_metadata(&path).on("inspect", named())?;
        let kind = seen.file_type();
        feed(&mut hash, relative.as_os_str().as_bytes());
        for number in [seen.mode(), seen.uid(), seen.gid()] {
            hash.update(number.to_be_bytes());
        }
        if covers == Covers::Attributes {
            attributes(&path, &mut hash).on("read the attributes of", named())?;
        }
        if !relative.as_os_str().is_empty() {
            found.entries += 1;
        }
        if kind.is_dir() {
            let mut names = names(&path).on("list", named())?;
            names.sort();
            pending.extend(names.iter().rev().map(|name| relative.join(name)));
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).on("read", named())?;
            feed(&mut hash, target.as_os_str().as_bytes());
        } else if kind.is_file() {
            // The length of a sparse file is what its owner says it is.
            found.bytes = found.bytes.saturating_add(seen.len());
            hash.update(contents(&path).on("read", named())?);
        } else if kind.is_block_device() || kind.is_char_device() {
            hash.update(seen.rdev().to_be_bytes());
        }
    }
    found.sha256 = hexadecimal(&hash.finalize());
    Ok(found)
}

/// Hashes the extended attributes of a file, in the order of their names.
fn attributes(path: &Path, hash: &mut Sha256) -> io::Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTE];
    let length = match llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        // The file system has none.
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    names.truncate(length);
    let mut names: Vec<_> = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !OF_HOST.contains(name))
        .collect();
    names.sort_unstable();
    hash.update((names.len() as u64).to_be_bytes());
    let mut value = vec![0; MAX_ATTRIBUTE];
    for name in names {
        let length = lgetxattr(path, name, &mut value[..])?;
        feed(hash, name);
        feed(hash, &value[..length]);
    }
    Ok(())
}

/// Computes the digest of a regular file's contents. Blocks.
///
/// # Errors
/// If it is not a regular file, or cannot be read.
pub fn digest_file(path: &Path) -> Result<TreeDigest, FileError> {
    let seen = fs::symlink_metadata(path).on("inspect", path)?;
    if !seen.is_file() {
        let problem = io::Error::new(io::ErrorKind::InvalidData, "not a regular file");
        return Err(problem).on("read", path);
    }
    Ok(TreeDigest {
        sha256: hexadecimal(&contents(path).on("read", path)?),
        entries: 0,
        bytes: seen.len(),
    })
}

fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

/// Hashes the length of a file, and its blocks that are not all zeros, each with its number.
///
/// So holes cost no time, however long the file claims to be, and a copy with other holes has the same digest.
fn contents(path: &Path) -> io::Result<[u8; 32]> {
    // A file that was replaced by a link or a FIFO since is not opened.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let mut hash = Sha256::new();
    let length = file.metadata()?.len();
    hash.update(length.to_be_bytes());
    let mut at = 0;
    while at < length {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(&file, SeekFrom::Hole(start))?;
        at = end.div_ceil(BLOCK).saturating_mul(BLOCK).max(at + BLOCK);
        blocks(&file, start / BLOCK..at / BLOCK, &mut hash)?;
    }
    Ok(hash.finalize().into())
}

/// Hashes the blocks of a range, up to the end of the file.
fn blocks(file: &File, range: Range<u64>, hash: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut number = range.start;
    while number < range.end {
        let read = fill(file, &mut buffer, number * BLOCK)?;
        for block in buffer[..read].chunks(BLOCK_SIZE) {
            if number < range.end && block.iter().any(|byte| *byte != 0) {
                hash.update(number.to_be_bytes());
                hash.update(block);
            }
            number += 1;
        }
        if read < BUFFER {
            break;
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends, and returns the number of bytes.
fn fill(file: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut full = 0;
    while full < buffer.len() {
        match file.read_at(&mut buffer[full..], start + full as u64) {
            Ok(0) => break,
            Ok(read) => full += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(full)
}

/// Adds a text with its length, so that different texts in a row never count as the same.
fn feed(hash: &mut Sha256, text: &[u8]) {
    hash.update((text.len() as u64).to_be_bytes());
    hash.update(text);
}

fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_attribute(path: &Path, name: &str, value: &[u8]) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(path, name, value, flags).expect("attribute");
    }

    #[test]
    fn paths_are_limited_wherever_the_tree_is() {
        let dir = tempfile::tempdir().expect("directory");
        // A path of its own that alone is nearly as long as the kernel allows.
        let mut place = dir.path().join("a");
        while place.as_os_str().len() < 3_700 {
            place.push("p".repeat(200));
        }
        fs::create_dir_all(&place).expect("directory");
        let tree = File::open(&place).expect("directory");
        let inside = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
        let deep = vec!["d".repeat(255); 14].join("/");
        assert_eq!(deep.len(), MAX_PATH - 1);
        fs::create_dir_all(inside.join(&deep)).expect("directories");
        let found = digest(&place, Covers::Attributes).expect("digest");
        assert_eq!(found.entries, 14);
        fs::create_dir(inside.join(&deep).join("x")).expect("directory");
        let error = digest(&place, Covers::Attributes).expect_err("too long");
        assert_eq!(
            error.source.raw_os_error(),
            Some(Errno::NAMETOOLONG.raw_os_error())
        );
        super::super::remove(&dir.path().join("a")).expect("removes");
    }

    #[test]
    fn digest_changes_with_every_part_and_follows_no_link() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("home")).expect("directory");
        fs::write(at("home/work"), "before").expect("file");
        symlink("/etc/shadow", at("link")).expect("link");
        rustix::fs::mkfifoat(CWD, at("fifo"), 0o600.into()).expect("FIFO");
        let now = || digest(dir.path(), Covers::Attributes).expect("digest");
        let files = || digest(dir.path(), Covers::Files).expect("digest");
        let mut seen = vec![now()];
        assert_eq!((seen[0].entries, seen[0].bytes), (4, 6));
        assert_eq!(seen[0], now());
        fs::write(at("home/work"), "behind").expect("file");
        seen.push(now());
        fs::set_permissions(at("home/work"), fs::Permissions::from_mode(0o4755)).expect("mode");
        seen.push(now());
        fs::remove_file(at("link")).expect("removes");
        symlink("/etc/passwd", at("link")).expect("link");
        seen.push(now());
        fs::rename(at("home/work"), at("home/play")).expect("renames");
        seen.push(now());
        let before = files();
        assert!(!seen.contains(&before));
        set_attribute(&at("home/play"), "user.note", b"one");
        assert_eq!(files(), before);
        seen.push(now());
        set_attribute(&at("home/play"), "user.note", b"two");
        seen.push(now());
        set_attribute(&at("link"), "trusted.note", b"two");
        seen.push(now());
        let mut different: Vec<_> = seen.iter().map(|one| &one.sha256).collect();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), seen.len());
        digest(&at("link"), Covers::Files).expect_err("a link");
        digest_file(&at("link")).expect_err("a link");
        digest_file(&at("fifo")).expect_err("a FIFO");
        assert_eq!(digest_file(&at("home/play")).expect("file").bytes, 6);
    }

    #[test]
    fn holes_cost_no_time_and_count_as_zeros() {
        let dir = tempfile::tempdir().expect("directory");
        let write = |name: &str, length: u64, parts: &[(u64, &[u8])]| {
            let file = File::create(dir.path().join(name)).expect("file");
            file.set_len(length).expect("length");
            for (at, part) in parts {
                file.write_all_at(part, *at).expect("written");
            }
            digest_file(&dir.path().join(name)).expect("digest").sha256
        };
        let (mebibyte, zeros) = (1 << 20, vec![0; 1 << 20]);
        let sparse = write(
            "sparse",
            4 * mebibyte,
            &[(mebibyte + 5000, b"x"), (4 * mebibyte - 1, b"y")],
        );
        let dense = [
            (0, zeros.as_slice()),
            (mebibyte, &zeros),
            (2 * mebibyte, &zeros),
            (3 * mebibyte, &zeros),
            (mebibyte + 5000, b"x"),
            (4 * mebibyte - 1, b"y"),
        ];
        assert_eq!(sparse, write("dense", 4 * mebibyte, &dense));
        let others = [
            write(
                "moved",
                4 * mebibyte,
                &[(mebibyte + 5001, b"x"), (4 * mebibyte - 1, b"y")],
            ),
            write(
                "other",
                4 * mebibyte,
                &[(mebibyte + 5000, b"z"), (4 * mebibyte - 1, b"y")],
            ),
            write(
                "longer",
                4 * mebibyte + 1,
                &[(mebibyte + 5000, b"x"), (4 * mebibyte - 1, b"y")],
            ),
            write("shorter", 4 * mebibyte - 1, &[(mebibyte + 5000, b"x")]),
            write("empty", 0, &[]),
        ];
        assert!(!others.contains(&sparse), "{sparse} {others:?}");
        // Reading this would take hours.
        write("huge", 8 << 40, &[(5 << 40, b"x")]);
    }
}
