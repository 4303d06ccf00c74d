//! The digests of tokens that innkeeperd writes. Each change takes effect with the next request.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use innkeeper_model::access::{TokenId, TokenText, TokensFile};
use innkeeper_service::LogThrottle;
use jiff::Timestamp;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tracing::{error, info};

/// The maximum length of the file, in bytes.
const MAX_LENGTH: u64 = 16 << 20;

/// The digest that a token without one is compared with, so that both take the same time. No text is known to have it.
const NONE: [u8; 32] = [0; 32];

/// The tokens of `innkeeper token`.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
    state: Mutex<State>,
    warnings: LogThrottle,
}

#[derive(Debug, Default)]
struct State {
    read: Option<Stamp>,
    /// `None` while they are unknown.
    tokens: Option<Arc<Tokens>>,
}

type Tokens = HashMap<TokenId, Entry>;

#[derive(Clone, Debug)]
struct Entry {
    digest: [u8; 32],
    expires: Option<Timestamp>,
}

/// The identity of a file's contents. innkeeperd replaces the file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The tokens are not known: innkeeperd has not written them, or they cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Published {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: Mutex::default(),
            warnings: LogThrottle::default(),
        }
    }

    /// Reports whether a token is valid.
    ///
    /// # Errors
    /// [`Unknown`] if that is not known. No request may pass then.
    pub(crate) fn accepts(&self, token: &TokenText) -> Result<bool, Unknown> {
        let tokens = self.tokens().ok_or(Unknown)?;
        let entry = tokens.get(&token.id());
        let expected = entry.map_or(&NONE, |entry| &entry.digest);
        let is_equal = bool::from(token.digest().ct_eq(expected));
        let now = Timestamp::now();
        let is_current = |entry: &Entry| entry.expires.is_none_or(|expires| now < expires);
        Ok(is_equal && entry.is_some_and(is_current))
    }

    /// Returns the number of tokens, if they are known.
    pub(crate) fn count(&self) -> Option<usize> {
        self.tokens().map(|tokens| tokens.len())
    }

    /// Returns the tokens of the file as it is now. While the file does not exist, the former ones stay: a daemon that
    /// restarts writes it again.
    fn tokens(&self) -> Option<Arc<Tokens>> {
        let mut state = self.state.lock();
        match fs::metadata(&self.path).map(|metadata| Stamp::of(&metadata)) {
            Ok(stamp) if state.read == Some(stamp) => {}
            Ok(_) => *state = self.read(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.warn(&error);
                *state = State::default();
            }
        }
        state.tokens.clone()
    }

    fn read(&self) -> State {
        match read(&self.path) {
            Ok((stamp, tokens)) => {
                info!(tokens = tokens.len(), "read the tokens of innkeeperd");
                State {
                    read: Some(stamp),
                    tokens: Some(Arc::new(tokens)),
                }
            }
            Err(error) => {
                self.warn(&error);
                State::default()
            }
        }
    }

    fn warn(&self, error: &io::Error) {
        if self.warnings.count(Instant::now()).is_some() {
            let path = self.path.display();
            error!(%error, %path, "cannot read the tokens of innkeeperd; no token is accepted");
        }
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn read(path: &Path) -> io::Result<(Stamp, Tokens)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = Vec::new();
    file.take(MAX_LENGTH).read_to_end(&mut text)?;
    let file: TokensFile = serde_json::from_slice(&text)?;
    if file.version != TokensFile::VERSION {
        let version = file.version;
        return Err(io::Error::other(format!(
            "version {version} of the file is unknown; install the gateway and innkeeperd of one release"
        )));
    }
    let entry = |token: innkeeper_model::access::PublishedToken| {
        let expires = token.expires;
        let digest = parse_digest(&token.sha256)?;
        Some((token.id, Entry { digest, expires }))
    };
    let tokens: Option<Tokens> = file.tokens.into_iter().map(entry).collect();
    let tokens = tokens.ok_or_else(|| io::Error::other("a digest is invalid"))?;
    Ok((stamp, tokens))
}

/// Parses 64 hexadecimal digits.
fn parse_digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 {
        return None;
    }
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use innkeeper_model::access::{PublishedToken, TokenName};
    use jiff::ToSpan as _;

    use super::*;

    fn token(id: i64, fill: u8) -> TokenText {
        TokenText::new(TokenId(id), &[fill; 32])
    }

    fn published(token: &TokenText, expires: Option<Timestamp>) -> PublishedToken {
        let mut sha256 = String::new();
        for byte in token.digest() {
            write!(sha256, "{byte:02x}").expect("a string");
        }
        PublishedToken {
            id: token.id(),
            name: TokenName::parse("laptop").expect("a name"),
            sha256,
            expires,
        }
    }

    /// Replaces the file as innkeeperd does.
    fn write(path: &Path, text: &str) {
        let new = path.with_extension("new");
        fs::write(&new, text).expect("written");
        fs::rename(new, path).expect("renamed");
    }

    fn json(tokens: Vec<PublishedToken>) -> String {
        let version = TokensFile::VERSION;
        serde_json::to_string(&TokensFile { version, tokens }).expect("JSON")
    }

    #[test]
    fn each_change_takes_effect_at_once() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("tokens.json");
        let tokens = Published::new(path.clone());
        let now = Timestamp::now();
        let [one, two] = [token(1, 1), token(2, 2)];
        assert_eq!(tokens.accepts(&one), Err(Unknown));

        write(&path, &json(vec![published(&one, None)]));
        assert_eq!(tokens.accepts(&one), Ok(true));
        assert_eq!(tokens.accepts(&two), Ok(false));
        assert_eq!(tokens.accepts(&token(1, 2)), Ok(false));

        let expired = Some(now - 1.second());
        let valid = Some(now + 1.hour());
        write(
            &path,
            &json(vec![published(&one, expired), published(&two, valid)]),
        );
        assert_eq!(tokens.accepts(&one), Ok(false));
        assert_eq!(tokens.accepts(&two), Ok(true));
        assert_eq!(tokens.count(), Some(2));

        // A restart of innkeeperd may remove the directory.
        fs::remove_file(&path).expect("removed");
        assert_eq!(tokens.accepts(&two), Ok(true));
        write(&path, &json(Vec::new()));
        assert_eq!(tokens.accepts(&two), Ok(false));
    }

    #[test]
    fn no_token_is_accepted_while_the_file_is_invalid() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("tokens.json");
        let tokens = Published::new(path.clone());
        let one = token(1, 1);
        let entry = published(&one, None);
        let wrong = |sha256: &str| PublishedToken {
            sha256: sha256.to_owned(),
            ..entry.clone()
        };
        let valid = json(vec![entry.clone()]);
        for invalid in [
            String::new(),
            "{".to_owned(),
            valid.replace("\"version\":1", "\"version\":2"),
            json(vec![wrong("")]),
            json(vec![wrong(&"g".repeat(64))]),
            json(vec![wrong(&"ä".repeat(32))]),
        ] {
            write(&path, &valid);
            assert_eq!(tokens.accepts(&one), Ok(true));
            write(&path, &invalid);
            assert_eq!(tokens.accepts(&one), Err(Unknown), "{invalid}");
        }
    }
}
