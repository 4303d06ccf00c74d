//! Passwords of previews: made once, kept in files that only root can read.
//!
//! PostgreSQL itself has only what it needs to check one (a SCRAM verifier, RFC 5803), computed here, so the
//! password is in no statement and in no log of the server.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use innkeeper_facilities::Found;
use innkeeper_model::{GuestName, Secret};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::{FileError, FileErrorExt, tree};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// By contract. 24 of 62 characters are 142 bits.
const LENGTH: usize = 24;

/// The directory of the passwords.
#[derive(Clone, Debug)]
pub(super) struct Passwords {
    dir: PathBuf,
}

impl Passwords {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The preview's password, which is made if there is none. It is on the disk when this returns: a password
    /// that PostgreSQL has and we have not would be lost. Nobody else may work on the preview meanwhile.
    pub(super) fn ensure(&self, slug: &GuestName) -> Result<Secret, FileError> {
        let path = self.dir.join(slug.as_str());
        match fs::read_to_string(&path) {
            Ok(text) if is_password(&text) => return Ok(Secret::new(text)),
            // Cut off, or somebody's. PostgreSQL gets the new one.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).on("read", &path),
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).on("create", &self.dir)?;
        let aside = self.dir.join(format!(".{slug}.new"));
        tree::remove(&aside)?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&aside).on("create", &aside)?;
        let password = generate().on("read randomness for", &aside)?;
        let written = file.write_all(password.as_bytes());
        written.and_then(|()| file.sync_all()).on("write", &aside)?;
        fs::rename(&aside, &path).on("create", &path)?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .on("write", &self.dir)?;
        Ok(Secret::new(password))
    }

    pub(super) fn remove(&self, slug: &GuestName) -> Result<(), FileError> {
        tree::remove(&self.dir.join(format!(".{slug}.new")))?;
        tree::remove(&self.dir.join(slug.as_str()))
    }

    /// All passwords, and what is left of interrupted work.
    pub(super) fn observe(&self) -> Result<Vec<Found>, FileError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.on("list", &self.dir)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.on("list", &self.dir)?.path();
            if let Some(guest) = self.belongs_to(&path) {
                found.push(Found::ours(guest, path.display().to_string()));
            }
        }
        Ok(found)
    }

    /// Removes a file that [`Self::observe`] found; `false` when it is none of ours.
    pub(super) fn sweep(&self, object: &str) -> Result<bool, FileError> {
        let path = Path::new(object);
        if self.belongs_to(path).is_none() {
            return Ok(false);
        }
        tree::remove(path)?;
        Ok(true)
    }

    fn belongs_to(&self, path: &Path) -> Option<Option<GuestName>> {
        let name = path.file_name()?.to_str()?;
        if path != self.dir.join(name) {
            return None;
        }
        if let Ok(slug) = GuestName::parse(name) {
            return Some(Some(slug));
        }
        let inner = name.strip_prefix('.')?.strip_suffix(".new")?;
        GuestName::parse(inner).ok().map(|_| None)
    }
}

/// What PostgreSQL gets in the place of the password.
pub(super) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

fn is_password(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A new password from the kernel's random source.
fn generate() -> io::Result<String> {
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = [0; 32];
        let count = getrandom(&mut bytes, GetRandomFlags::empty())?;
        // Each character must be as likely as any other: 248 is the greatest multiple of 62 in a byte.
        let fair = bytes[..count].iter().filter(|byte| **byte < 248);
        let letters = fair.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        password.extend(letters.take(LENGTH - password.len()));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwords_differ_and_use_the_whole_alphabet() {
        let passwords: BTreeSet<_> = (0..500).map(|_| generate().expect("random")).collect();
        assert_eq!(passwords.len(), 500);
        assert!(passwords.iter().all(|password| is_password(password)));
        let letters: BTreeSet<_> = passwords.iter().flat_map(|p| p.bytes()).collect();
        assert_eq!(letters.len(), ALPHABET.len());
    }

    #[test]
    fn a_password_is_kept_and_only_root_can_read_it() {
        let dir = tempfile::tempdir().expect("directory");
        let passwords = Passwords::new(dir.path().join("databases"));
        let slug = GuestName::parse("web").expect("name");
        passwords.remove(&slug).expect("nothing is there");
        let first = passwords.ensure(&slug).expect("made");
        // What a crash left.
        fs::write(dir.path().join("databases/.web.new"), "half").expect("write");
        assert_eq!(
            passwords.ensure(&slug).expect("kept").expose(),
            first.expose()
        );
        let mode = |path: &str| {
            let path = dir.path().join(path);
            fs::metadata(path).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode("databases"), mode("databases/web")), (0o700, 0o600));
        let found: BTreeSet<_> = passwords.observe().expect("observes").into_iter().collect();
        let guests: Vec<_> = found.iter().map(|found| found.guest.clone()).collect();
        assert_eq!(guests, [None, Some(slug.clone())]);
        fs::write(dir.path().join("databases/web"), "cut").expect("write");
        assert_ne!(
            passwords.ensure(&slug).expect("new").expose(),
            first.expose()
        );
        passwords.remove(&slug).expect("removes");
        assert_eq!(passwords.observe().expect("observes"), []);
    }
}
