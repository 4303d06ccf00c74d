//! The file of contexts: named gateways with their tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use innkeeper_model::{Code, Failure};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::token::non_empty;

/// Maximum size of the file, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The name of a context: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContextName(String);

/// A text that is not a [`ContextName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not the name of a context: use 1 to 63 letters, digits, '-', '_' and '.'", .0.escape_debug())]
pub(crate) struct InvalidContextName(String);

impl ContextName {
    /// The name for this machine's own daemon. No context in the file has it.
    pub(crate) const LOCAL: &str = "local";

    pub(crate) fn parse(text: &str) -> Result<Self, InvalidContextName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidContextName(text.to_owned())),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Reports whether this is the name for this machine's own daemon.
    pub(crate) fn is_local(&self) -> bool {
        self.0 == Self::LOCAL
    }
}

impl fmt::Display for ContextName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A gateway in the file. `Debug` is not derived: it contains the token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredContext {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The session that the token is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<StoredLogin>,
}

/// The session of `innkeeper login`, for people.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredLogin {
    pub(crate) person: String,
    /// Its name among all sessions of the host.
    pub(crate) session: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
}

/// The contents of the file.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The context that commands use; none for this machine's own daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, StoredContext>,
}

/// Returns the path of the file, `${XDG_CONFIG_HOME:-~/.config}/innkeeper/contexts.toml`. `None` without a home directory.
pub(crate) fn path() -> Option<PathBuf> {
    let directory = match non_empty("XDG_CONFIG_HOME").map(PathBuf::from) {
        // A relative path is invalid (XDG Base Directory Specification).
        Some(directory) if directory.is_absolute() => directory,
        _ => PathBuf::from(non_empty("HOME")?).join(".config"),
    };
    Some(directory.join("innkeeper/contexts.toml"))
}

/// Returns the path of the file. Fails without a home directory.
pub(crate) fn required_path() -> Result<PathBuf, Failure> {
    path().ok_or_else(|| {
        Failure::new(Code::InvalidRequest, "cannot keep a context: there is no home directory")
            .with_remedy("Set HOME or XDG_CONFIG_HOME. Without contexts, INNKEEPER_URL and INNKEEPER_TOKEN name the gateway.")
    })
}

impl Contexts {
    /// Reads the file. Without a file, or without a home directory, there are no contexts.
    pub(crate) fn load() -> Result<Self, Failure> {
        match path() {
            Some(path) => Self::read(&path),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if is_out_of_reach(path, &error) => return Ok(Self::default()),
            file => file.map_err(|error| cannot("read", path, &error))?,
        };
        check_private(&file, path)?;
        let mut text = String::new();
        let read = file.take(MAX_SIZE).read_to_string(&mut text);
        read.map_err(|error| cannot("read", path, &error))?;
        // The error of the parser would show the line, which may contain a token.
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let place = line.map(|line| format!(" in line {line}")).unwrap_or_default();
            Failure::new(
                Code::InvalidConfig,
                format!("cannot read the contexts in {}: it is not valid{place}", path.display()),
            )
            .with_remedy("Repair the line, or remove the file and add the contexts again with `innkeeper context add`.")
        })
    }

    /// Changes the file. Changes at the same time wait for each other; a reader finds the file before or after the change.
    pub(crate) fn change<T>(
        change: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let path = required_path()?;
        let failed = |error: io::Error| cannot("write", &path, &error);
        let directory = path.parent().unwrap_or(Path::new("/"));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(failed)?;
        let lock = File::open(directory).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let mut contexts = Self::read(&path)?;
        let result = change(&mut contexts)?;
        contexts.write(&path, directory).map_err(failed)?;
        Ok(result)
    }

    /// Replaces the file. Called with the lock.
    fn write(&self, path: &Path, directory: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let new = directory.join(".contexts.toml.new");
        // One that a killed program left.
        match std::fs::remove_file(&new) {
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
        std::fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    }

    /// Returns a context.
    pub(crate) fn get(&self, name: &str) -> Result<&StoredContext, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            Failure::new(
                Code::InvalidRequest,
                format!("there is no context '{}'", name.escape_debug()),
            )
            .with_remedy("`innkeeper context list` shows all; `innkeeper context add` adds one.")
        })
    }
}

/// Whether the file is in a directory that this user may not enter: that of another user, whose `HOME` `setpriv` and `su`
/// keep. It has no contexts for this user.
fn is_out_of_reach(path: &Path, error: &io::Error) -> bool {
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    is_denied(error) && path.metadata().is_err_and(|error| is_denied(&error))
}

/// Refuses a file that other users can read or write: it contains tokens, and the addresses that they are sent to.
fn check_private(file: &File, path: &Path) -> Result<(), Failure> {
    let status = file
        .metadata()
        .map_err(|error| cannot("read", path, &error))?;
    let shown = path.display();
    let user = rustix::process::geteuid().as_raw();
    if status.uid() != user && user != 0 {
        return Err(refused(
            format!("the contexts in {shown} belong to another user"),
            format!("Make the file yours (`sudo chown $USER {shown}`)."),
        ));
    }
    match status.mode() & 0o077 {
        0 => Ok(()),
        _ => Err(refused(
            format!("other users of this machine may read or write {shown}, which contains tokens"),
            format!(
                "Run `chmod 600 {shown}`, and replace the tokens if others could have read them."
            ),
        )),
    }
}

fn refused(problem: String, remedy: String) -> Failure {
    Failure::new(Code::InvalidConfig, problem).with_remedy(remedy)
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {verb} the contexts in {}: {error}", path.display());
    Failure::new(Code::InvalidConfig, message).with_remedy(
        "Check the permissions of the file and of its directory, and the free space on the disk.",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_of_others_and_damaged_file_are_refused_without_their_contents() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("contexts.toml");
        std::fs::write(
            &path,
            "current = \"a\"\n[contexts.a]\nurl = \"x\"\ntoken = \"secret",
        )
        .expect("written");
        let mode =
            |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
        for open in [0o640, 0o604, 0o620, 0o602] {
            mode(open);
            let failure = Contexts::read(&path).err().expect("refused");
            assert!(failure.remedy.expect("a remedy").contains("chmod 600"));
        }
        mode(0o600);
        let failure = Contexts::read(&path).err().expect("damaged");
        assert!(failure.message.contains("line 4"), "{failure}");
        assert!(!failure.message.contains("secret"), "{failure}");
    }

    #[test]
    fn names_are_words() {
        for good in ["a", "Office-1", "a.b_c"] {
            ContextName::parse(good).expect(good);
        }
        for bad in ["", "a b", "a/b", "\u{e9}", "a\n", &"a".repeat(64)] {
            ContextName::parse(bad).expect_err(bad);
        }
    }
}
