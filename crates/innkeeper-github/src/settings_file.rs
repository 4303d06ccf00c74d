//! The host's files with secrets, such as `/var/secrets/preview.env`.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::preview::{EnvFile, EnvProblem, InvalidLine};
use innkeeper_model::{Code, Explain, Secret};
use zeroize::Zeroizing;

/// Maximum length of a file with secrets, in bytes.
pub(crate) const MAX_LENGTH: u64 = 64 * 1024;

/// The variables of one or several files in the format of systemd's `EnvironmentFile=`, parsed by [`EnvFile`]. Later files
/// take precedence. An invalid line affects its variable only.
#[derive(Clone, Default)]
pub struct EnvironmentFiles {
    variables: BTreeMap<String, Result<Secret, InvalidFileLine>>,
    ignored: Vec<InvalidFileLine>,
}

/// An invalid line and its file.
type InvalidFileLine = (PathBuf, InvalidLine);

/// A file with secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read, or a required file does not exist.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// It is too long, not UTF-8, or empty.
    #[error("{} {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem.
        reason: &'static str,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: io::Error,
    },
    /// It is a link: another program manages its contents, such as sops-nix.
    #[error("{} is a link, whose target another program manages", path.display())]
    Managed {
        /// The file.
        path: PathBuf,
    },
    /// Its variables would be too long together.
    #[error("{} would be longer than 64 KiB", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A value cannot be in such a file.
    #[error(transparent)]
    Value(EnvProblem),
    /// The line that assigns a variable is invalid. The line is not shown: it may be a secret.
    #[error("line {} of {} {}", bad.line, path.display(), bad.fault)]
    Line {
        /// The file.
        path: PathBuf,
        /// The line.
        bad: InvalidLine,
    },
}

impl Explain for SecretFileError {
    fn code(&self) -> Code {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Code::PermissionDenied
            }
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DiskFull,
                _ => Code::PermissionDenied,
            },
            Self::Full { .. } | Self::Value(_) => Code::InvalidRequest,
            _ => Code::InvalidConfig,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, .. } => format!(
                "Make {} readable for the service's user, or pass it as a systemd credential (`LoadCredential=`).",
                path.display()
            ),
            Self::Content { path, .. } => {
                format!("Write the secret to {} as one line.", path.display())
            }
            Self::Write { path, .. } => format!(
                "innkeeperd's unit may write only where its `ReadWritePaths=` allow it: add the folder of {} with `systemctl edit innkeeper`, and check its file system.",
                path.display()
            ),
            Self::Managed { path } => format!(
                "Change the secret where that program has it, or replace {} by a file.",
                path.display()
            ),
            Self::Full { path } => {
                format!(
                    "Remove secrets that are not needed, or shorten {}.",
                    path.display()
                )
            }
            Self::Value(_) => "Use another value, such as its base64 encoding.".to_owned(),
            Self::Line { path, bad } => {
                format!("Correct line {} of {}.", bad.line, path.display())
            }
        })
    }
}

impl SecretFileError {
    /// Returns the problem without the file's path, for readers who must not see the host's paths.
    #[must_use]
    pub fn without_path(&self) -> String {
        match self {
            Self::Read { source, .. } => format!("it cannot be read: {source}"),
            Self::Content { reason, .. } => format!("it {reason}"),
            Self::Write { source, .. } => format!("it cannot be written: {source}"),
            Self::Managed { .. } => "another program manages it".to_owned(),
            Self::Full { .. } => "it is full".to_owned(),
            Self::Value(problem) => problem.to_string(),
            Self::Line { bad, .. } => bad.to_string(),
        }
    }
}

impl EnvironmentFiles {
    /// Reads files in order. A missing file counts as empty.
    ///
    /// # Errors
    /// [`SecretFileError`], which names the file and never contains its content.
    pub fn read<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
    ) -> Result<Self, SecretFileError> {
        let mut files = Self::default();
        for path in paths {
            if let Some(contents) = read_if_there(path.as_ref())? {
                files.add(path.as_ref(), EnvFile::parse(&contents));
            }
        }
        Ok(files)
    }

    /// Returns the value of a variable. An empty value counts as unset.
    ///
    /// # Errors
    /// The invalid line that assigns it, or probably should.
    pub fn get(&self, variable: &str) -> Result<Option<&Secret>, SecretFileError> {
        let error = |(path, bad): &InvalidFileLine| SecretFileError::Line {
            path: path.clone(),
            bad: bad.clone(),
        };
        match self.variables.get(variable) {
            Some(Ok(value)) => Ok(Some(value).filter(|value| !value.expose().is_empty())),
            Some(Err(invalid)) => Err(error(invalid)),
            None => match self.ignored.iter().find(|(_, bad)| bad.is_about(variable)) {
                Some(invalid) => Err(error(invalid)),
                None => Ok(None),
            },
        }
    }

    /// Returns the names of all variables, also of those whose line is invalid.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Returns all values, of valid lines.
    pub fn values(&self) -> impl Iterator<Item = &Secret> {
        self.variables
            .values()
            .filter_map(|value| value.as_ref().ok())
    }

    /// Returns all invalid lines, for the log.
    pub fn invalid_lines(&self) -> impl Iterator<Item = SecretFileError> {
        let invalid = self.variables.values();
        let invalid = invalid.filter_map(|value| value.as_ref().err());
        invalid
            .chain(&self.ignored)
            .map(|(path, bad)| SecretFileError::Line {
                path: path.clone(),
                bad: bad.clone(),
            })
    }

    fn add(&mut self, path: &Path, file: EnvFile) {
        let invalid = |bad| (path.to_owned(), bad);
        for (name, value) in file.variables {
            self.variables.insert(name, value.map_err(invalid));
        }
        self.ignored.extend(file.ignored.into_iter().map(invalid));
    }
}

impl fmt::Debug for EnvironmentFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Reads a file with one secret. Trims white space, because editors add a newline.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, SecretFileError> {
    let text = read_text(path)?;
    let secret = Secret::new(text.expose().trim());
    if secret.expose().is_empty() {
        return Err(SecretFileError::Content {
            path: path.to_owned(),
            reason: "is empty",
        });
    }
    Ok(secret)
}

pub(crate) fn read_secret_if_there(path: &Path) -> Result<Option<Secret>, SecretFileError> {
    match read_secret(path) {
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SecretFileError> {
    match read_bytes(path) {
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<Secret, SecretFileError> {
    let bytes = read_bytes(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretFileError::Content {
        path: path.to_owned(),
        reason: "is not UTF-8",
    })?;
    Ok(Secret::new(text))
}

fn read_bytes(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFileError> {
    let read = |source| SecretFileError::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(read)?.len();
    if length > MAX_LENGTH {
        return Err(SecretFileError::Content {
            path: path.to_owned(),
            reason: "is longer than 64 KiB",
        });
    }
    Ok(Zeroizing::new(std::fs::read(path).map_err(read)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> EnvironmentFiles {
        let mut files = EnvironmentFiles::default();
        let path = Path::new("/var/secrets/preview.env");
        files.add(path, EnvFile::parse(text.as_bytes()));
        files
    }

    fn value<'f>(files: &'f EnvironmentFiles, variable: &str) -> Option<&'f str> {
        let value = files.get(variable).expect("valid");
        value.map(Secret::expose)
    }

    #[test]
    fn invalid_line_affects_its_variable_and_is_not_shown() {
        let files =
            parse("OK=1\nghp_secret\nEMPTY=\nREPOS octo/web\nTOKEN='hunter2\nKEY=\"a\nb\"\n");
        assert_eq!(value(&files, "OK"), Some("1"));
        assert_eq!(value(&files, "EMPTY"), None);
        assert_eq!(value(&files, "KEY"), Some("a\nb"));
        assert_eq!(value(&files, "ABSENT"), None);
        let error = |variable| files.get(variable).expect_err(variable).to_string();
        assert_eq!(
            error("TOKEN"),
            "line 5 of /var/secrets/preview.env has a quote that is not closed"
        );
        // Fails closed: an invalid allowlist must not count as an empty one, which would allow all repositories.
        assert_eq!(
            error("REPOS"),
            "line 4 of /var/secrets/preview.env is not of the form NAME=value"
        );
        assert_eq!(files.invalid_lines().count(), 3);
        let shown: Vec<_> = files
            .invalid_lines()
            .map(|bad| format!("{bad} {bad:?}"))
            .collect();
        let shown = format!("{shown:?} {files:?}");
        assert!(
            !shown.contains("ghp_secret") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn later_file_takes_precedence_and_missing_is_empty() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        std::fs::write(&first, "A=1\nB=1\n").expect("write");
        std::fs::write(&second, "B=2\n").expect("write");
        let files =
            EnvironmentFiles::read([first, dir.path().join("none"), second]).expect("reads");
        assert_eq!(value(&files, "A"), Some("1"));
        assert_eq!(value(&files, "B"), Some("2"));
        assert!(!format!("{files:?}").contains('2'));
    }
}
