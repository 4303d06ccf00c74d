//! The keys of cookies: the gateway's own, and that of `sandbox_preview` cookies, which another program signs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use innkeeper_model::{Code, Explain, Secret, chain};
use rustix::rand::{GetRandomFlags, getrandom};
use tracing::warn;

use super::jwt::Key;
use crate::config::Config;

/// The name of the gateway's own key in `gateway.state_dir`.
const OWN: &str = "preview-cookies.key";

/// The maximum length of a key's file, in bytes.
const MAX_LENGTH: u64 = 4096;

/// The keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Signs the cookies of previews.
    pub(crate) own: Key,
    /// Verifies `sandbox_preview`. `None` means that it is not accepted.
    pub(crate) sandbox: Option<Key>,
}

/// A key that cannot be used. No error contains a part of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// The file has too few bytes.
    #[error("the key in {} has fewer than {min} bytes", path.display(), min = Key::MIN_LENGTH)]
    Short {
        /// The file.
        path: PathBuf,
    },
    /// The kernel returns no random bytes.
    #[error("cannot create a key")]
    Random(#[source] io::Error),
}

impl Explain for KeyError {
    fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::PermissionDenied
            }
            Self::Read { .. } | Self::Short { .. } => Code::InvalidConfig,
            Self::Random(_) => Code::Internal,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } => Some(format!(
                "Make {} readable for the group of gateway.group, and for no other users, or set gateway.sandbox_preview_key_file to \"\".",
                path.display()
            )),
            Self::Short { .. } => Some(
                "Write a longer key to it, and to the program that signs the cookies; `openssl rand -hex 32` creates one."
                    .to_owned(),
            ),
            Self::Random(_) => None,
        }
    }
}

impl Keys {
    /// Reads the keys, and creates the gateway's own at the first start. If that one cannot be kept, it is valid until the
    /// program ends: visitors log in again after a restart.
    ///
    /// # Errors
    /// When the key of `sandbox_preview` is configured and cannot be used.
    pub fn load(config: &Config) -> Result<Self, KeyError> {
        let sandbox = Self::load_sandbox(config)?;
        let path = config.gateway.state_dir.join(OWN);
        let own = match own(&path) {
            Ok(key) => key,
            Err(error) => {
                let path = path.display();
                warn!(error = chain(&error), %path, "cannot keep the key of previews' cookies; they become invalid with a restart");
                let bytes = random().map_err(KeyError::Random)?;
                key(&bytes, Path::new(OWN))?
            }
        };
        Ok(Self { own, sandbox })
    }

    /// Checks the key of `sandbox_preview`, and creates nothing.
    ///
    /// # Errors
    /// When it is configured and cannot be used.
    pub fn check(config: &Config) -> Result<(), KeyError> {
        Self::load_sandbox(config).map(drop)
    }

    /// Reads the key of `sandbox_preview`, if one is configured.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn load_sandbox(config: &Config) -> Result<Option<Key>, KeyError> {
        let path = Path::new(&config.gateway.sandbox_preview_key_file);
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let text = File::open(path).and_then(read_text);
        let text = text.map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let bytes = text.expose().trim_end_matches(['\r', '\n']).as_bytes();
        key(bytes, path).map(Some)
    }
}

fn key(bytes: &[u8], path: &Path) -> Result<Key, KeyError> {
    Key::new(bytes).ok_or_else(|| KeyError::Short {
        path: path.to_owned(),
    })
}

/// Returns the gateway's own key. A file that others can read, or with anything else in it, is replaced.
fn own(path: &Path) -> io::Result<Key> {
    match File::open(path) {
        Ok(file) if file.metadata()?.mode() & 0o077 == 0 => {
            let text = read_text(file)?;
            let bytes = URL_SAFE_NO_PAD.decode(text.expose().trim_end());
            if let Some(key) = bytes.ok().as_deref().and_then(Key::new) {
                return Ok(key);
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let bytes = random()?;
    write(path, &URL_SAFE_NO_PAD.encode(bytes))?;
    Key::new(&bytes).ok_or_else(|| io::Error::other("the key is too short"))
}

/// Replaces a file that only this user can read, durably.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn read_text(file: File) -> io::Result<Secret> {
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text)?;
    Ok(Secret::new(text))
}

/// Returns 32 random bytes.
pub(crate) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // The kernel blocks until its generator is initialized, and never returns fewer than 256 bytes (getrandom(2)).
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn config(directory: &Path) -> Config {
        let mut config = Config::default();
        config.gateway.state_dir = directory.to_owned();
        config
    }

    /// Reports whether two keys are the same.
    fn are_equal(one: &Key, two: &Key) -> bool {
        let token = one.sign(&1).expect("a token");
        two.verify::<u8>(&token).is_some()
    }

    #[test]
    fn own_key_is_created_once_and_replaced_when_others_can_read_it() {
        let directory = tempfile::tempdir().expect("directory");
        let config = config(directory.path());
        let load = || Keys::load(&config).expect("valid").own;
        let first = load();
        let file = directory.path().join(OWN);
        assert_eq!(fs::metadata(&file).expect("is there").mode() & 0o777, 0o600);
        assert!(are_equal(&first, &load()));

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("permissions");
        let second = load();
        assert!(!are_equal(&first, &second));
        assert_eq!(fs::metadata(&file).expect("is there").mode() & 0o777, 0o600);

        fs::write(&file, "too short").expect("written");
        let third = load();
        assert!(!are_equal(&second, &third));
        assert!(are_equal(&third, &load()));
    }

    #[test]
    fn missing_state_directory_has_a_key_of_its_own_at_each_start() {
        let directory = tempfile::tempdir().expect("directory");
        let config = config(&directory.path().join("missing"));
        let load = || Keys::load(&config).expect("valid").own;
        assert!(!are_equal(&load(), &load()));
    }

    #[test]
    fn key_of_another_program_needs_enough_bytes() {
        let directory = tempfile::tempdir().expect("directory");
        let mut config = config(directory.path());
        assert!(Keys::load(&config).expect("valid").sandbox.is_none());
        let file = directory.path().join("sandbox.key");
        config.gateway.sandbox_preview_key_file = file.display().to_string();
        let error = Keys::load(&config).expect_err("is missing");
        assert!(error.remedy().expect("a remedy").contains("sandbox.key"));
        fs::write(&file, "secret\n").expect("written");
        let error = Keys::load(&config).expect_err("is short");
        assert!(!chain(&error).contains("secret"), "{error}");
        fs::write(&file, format!("{}\n", "s".repeat(32))).expect("written");
        let key = Keys::load(&config).expect("valid").sandbox.expect("a key");
        assert!(are_equal(&key, &Key::new(&[b's'; 32]).expect("a key")));
    }
}
