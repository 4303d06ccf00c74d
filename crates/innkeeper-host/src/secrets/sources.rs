//! Reads guests' keys and credentials from the host.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use innkeeper_model::preview::{EnvFile, InvalidLine};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::tree::read_at_most;
use crate::{FileError, FileErrorExt};

/// Maximum size of a configuration file, in bytes.
const MAX_CONFIG: usize = 1 << 20;

/// Maximum size of a credential, in bytes.
pub(super) const MAX_CREDENTIAL: usize = 64 << 10;

/// Contents of the credentials directory.
#[derive(Default)]
pub(super) struct Credentials {
    /// Names and contents of the files for guests, sorted by name.
    pub(super) files: Vec<(OsString, Vec<u8>)>,
    /// Skipped entries with the reason.
    pub(super) skipped: Vec<(OsString, &'static str)>,
}

/// Reads the regular files of a directory, which may be missing. Does not follow links: their targets may not be meant for
/// guests.
pub(super) fn credentials(directory: &Path) -> Result<Credentials, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = match openat(CWD, directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Credentials::default()),
        opened => opened.on("open", directory)?,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).on("list", directory)? {
        names.push(entry.on("list", directory)?.file_name());
    }
    names.sort();
    let mut found = Credentials::default();
    for name in names {
        let path = directory.join(&name);
        if !is_safe(&name) {
            found
                .skipped
                .push((name, "its name has other characters than A-Z a-z 0-9 . _ -"));
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&entries, &name, flags, Mode::empty()) {
            // Removed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(Errno::LOOP) => {
                found.skipped.push((name, "it is a symbolic link"));
                continue;
            }
            opened => File::from(opened.on("open", &path)?),
        };
        let stat = fstat(&file).on("inspect", &path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            found.skipped.push((name, "it is not a regular file"));
            continue;
        }
        match read_at_most(file, MAX_CREDENTIAL) {
            Ok(contents) => found.files.push((name, contents)),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                found.skipped.push((name, "it is longer than 64 KiB"));
            }
            Err(error) => return Err(error).on("read", &path),
        }
    }
    Ok(found)
}

/// Reports whether a credential's name needs no quotes in paths and shells.
fn is_safe(name: &OsString) -> bool {
    name.to_str().is_some_and(|name| {
        (1..=128).contains(&name.len())
            && !name.starts_with(['.', '-'])
            && name
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    })
}

/// Reads a variable from an environment file such as `/var/secrets/preview.env`. Returns `Ok(None)` if the file or the
/// variable is missing or the value is empty. The inner error is an invalid assignment of the variable.
pub(super) fn variable(
    path: &Path,
    name: &str,
) -> Result<Result<Option<String>, InvalidLine>, FileError> {
    let file = EnvFile::parse(&contents(path)?.unwrap_or_default());
    let value = file.get(name).map_err(Clone::clone);
    Ok(value.map(|value| {
        value
            .map(|value| value.expose().to_owned())
            .filter(|value| !value.is_empty())
    }))
}

/// Reads a configuration file of the host. Returns `None` if it does not exist.
pub(super) fn contents(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => {
            let contents = read_at_most(opened.on("open", path)?, MAX_CONFIG).on("read", path)?;
            Ok(Some(contents))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn credentials_are_regular_files_with_plain_names() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("oauth_token"), "secret").expect("write");
        fs::write(at("full"), vec![b'x'; MAX_CREDENTIAL]).expect("write");
        fs::write(at("long"), vec![b'x'; MAX_CREDENTIAL + 1]).expect("write");
        fs::write(at(".hidden"), "x").expect("write");
        fs::write(at("$(id)"), "x").expect("write");
        fs::create_dir(at("directory")).expect("directory");
        rustix::fs::mkfifoat(CWD, at("fifo"), Mode::RUSR).expect("fifo");
        symlink("/etc/shadow", at("link")).expect("link");
        let found = credentials(dir.path()).expect("reads");
        let names: Vec<_> = found
            .files
            .iter()
            .map(|(name, _)| name.to_str().expect("text"))
            .collect();
        assert_eq!(names, ["full", "oauth_token"]);
        let skipped: Vec<_> = found
            .skipped
            .iter()
            .map(|(name, _)| name.to_str().expect("text"))
            .collect();
        assert_eq!(
            skipped,
            ["$(id)", ".hidden", "directory", "fifo", "link", "long"]
        );
        assert!(credentials(&at("missing")).expect("fine").files.is_empty());
    }

    #[test]
    fn variable_is_parsed_as_in_systemd() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("preview.env");
        let read = |text: &str| {
            fs::write(&path, text).expect("write");
            let value = variable(&path, "ADMIN_SSH_KEY").expect("reads");
            value.map_err(|bad| bad.to_string())
        };
        let text = "# ADMIN_SSH_KEY=comment\nOTHER=x\nADMIN_SSH_KEY='first'\n\
                    export ADMIN_SSH_KEY=\"ssh-ed25519 AAAA $(id) \\`id\\` me@host\"\nADMIN_SSH_KEYS=no\n";
        let expected = "ssh-ed25519 AAAA $(id) `id` me@host";
        assert_eq!(read(text), Ok(Some(expected.to_owned())));
        assert_eq!(read("OTHER='open\nADMIN_SSH_KEY='one\ntwo'\n"), Ok(None));
        assert_eq!(
            read("ADMIN_SSH_KEY='one\ntwo'\n"),
            Ok(Some("one\ntwo".to_owned()))
        );
        assert_eq!(read("ADMIN_SSH_KEY=\n"), Ok(None));
        assert_eq!(read(""), Ok(None));
        let bad = read("OTHER=x\nADMIN_SSH_KEY='a\n");
        assert_eq!(bad, Err("line 2 has a quote that is not closed".to_owned()));
        let absent = variable(Path::new("/nonexistent/env"), "A").expect("fine");
        assert_eq!(absent, Ok(None));
    }
}
