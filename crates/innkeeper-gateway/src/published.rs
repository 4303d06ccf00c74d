//! The digests of tokens that innkeeperd writes. Each change takes effect with the next request.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use innkeeper_model::access::{PublishedToken, TokenId, TokenText, TokensFile};
use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::watched::{Parse, Watched, parse_digest, unknown_version};

/// The digest that a token without one is compared with, so that both take the same time. No text is known to have it.
const NONE: [u8; 32] = [0; 32];

/// The tokens of `innkeeper token`, and the sessions of people.
#[derive(Debug)]
pub(crate) struct Published(Watched<Tokens>);

#[derive(Debug)]
struct Tokens(HashMap<TokenId, Entry>);

#[derive(Clone, Debug)]
struct Entry {
    digest: [u8; 32],
    expires: Option<Timestamp>,
}

/// The tokens are not known: innkeeperd has not written them, or they cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Published {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(Watched::new(path))
    }

    /// Reports whether a token is valid.
    ///
    /// # Errors
    /// [`Unknown`] if that is not known. No request may pass then.
    pub(crate) fn accepts(&self, token: &TokenText) -> Result<bool, Unknown> {
        let tokens = self.0.current().ok_or(Unknown)?;
        let entry = tokens.0.get(&token.id());
        let expected = entry.map_or(&NONE, |entry| &entry.digest);
        let is_equal = bool::from(token.digest().ct_eq(expected));
        Ok(is_equal && entry.is_some_and(Entry::is_current))
    }

    /// Reports whether the token with a number has neither expired nor been revoked. The number must come from a text that
    /// the gateway signed after it had accepted the token.
    ///
    /// # Errors
    /// [`Unknown`] if that is not known. No request may pass then.
    pub(crate) fn is_current(&self, id: TokenId) -> Result<bool, Unknown> {
        let tokens = self.0.current().ok_or(Unknown)?;
        Ok(tokens.0.get(&id).is_some_and(Entry::is_current))
    }

    /// Returns the number of tokens, if they are known.
    pub(crate) fn count(&self) -> Option<usize> {
        self.0.current().map(|tokens| tokens.count())
    }
}

impl Entry {
    fn is_current(&self) -> bool {
        let now = Timestamp::now();
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Parse for Tokens {
    const NOUN: &'static str = "tokens";

    fn parse(text: &[u8]) -> io::Result<Self> {
        let file: TokensFile = serde_json::from_slice(text)?;
        if file.version != TokensFile::VERSION {
            return Err(unknown_version(file.version));
        }
        let entry = |token: PublishedToken| {
            let expires = token.expires;
            let digest = parse_digest(&token.sha256)?;
            Ok((token.id, Entry { digest, expires }))
        };
        file.tokens
            .into_iter()
            .map(entry)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;
    use std::path::Path;

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
