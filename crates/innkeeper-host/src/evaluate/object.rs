//! Content-addressed store objects: their archive, and the path computed from it.
//!
//! The host can verify that a path is the hash of its contents. It therefore imports objects from an untrusted
//! evaluator: such an object cannot replace another one.
//!
//! Formats: Nix manual, "Nix Archive (NAR) format" and "Complete Store Path Calculation".

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use innkeeper_model::{STORE_DIR, StorePath};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use sha2::{Digest, Sha256};

use super::hash::{base16, base32};

/// The name that flakes give to sources.
pub(super) const SOURCE: &str = "source";

/// Maximum depth of folders.
const MAX_DEPTH: usize = 64;

/// One object with its archive.
#[derive(Debug)]
pub(super) struct Object {
    /// The Nix archive.
    pub(super) nar: Vec<u8>,
    /// The hash of the contents, for an object that is one plain file.
    file: Option<[u8; 32]>,
}

impl Object {
    /// Archives `name` in a directory, without following links. Reads it once: the hashed bytes are the imported bytes,
    /// so a concurrent change cannot get in between.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than `limit` bytes.
    pub(super) fn read(directory: BorrowedFd<'_>, name: &str, limit: u64) -> io::Result<Self> {
        let mut archive = Archive {
            bytes: Vec::new(),
            limit,
        };
        archive.string(b"nix-archive-1")?;
        let file = archive.node(directory, OsStr::new(name), 0)?;
        Ok(Self {
            nar: archive.bytes,
            file,
        })
    }

    /// Archives one plain file.
    #[cfg(test)]
    pub(super) fn of_file(contents: &[u8]) -> Self {
        let mut nar = Vec::new();
        for token in ["nix-archive-1", "(", "type", "regular", "contents"] {
            put_string(&mut nar, token.as_bytes());
        }
        put_string(&mut nar, contents);
        put_string(&mut nar, b")");
        Self {
            nar,
            file: Some(Sha256::digest(contents).into()),
        }
    }

    /// Returns the hash of the archive.
    pub(super) fn nar_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.nar).into()
    }

    /// Reports whether a path is computed from these contents and references, as a source, a text (such as a
    /// derivation), or a flat file.
    pub(super) fn is_at(&self, path: &StorePath, references: &[StorePath]) -> bool {
        let name = name_of(path);
        let mut candidates = vec![source_path(name, &self.nar_hash(), references)];
        if let Some(hash) = &self.file {
            candidates.push(computed("text", references, hash, name));
            if references.is_empty() {
                candidates.push(flat_path(name, hash));
            }
        }
        candidates
            .iter()
            .any(|candidate| candidate == path.as_str())
    }
}

/// Returns the part of a path after the hash.
pub(super) fn name_of(path: &StorePath) -> &str {
    path.as_str()
        .strip_prefix(STORE_DIR)
        .and_then(|rest| rest.split_once('-'))
        .map_or("", |(_, name)| name)
}

/// Returns the path of a text, such as a derivation.
#[cfg(test)]
pub(super) fn text_path(name: &str, text: &[u8]) -> String {
    computed("text", &[], &Sha256::digest(text).into(), name)
}

/// Returns the path of a source with this archive.
pub(super) fn source_path(name: &str, nar_hash: &[u8; 32], references: &[StorePath]) -> String {
    computed("source", references, nar_hash, name)
}

/// Returns the path of a flat file with a fixed hash.
fn flat_path(name: &str, hash: &[u8; 32]) -> String {
    let inner = Sha256::digest(format!("fixed:out:sha256:{}:", base16(hash)));
    computed("output:out", &[], &inner.into(), name)
}

fn computed(kind: &str, references: &[StorePath], hash: &[u8; 32], name: &str) -> String {
    let mut references: Vec<&str> = references.iter().map(StorePath::as_str).collect();
    references.sort_unstable();
    let mut fingerprint = kind.to_owned();
    for reference in references {
        fingerprint.push(':');
        fingerprint.push_str(reference);
    }
    fingerprint.push_str(&format!(":sha256:{}:{STORE_DIR}:{name}", base16(hash)));
    let full = Sha256::digest(fingerprint);
    let mut short = [0_u8; 20];
    for (index, byte) in full.iter().enumerate() {
        short[index % 20] ^= byte;
    }
    format!("{STORE_DIR}/{}-{name}", base32(&short))
}

/// Appends a string as in Nix archives and `nix-store --import` streams: its length, its bytes, and zeros up to the next
/// multiple of eight.
pub(super) fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, string.len() as u64);
    out.extend_from_slice(string);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Appends a number in the same format.
pub(super) fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// An archive under construction. Its length is always a multiple of eight.
struct Archive {
    bytes: Vec<u8>,
    limit: u64,
}

impl Archive {
    fn string(&mut self, string: &[u8]) -> io::Result<()> {
        self.check_limit(string.len() as u64)?;
        put_string(&mut self.bytes, string);
        Ok(())
    }

    fn tokens(&mut self, tokens: &[&str]) -> io::Result<()> {
        tokens
            .iter()
            .try_for_each(|token| self.string(token.as_bytes()))
    }

    fn check_limit(&self, added: u64) -> io::Result<()> {
        if (self.bytes.len() as u64).saturating_add(added) > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it is too large",
            ));
        }
        Ok(())
    }

    /// Appends one file, link or directory. Returns the hash of a plain file's contents.
    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        depth: usize,
    ) -> io::Result<Option<[u8; 32]>> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.tokens(&["(", "type"])?;
        let mut plain = None;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => plain = self.file(parent, name)?,
            FileType::Symlink => {
                self.tokens(&["symlink", "target"])?;
                self.string(readlinkat(parent, name, Vec::new())?.as_bytes())?;
            }
            FileType::Directory => self.directory(parent, name, depth)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it is not a file, link or directory",
                ));
            }
        }
        self.tokens(&[")"])?;
        Ok(plain)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<[u8; 32]>> {
        // The file may have become a FIFO meanwhile: opening must not wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has changed"));
        }
        let executable = Mode::from_raw_mode(stat.st_mode).contains(Mode::XUSR);
        self.tokens(&["regular"])?;
        if executable {
            self.tokens(&["executable", ""])?;
        }
        self.tokens(&["contents"])?;
        let remaining = self.limit.saturating_sub(self.bytes.len() as u64);
        let mut contents = Vec::new();
        let mut file = File::from(fd).take(remaining + 1);
        file.read_to_end(&mut contents)?;
        self.string(&contents)?;
        Ok((!executable).then(|| Sha256::digest(&contents).into()))
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
        if depth == MAX_DEPTH {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its folders are nested too deeply",
            ));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort();
        self.tokens(&["directory"])?;
        for name in names {
            self.tokens(&["entry", "(", "name"])?;
            self.string(name.as_bytes())?;
            self.tokens(&["node"])?;
            self.node(fd.as_fd(), &name, depth + 1)?;
            self.tokens(&[")"])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::CWD;

    use super::*;
    use crate::command;

    fn parsed(path: &[u8]) -> StorePath {
        StorePath::parse(String::from_utf8_lossy(path).trim()).expect("a store path")
    }

    /// Runs the real nix-store. Returns `None` where it is not installed.
    async fn nix_store(arguments: &[&str]) -> Option<Vec<u8>> {
        match command::run("nix-store", arguments.iter().copied(), b"").await {
            Ok(output) => Some(output),
            Err(error) => {
                eprintln!(
                    "INNKEEPER-NOT-RUN: store_paths_and_archives_are_the_same_as_nixs: {error}"
                );
                None
            }
        }
    }

    #[tokio::test]
    async fn store_paths_and_archives_are_the_same_as_nixs() {
        let dir = tempfile::tempdir().expect("directory");
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("b/empty")).expect("folders");
        fs::write(tree.join("a.txt"), "text\n").expect("write");
        fs::write(tree.join("b/run"), format!("{}", dir.path().display())).expect("write");
        fs::set_permissions(tree.join("b/run"), fs::Permissions::from_mode(0o755)).expect("chmod");
        symlink("../a.txt", tree.join("b/link")).expect("link");
        fs::write(dir.path().join("flat"), "flat").expect("write");

        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).expect("opens");
        let object = Object::read(root.as_fd(), "tree", 1 << 20).expect("reads");
        let path = tree.to_str().expect("text");
        let Some(dumped) = nix_store(&["--dump", path]).await else {
            return;
        };
        assert_eq!(object.nar, dumped);
        let added = nix_store(&["--add", path]).await;
        let added = parsed(&added.expect("adds"));
        assert!(object.is_at(&added, &[]));
        assert!(!object.is_at(&added, std::slice::from_ref(&added)));

        let flat = dir.path().join("flat");
        let flat = flat.to_str().expect("text");
        let printed = nix_store(&["--add-fixed", "sha256", flat]).await;
        let object = Object::read(root.as_fd(), "flat", 1 << 20).expect("reads");
        let printed = parsed(&printed.expect("adds"));
        assert!(object.is_at(&printed, &[]));
        assert_eq!(object.nar, Object::of_file(b"flat").nar);
        assert!(!Object::of_file(b"other").is_at(&printed, &[]));
    }

    #[test]
    fn object_read_rejects_pipes_and_excessive_size_or_depth() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("file"), vec![0; 2000]).expect("write");
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("fifo");
        let deep: std::path::PathBuf = std::iter::repeat_n("d", MAX_DEPTH + 2).collect();
        fs::create_dir_all(dir.path().join(deep)).expect("folders");
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).expect("opens");
        Object::read(root.as_fd(), "file", 1000).expect_err("too large");
        Object::read(root.as_fd(), "file", 4000).expect("fits");
        Object::read(root.as_fd(), "fifo", 4000).expect_err("not a file");
        Object::read(root.as_fd(), "d", 1 << 20).expect_err("too deep");
        Object::read(root.as_fd(), "gone", 4000).expect_err("absent");
    }
}
