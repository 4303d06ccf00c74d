//! Passwords of preview databases, generated once and stored in files that only root can read.
//!
//! PostgreSQL receives only a SCRAM verifier (RFC 5803), which is computed here. So the password is in no statement and in
//! no log of the server.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use innkeeper_facilities::Found;
use innkeeper_model::{GuestName, Secret};
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::{FileError, FileErrorExt, tree};

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Fixed by contract. 24 of 62 characters are 142 bits.
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

    /// Returns the preview's password, and generates it if it has none. The password is on disk before PostgreSQL receives
    /// it, so it cannot be lost. The caller must hold the preview's lock.
    pub(super) fn ensure(&self, slug: &GuestName) -> Result<Secret, FileError> {
        let path = self.dir.join(slug.as_str());
        match fs::read_to_string(&path) {
            Ok(text) if is_password(&text) => return Ok(Secret::new(text)),
            // Truncated or foreign contents: PostgreSQL receives the new password.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).on("read", &path),
        }
        let password = generate().on("read randomness for", &path)?;
        self.set(slug, &password)?;
        Ok(password)
    }

    /// Replaces the preview's password. It is on disk afterwards. The caller must hold the preview's lock.
    pub(super) fn set(&self, slug: &GuestName, password: &Secret) -> Result<(), FileError> {
        let path = self.dir.join(slug.as_str());
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&self.dir).on("create", &self.dir)?;
        let temporary = self.dir.join(format!(".{slug}.new"));
        tree::remove(&temporary)?;
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&temporary).on("create", &temporary)?;
        let written = file.write_all(password.expose().as_bytes());
        written
            .and_then(|()| file.sync_all())
            .on("write", &temporary)?;
        fs::rename(&temporary, &path).on("create", &path)?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .on("write", &self.dir)
    }

    /// Returns the preview's password, if it has one.
    pub(super) fn get(&self, slug: &GuestName) -> Result<Option<Secret>, FileError> {
        let path = self.dir.join(slug.as_str());
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            text => Ok(Some(text.on("read", &path)?)
                .filter(|text| is_password(text))
                .map(Secret::new)),
        }
    }

    pub(super) fn remove(&self, slug: &GuestName) -> Result<(), FileError> {
        tree::remove(&self.dir.join(format!(".{slug}.new")))?;
        tree::remove(&self.dir.join(slug.as_str()))
    }

    /// Lists all passwords and leftovers of interrupted operations.
    pub(super) fn observe(&self) -> Result<Vec<Found>, FileError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.on("list", &self.dir)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.on("list", &self.dir)?.path();
            if let Some(guest) = self.parse(&path) {
                found.push(Found::ours(guest, path.display().to_string()));
            }
        }
        Ok(found)
    }

    /// Removes a file that [`Self::observe`] returned. Returns `false` if it is not a password's file.
    pub(super) fn sweep(&self, object: &str) -> Result<bool, FileError> {
        let path = Path::new(object);
        if self.parse(path).is_none() {
            return Ok(false);
        }
        tree::remove(path)?;
        Ok(true)
    }

    /// Parses the path of a password's file: the preview, or `None` for a temporary file.
    fn parse(&self, path: &Path) -> Option<Option<GuestName>> {
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

/// Returns the verifier that PostgreSQL stores instead of the password.
pub(super) fn verifier(password: &Secret) -> String {
    postgres_protocol::password::scram_sha_256(password.expose().as_bytes())
}

pub(super) fn is_password(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Generates a password from the kernel's random source.
fn generate() -> io::Result<Secret> {
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        let count = getrandom(&mut *bytes, GetRandomFlags::empty())?;
        // Uniform distribution: 248 is the largest multiple of 62 in a byte.
        let uniform = bytes[..count].iter().filter(|byte| **byte < 248);
        let letters = uniform.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        password.extend(letters.take(LENGTH - password.len()));
    }
    Ok(Secret::new(password))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn passwords_differ_and_use_the_whole_alphabet() {
        let generated = (0..500).map(|_| generate().expect("random"));
        let passwords: BTreeSet<_> = generated.map(|one| one.expose().to_owned()).collect();
        assert_eq!(passwords.len(), 500);
        assert!(passwords.iter().all(|password| is_password(password)));
        let letters: BTreeSet<_> = passwords.iter().flat_map(|p| p.bytes()).collect();
        assert_eq!(letters.len(), ALPHABET.len());
    }

    #[test]
    fn password_is_stable_and_only_root_can_read_it() {
        let dir = tempfile::tempdir().expect("directory");
        let passwords = Passwords::new(dir.path().join("databases"));
        let slug = GuestName::parse("web").expect("name");
        passwords.remove(&slug).expect("absent");
        let first = passwords.ensure(&slug).expect("made");
        // A leftover of a crash.
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
