//! The host's files with secrets: `/var/secrets/preview.env` and its like.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use innkeeper_model::{Code, Explain};
use zeroize::Zeroizing;

use crate::Secret;

/// The most a file with secrets may hold, in bytes.
const MAX_LENGTH: u64 = 64 * 1024;

/// The assignments of one or several files in the form of systemd's `EnvironmentFile=`
/// (systemd.exec(5)): `KEY=value` lines, comments with `#` or `;`, values in single or double quotes or
/// none. A later file wins. Values that go over several lines are not supported.
#[derive(Clone, Default)]
pub struct EnvironmentFiles {
    values: BTreeMap<String, Secret>,
}

/// A file with secrets that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is there and cannot be read, or it is not there and was asked for by name.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It is too long, not UTF-8, or empty.
    #[error("{} {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A line that is no assignment. The line itself is not shown: it may be a secret.
    #[error("line {line} of {} is not of the form KEY=value", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
}

impl Explain for SecretFileError {
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
                "Make {} readable for the service's user, or hand it over as a systemd credential (`LoadCredential=`).",
                path.display()
            ),
            Self::Content { path, .. } => {
                format!("Put the secret into {} as one line.", path.display())
            }
            Self::Line { path, line } => {
                format!("Correct line {line} of {}.", path.display())
            }
        })
    }
}

impl EnvironmentFiles {
    /// Reads files one after the other. A file that is not there holds nothing.
    ///
    /// # Errors
    /// [`SecretFileError`] names the file, and never what is in it.
    pub fn read<P: AsRef<Path>>(
        paths: impl IntoIterator<Item = P>,
    ) -> Result<Self, SecretFileError> {
        let mut files = Self::default();
        for path in paths {
            if let Some(text) = read_if_there(path.as_ref())? {
                files.add(path.as_ref(), &text)?;
            }
        }
        Ok(files)
    }

    /// The value of a key; an empty one counts as none.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Secret> {
        self.values.get(key).filter(|value| !value.is_empty())
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<(), SecretFileError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let (key, value) = assignment(line).ok_or_else(|| SecretFileError::Line {
                path: path.to_owned(),
                line: number + 1,
            })?;
            self.values.insert(key.to_owned(), value);
        }
        Ok(())
    }
}

impl fmt::Debug for EnvironmentFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

fn assignment(line: &str) -> Option<(&str, Secret)> {
    let (key, value) = line.split_once('=')?;
    // Files that are also read by a shell have it.
    let key = key.strip_prefix("export ").unwrap_or(key).trim();
    let valid = !key.is_empty()
        && !key.starts_with(|c: char| c.is_ascii_digit())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    valid
        .then(|| unquote(value.trim()))
        .flatten()
        .map(|value| (key, value))
}

/// The value without its quotes and escapes; nothing when a quote is not closed.
fn unquote(value: &str) -> Option<Secret> {
    if let Some(inner) = value.strip_prefix('\'') {
        return inner.strip_suffix('\'').map(Secret::new);
    }
    let (inner, quoted) = match value.strip_prefix('"') {
        Some(rest) => (rest.strip_suffix('"')?, true),
        None => (value, false),
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => {
                let next = characters.next()?;
                // Inside double quotes a backslash is one unless it protects something (systemd.exec(5)).
                if quoted && !"\"\\`$".contains(next) {
                    text.push('\\');
                }
                text.push(next);
            }
            '"' if quoted => return None,
            other => text.push(other),
        }
    }
    Some(Secret::new(text))
}

/// A file that holds one secret. White space around it is not part of it: editors add a line's end.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, SecretFileError> {
    let text = read_text(path)?;
    let secret = Secret::new(text.trim());
    if secret.is_empty() {
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

fn read_if_there(path: &Path) -> Result<Option<Zeroizing<String>>, SecretFileError> {
    match read_text(path) {
        Err(SecretFileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let content = |reason| SecretFileError::Content {
        path: path.to_owned(),
        reason,
    };
    let read = |source| SecretFileError::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(read)?.len();
    if length > MAX_LENGTH {
        return Err(content("is longer than 64 KiB"));
    }
    let bytes = Zeroizing::new(std::fs::read(path).map_err(read)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| content("is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EnvironmentFiles, SecretFileError> {
        let mut files = EnvironmentFiles::default();
        files.add(Path::new("/var/secrets/preview.env"), text)?;
        Ok(files)
    }

    #[test]
    fn assignments_are_read_as_systemd_reads_them() {
        let files = parse(
            "# comment\n; another\n\nGITHUB_TOKEN=plain\nexport A=b\nQ='single $x \\n'\nD=\"a\\\"b\\\\c\\$d\\q\"\nE=\n  SPACE = padded \nURL=a=b=c\n",
        )
        .expect("valid");
        let get = |key| files.get(key).map(Secret::expose);
        assert_eq!(get("GITHUB_TOKEN"), Some("plain"));
        assert_eq!(get("A"), Some("b"));
        assert_eq!(get("Q"), Some("single $x \\n"));
        assert_eq!(get("D"), Some("a\"b\\c$d\\q"));
        assert_eq!(get("E"), None);
        assert_eq!(get("SPACE"), Some("padded"));
        assert_eq!(get("URL"), Some("a=b=c"));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number_and_not_shown() {
        for bad in ["ghp_secret", "K=\"open", "1K=v", "K='open", "a b=c"] {
            let error = parse(&format!("OK=1\n{bad}\n")).expect_err(bad);
            assert_eq!(
                error.to_string(),
                "line 2 of /var/secrets/preview.env is not of the form KEY=value"
            );
        }
    }

    #[test]
    fn a_later_file_wins_and_a_missing_one_holds_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (first, second) = (dir.path().join("1"), dir.path().join("2"));
        std::fs::write(&first, "A=1\nB=1\n").expect("write");
        std::fs::write(&second, "B=2\n").expect("write");
        let files =
            EnvironmentFiles::read([first, dir.path().join("none"), second]).expect("reads");
        assert_eq!(files.get("A").map(Secret::expose), Some("1"));
        assert_eq!(files.get("B").map(Secret::expose), Some("2"));
        assert!(!format!("{files:?}").contains('2'));
    }
}
