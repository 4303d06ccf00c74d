//! Tokens that another program manages, such as a secrets manager: `name:secret` pairs.
//!
//! | source | read |
//! | --- | --- |
//! | the file of `gateway.tokens_file`, or else that of the variable `SANDBOXD_ENV_FILE` | at the start, and on SIGHUP |
//! | the variable `SANDBOXD_API_TOKENS` of this process | at the start |
//!
//! In the file, `INNKEEPER_API_TOKENS` and `SANDBOXD_API_TOKENS` have the pairs, separated by commas. A name may occur twice,
//! so that a secret is replaced without a gap.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use innkeeper_model::access::{InvalidTokenName, TokenName};
use innkeeper_model::preview::{EnvFile, InvalidLine};
use innkeeper_model::{Code, Explain, Secret};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::config::Config;

/// The variables with pairs in a file.
const VARIABLES: [&str; 2] = ["INNKEEPER_API_TOKENS", "SANDBOXD_API_TOKENS"];

/// The variable with pairs in this process's environment.
const ENVIRONMENT: &str = "SANDBOXD_API_TOKENS";

/// The variable with the file's path.
const FILE: &str = "SANDBOXD_ENV_FILE";

/// The maximum length of the file, in bytes.
const MAX_LENGTH: u64 = 256 * 1024;

/// The minimum length of a secret: strangers can try others at any time.
const MIN_SECRET: usize = 16;

/// The maximum number of pairs: each costs a comparison for each request.
const MAX_PAIRS: usize = 1000;

/// The pairs, with digests in place of the secrets.
#[derive(Debug, Default)]
pub struct Pairs(Vec<(TokenName, [u8; 32])>);

/// Pairs that cannot be used. No error contains a secret, or a text that may be one.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    /// The file cannot be read.
    #[error("cannot read the tokens in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// A line of the file is invalid.
    #[error("line {} of {} {}", bad.line, path.display(), bad.fault)]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        bad: InvalidLine,
    },
    /// The file assigns none of the variables.
    #[error("{} has no INNKEEPER_API_TOKENS and no SANDBOXD_API_TOKENS", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A pair is invalid.
    #[error("pair {number} of {variable} {problem}")]
    Pair {
        /// The variable.
        variable: &'static str,
        /// The pair's number, from 1.
        number: usize,
        /// The problem.
        problem: PairProblem,
    },
}

/// The problem of a pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairProblem {
    /// It has no colon.
    #[error("is not of the form <name>:<secret>")]
    Form,
    /// Its name is invalid.
    #[error("has an invalid name: {0}")]
    Name(InvalidTokenName),
    /// Its secret is too short.
    #[error("has a secret of fewer than {MIN_SECRET} characters")]
    Short,
    /// Its secret has other characters than visible ASCII.
    #[error("has a secret with a character that no HTTP header can have")]
    Character,
    /// Its secret has the form of a token of `innkeeper token create`.
    #[error("has a secret that begins with 'ik_', as tokens of `innkeeper token create` do")]
    Prefix,
    /// There are too many.
    #[error("is one too many: at most {MAX_PAIRS} are read")]
    TooMany,
}

impl Explain for PairsError {
    fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::PermissionDenied
            }
            _ => Code::InvalidConfig,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, .. } => format!(
                "Make {} readable for the group of gateway.group, and for no other users.",
                path.display()
            ),
            Self::Line { path, bad } => format!("Correct line {} of {}.", bad.line, path.display()),
            Self::Missing { .. } => {
                "Write INNKEEPER_API_TOKENS=<name>:<secret>,... to it, or set gateway.tokens_file to \"\".".to_owned()
            }
            Self::Pair { problem: PairProblem::Short, .. } => {
                "Use a longer secret; `openssl rand -hex 32` creates one.".to_owned()
            }
            Self::Pair { variable, .. } => format!("Correct {variable}: <name>:<secret>,..."),
        })
    }
}

impl Pairs {
    /// Reads all sources.
    ///
    /// # Errors
    /// When one cannot be read, or has an invalid pair.
    pub fn load(config: &Config) -> Result<Self, PairsError> {
        Self::load_with(config, |name| std::env::var(name).ok())
    }

    fn load_with(
        config: &Config,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PairsError> {
        let mut pairs = Self::default();
        if let Some(text) = variable(ENVIRONMENT).map(Secret::new) {
            pairs.add(ENVIRONMENT, text.expose())?;
        }
        let configured = Some(config.gateway.tokens_file.clone()).filter(|path| !path.is_empty());
        if let Some(path) = configured.or_else(|| variable(FILE)) {
            pairs.add_file(Path::new(&path))?;
        }
        Ok(pairs)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), PairsError> {
        let contents = read(path).map_err(|source| PairsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut file = EnvFile::parse(contents.expose().as_bytes());
        let mut found = false;
        for variable in VARIABLES {
            let bad = match file.variables.remove(variable) {
                Some(Ok(text)) => {
                    found = true;
                    self.add(variable, text.expose())?;
                    continue;
                }
                Some(Err(bad)) => bad,
                None => match file.ignored.iter().find(|bad| bad.is_about(variable)) {
                    Some(bad) => bad.clone(),
                    None => continue,
                },
            };
            let path = path.to_owned();
            return Err(PairsError::Line { path, bad });
        }
        match found {
            true => Ok(()),
            false => Err(PairsError::Missing {
                path: path.to_owned(),
            }),
        }
    }

    fn add(&mut self, variable: &'static str, text: &str) -> Result<(), PairsError> {
        for (index, pair) in text.split(',').map(str::trim).enumerate() {
            if pair.is_empty() {
                continue;
            }
            let pair = parse(pair).and_then(|pair| match self.0.len() {
                MAX_PAIRS.. => Err(PairProblem::TooMany),
                _ => Ok(pair),
            });
            self.0.push(pair.map_err(|problem| PairsError::Pair {
                variable,
                number: index + 1,
                problem,
            })?);
        }
        Ok(())
    }

    /// Returns the name of a secret. The time depends on the number of pairs only.
    pub(crate) fn find(&self, secret: &str) -> Option<&TokenName> {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let mut found = u32::MAX;
        for (index, (_, expected)) in (0..).zip(&self.0) {
            let equal: Choice = digest.ct_eq(expected);
            found.conditional_assign(&index, equal);
        }
        let (name, _) = self.0.get(usize::try_from(found).ok()?)?;
        Some(name)
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no tokens besides those of `innkeeper token`");
        }
        f.write_str("tokens besides those of `innkeeper token`:")?;
        self.0.iter().try_for_each(|(name, _)| write!(f, " {name}"))
    }
}

/// Parses a pair, and returns the digest of its secret.
fn parse(pair: &str) -> Result<(TokenName, [u8; 32]), PairProblem> {
    let (name, secret) = pair.split_once(':').ok_or(PairProblem::Form)?;
    let name = TokenName::parse(name).map_err(PairProblem::Name)?;
    if secret.len() < MIN_SECRET {
        return Err(PairProblem::Short);
    }
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(PairProblem::Character);
    }
    if secret.starts_with("ik_") {
        return Err(PairProblem::Prefix);
    }
    Ok((name, Sha256::digest(secret).into()))
}

/// Reads a file of limited length.
fn read(path: &Path) -> io::Result<Secret> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(MAX_LENGTH + 1).read_to_string(&mut text)?;
    let text = Secret::new(text);
    match u64::try_from(text.expose().len()) {
        Ok(..=MAX_LENGTH) => Ok(text),
        _ => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is too long",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn load(file: Option<&str>, variable: Option<&str>) -> Result<Pairs, PairsError> {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("tokens.env");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
        }
        Pairs::load_with(&Config::default(), |name| match name {
            ENVIRONMENT => variable.map(str::to_owned),
            FILE => file.map(|_| path.display().to_string()),
            _ => None,
        })
    }

    fn name_of(pairs: &Pairs, secret: &str) -> Option<String> {
        pairs.find(secret).map(ToString::to_string)
    }

    #[test]
    fn pairs_come_from_the_file_and_the_environment() {
        let file = format!(
            "OTHER=1\nSANDBOXD_API_TOKENS='ci:{SECRET}-1, ci:{SECRET}-2,'\nINNKEEPER_API_TOKENS=bot:{SECRET}:3\n"
        );
        let pairs = load(Some(&file), Some(&format!("env:{SECRET}-4"))).expect("valid");
        for (secret, name) in [
            ("-1", Some("ci")),
            ("-2", Some("ci")),
            (":3", Some("bot")),
            ("-4", Some("env")),
            ("-5", None),
            ("", None),
        ] {
            let found = name_of(&pairs, &format!("{SECRET}{secret}"));
            assert_eq!(found.as_deref(), name, "{secret}");
        }
        assert_eq!(
            pairs.to_string(),
            "tokens besides those of `innkeeper token`: env bot ci ci"
        );
        assert_eq!(name_of(&load(None, None).expect("valid"), ""), None);
    }

    #[test]
    fn invalid_pairs_are_rejected_and_not_shown() {
        for (text, expected) in [
            ("hunter2hunter2hunter2", "is not of the form"),
            ("a b:hunter2hunter2hunter2", "has an invalid name"),
            ("ci:hunter2", "fewer than 16"),
            ("ci:hunter2 hunter2 hunter2", "no HTTP header"),
            ("ci:ik_hunter2hunter2hunter2", "begins with 'ik_'"),
        ] {
            let text = format!("ok:{SECRET},{text}");
            let error = load(None, Some(&text)).expect_err(&text);
            let message = format!("{error} {:?} {error:?}", error.remedy());
            assert!(message.contains(expected), "{message}");
            assert!(
                message.contains("pair 2 of SANDBOXD_API_TOKENS"),
                "{message}"
            );
            assert!(!message.contains("hunter2"), "{message}");
        }
        let many: Vec<_> = (0..=MAX_PAIRS)
            .map(|i| format!("n{i}:{SECRET}{i}"))
            .collect();
        let error = load(None, Some(&many.join(","))).expect_err("too many");
        assert!(error.to_string().contains("one too many"), "{error}");
    }

    #[test]
    fn file_without_tokens_is_an_error() {
        let error = |text: &str| load(Some(text), None).expect_err(text).to_string();
        assert!(
            error("OTHER=1\n").ends_with("has no INNKEEPER_API_TOKENS and no SANDBOXD_API_TOKENS")
        );
        assert!(error("INNKEEPER_API_TOKENS='ci:x\n").starts_with("line 1 of "));
        assert!(error("SANDBOXD_API_TOKENS ci:x\n").starts_with("line 1 of "));
        let mut config = Config::default();
        config.gateway.tokens_file = "/nowhere/tokens.env".to_owned();
        let error = Pairs::load_with(&config, |_| None).expect_err("missing");
        assert_eq!(
            error.to_string(),
            "cannot read the tokens in /nowhere/tokens.env"
        );
    }
}
