//! Tokens for gateways: where they come from, and how they are read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use innkeeper_model::{Code, Failure, Secret};

/// Environment variable with a token.
pub(crate) const TOKEN: &str = "INNKEEPER_TOKEN";
/// Environment variable with the path of a file that contains a token.
pub(crate) const TOKEN_FILE: &str = "INNKEEPER_TOKEN_FILE";

/// Maximum length of a token, in bytes. The gateway's have about 60.
const MAX_LENGTH: usize = 4096;

/// The origin of a token, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    Variable,
    File(PathBuf),
    Context(String),
    /// The session of `innkeeper login` in a context, or at a URL.
    Login(String),
    StandardInput,
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str(TOKEN),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Context(name) => write!(f, "the context '{name}'"),
            Self::Login(place) => write!(f, "the login at '{place}'"),
            Self::StandardInput => f.write_str("standard input"),
        }
    }
}

/// A token and its origin. `Debug` prints only the origin.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) secret: Secret,
    pub(crate) source: TokenSource,
}

impl Token {
    /// Checks a token: printable ASCII characters without spaces. White space around it is removed.
    pub(crate) fn parse(text: &str, source: TokenSource) -> Result<Self, Failure> {
        let text = text.trim();
        let problem = match text {
            "" => Some("is empty".to_owned()),
            text if text.len() > MAX_LENGTH => Some(format!("has more than {MAX_LENGTH} bytes")),
            text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Some(
                "contains a space, a line break or another character that no token has".to_owned(),
            ),
            _ => None,
        };
        match problem {
            None => Ok(Self {
                secret: Secret::new(text),
                source,
            }),
            Some(problem) => Err(Failure::new(
                Code::InvalidRequest,
                format!("the token of {source} {problem}"),
            )
            .with_remedy("Copy the token again as it was shown when it was created: one word.")),
        }
    }

    /// Reads a token from a file.
    pub(crate) fn read_file(path: &Path) -> Result<Self, Failure> {
        let source = TokenSource::File(path.to_owned());
        let file = File::open(path).map_err(|error| unreadable(&source, &error))?;
        Self::read(file, source)
    }

    /// Reads a token from a stream.
    pub(crate) fn read(from: impl Read, source: TokenSource) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        // One byte more than a valid one with a line break, so that a longer one is noticed.
        let limit = u64::try_from(MAX_LENGTH + 3).unwrap_or(u64::MAX);
        (from.take(limit).read_to_end(&mut bytes)).map_err(|error| unreadable(&source, &error))?;
        Self::parse(&String::from_utf8_lossy(&bytes), source)
    }

    /// Returns the token of the environment, if it has one.
    pub(crate) fn from_environment() -> Option<Result<Self, Failure>> {
        if let Some(text) = non_empty(TOKEN) {
            return Some(Self::parse(&text.to_string_lossy(), TokenSource::Variable));
        }
        non_empty(TOKEN_FILE).map(|path| Self::read_file(Path::new(&path)))
    }
}

/// Returns an environment variable. An empty one counts as not set.
pub(crate) fn non_empty(variable: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

fn unreadable(source: &TokenSource, error: &io::Error) -> Failure {
    Failure::new(
        Code::InvalidRequest,
        format!("cannot read the token from {source}: {error}"),
    )
    .with_remedy("Check that the file exists and that you may read it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_one_word_and_never_in_a_message() {
        let parse = |text: &str| Token::parse(text, TokenSource::Variable);
        let token = parse(" ik_7_secret\n").expect("a token");
        assert_eq!(token.secret.expose(), "ik_7_secret");
        assert!(!format!("{token:?}").contains("ik_7"));
        for bad in [
            "",
            "\n",
            "secret secret",
            "secret\r\nX: y",
            "s\u{e9}cret",
            &"s".repeat(5000),
        ] {
            let failure = parse(bad).expect_err(bad);
            assert!(!failure.message.contains("secret"), "{failure:?}");
        }
        let endless = Token::read(io::repeat(b'x'), TokenSource::StandardInput);
        endless.expect_err("too long");
    }
}
