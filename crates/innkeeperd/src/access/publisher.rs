//! The file with the digests of tokens, which `innkeeper-gateway` reads.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use innkeeper_host::{FileError, FileErrorExt};
use innkeeper_model::access::{PublishedToken, TOKENS_FILE, TokenKind, TokenState, TokensFile};
use innkeeper_store::StoredToken;
use jiff::Timestamp;
use nix::unistd::Gid;

use crate::socket::group_id;

/// Writes the digests of tokens for the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    path: PathBuf,
    /// The gateway's group. `None` when it does not exist: only root may read the file then.
    group: Option<Gid>,
}

impl Publisher {
    /// Creates the publisher of a daemon with this `runtime_dir`, for a group.
    pub(crate) fn new(runtime_dir: &Path, group: &str) -> Self {
        Self {
            path: runtime_dir.join(TOKENS_FILE),
            group: group_id(group),
        }
    }

    /// Replaces the file, atomically.
    ///
    /// # Errors
    /// When it cannot be written. The former one stays.
    pub(crate) fn publish(&self, tokens: &[StoredToken]) -> Result<(), FileError> {
        let text = serde_json::to_vec(&published(tokens))
            .map_err(io::Error::from)
            .on("write", &self.path)?;
        self.prepare_directory()?;
        let temporary = self.path.with_extension("new");
        self.write(&temporary, &text).on("write", &temporary)?;
        fs::rename(&temporary, &self.path).on("rename", &temporary)
    }

    /// Removes the file of a daemon with these settings, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn withdraw(&self) -> Result<(), FileError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).on("remove", &self.path)
            }
            _ => Ok(()),
        }
    }

    /// Creates the file's directory, which the group can enter.
    fn prepare_directory(&self) -> Result<(), FileError> {
        let Some(directory) = self.path.parent() else {
            return Ok(());
        };
        let mode = if self.group.is_some() { 0o750 } else { 0o700 };
        let mut builder = DirBuilder::new();
        let created = builder.recursive(true).mode(0o700).create(directory);
        created.on("create", directory)?;
        let opened = File::open(directory).on("open", directory)?;
        self.give(&opened, mode).on("set permissions of", directory)
    }

    fn write(&self, path: &Path, text: &[u8]) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text)?;
        let mode = if self.group.is_some() { 0o640 } else { 0o600 };
        self.give(&file, mode)
    }

    /// Gives a file or directory to the group, then sets its mode.
    fn give(&self, file: &File, mode: u32) -> io::Result<()> {
        if let Some(group) = self.group {
            fchown(file, None, Some(group.as_raw()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
    }
}

/// Returns the contents of the file: all tokens that are not revoked, without the sessions that have expired.
fn published(tokens: &[StoredToken]) -> TokensFile {
    let now = Timestamp::now();
    let is_published = |token: &&StoredToken| match token.record.state(now) {
        TokenState::Valid => true,
        TokenState::Expired => token.record.kind == TokenKind::Token,
        TokenState::Revoked => false,
    };
    let valid = tokens.iter().filter(is_published);
    let publish = |token: &StoredToken| PublishedToken {
        id: token.record.id,
        name: token.record.name.clone(),
        sha256: hex(&token.digest),
        expires: token.record.expires_at,
    };
    TokensFile {
        version: TokensFile::VERSION,
        tokens: valid.map(publish).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use innkeeper_model::access::{Role, TokenId, TokenName, TokenRecord};

    use super::*;

    fn token(id: i64, revoked: bool) -> StoredToken {
        StoredToken {
            digest: [0xab; 32],
            record: TokenRecord {
                id: TokenId(id),
                name: TokenName::parse("ci").expect("a name"),
                kind: TokenKind::Token,
                person: None,
                role: Role::Admin,
                repo: None,
                created_by: "uid:0".to_owned(),
                created_at: Timestamp::UNIX_EPOCH,
                expires_at: Some(Timestamp::UNIX_EPOCH),
                last_used_at: None,
                revoked_at: revoked.then_some(Timestamp::UNIX_EPOCH),
            },
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").permissions().mode() & 0o7777
    }

    #[test]
    fn file_has_the_digests_of_tokens_that_are_not_revoked() {
        let directory = tempfile::tempdir().expect("a directory");
        let publisher = Publisher::new(directory.path(), "no-such-group-of-tests");
        publisher.withdraw().expect("nothing to remove");
        for _ in 0..2 {
            let tokens = [token(1, true), token(2, false)];
            publisher.publish(&tokens).expect("publishes");
        }
        let path = directory.path().join(TOKENS_FILE);
        let text = fs::read_to_string(&path).expect("reads");
        let file: TokensFile = serde_json::from_str(&text).expect("parses");
        let [published] = &file.tokens[..] else {
            panic!("{text}");
        };
        assert_eq!((file.version, published.id), (1, TokenId(2)));
        assert_eq!(published.sha256, "ab".repeat(32));
        assert_eq!(published.expires, Some(Timestamp::UNIX_EPOCH));
        assert!(!text.contains("admin"), "the role is the daemon's matter");
        // Only root may read it without the group.
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("a parent")), 0o700);
        publisher.withdraw().expect("removes");
        assert!(!path.exists());
    }

    #[test]
    fn group_may_read_the_file_and_no_other_user() {
        let directory = tempfile::tempdir().expect("a directory");
        let publisher = Publisher {
            path: directory.path().join(TOKENS_FILE),
            // The group of the tests: any other needs root.
            group: Some(nix::unistd::getegid()),
        };
        publisher.publish(&[]).expect("publishes");
        assert_eq!(mode(&publisher.path), 0o640);
        assert_eq!(mode(publisher.path.parent().expect("a parent")), 0o750);
    }
}
