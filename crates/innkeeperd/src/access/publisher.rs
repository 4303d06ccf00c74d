//! The file with the digests of tokens, which `innkeeper-gateway` reads.

use std::path::Path;

use innkeeper_host::FileError;
use innkeeper_model::access::{PublishedToken, TOKENS_FILE, TokenKind, TokenState, TokensFile};
use innkeeper_store::StoredToken;
use jiff::Timestamp;

use super::PublishedFile;

/// Writes the digests of tokens for the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    file: PublishedFile,
}

impl Publisher {
    /// Creates the publisher of a daemon with this `runtime_dir`, for a group.
    pub(crate) fn new(runtime_dir: &Path, group: &str) -> Self {
        Self {
            file: PublishedFile::new(runtime_dir.join(TOKENS_FILE), group),
        }
    }

    /// Replaces the file, atomically.
    ///
    /// # Errors
    /// When it cannot be written. The former one stays.
    pub(crate) fn publish(&self, tokens: &[StoredToken]) -> Result<(), FileError> {
        self.file.publish(&published(tokens))
    }

    /// Removes the file of a daemon with these settings, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn withdraw(&self) -> Result<(), FileError> {
        self.file.withdraw()
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
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

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
        let file = PublishedFile {
            path: directory.path().join(TOKENS_FILE),
            // The group of the tests: any other needs root.
            group: Some(nix::unistd::getegid()),
        };
        let path = file.path.clone();
        Publisher { file }.publish(&[]).expect("publishes");
        assert_eq!(mode(&path), 0o640);
        assert_eq!(mode(path.parent().expect("a parent")), 0o750);
    }
}
