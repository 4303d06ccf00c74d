//! Types of command-line arguments that need more than a string.

use std::env;
use std::path::{Path, PathBuf};

use innkeeper_model::access::{MAX_TOKEN_LIFETIME, SHARE_LIFETIME};
use innkeeper_model::preview::{InvalidSlug, Visibility, parse_existing_slug};
use innkeeper_model::{
    Code, Explain, GuestName, IdlePolicy, Installable, InvalidInstallable, MAX_KEEPALIVE,
};
use jiff::{SignedDuration, Span, SpanRelativeTo};

/// A flake output. Relative paths are made absolute, since the daemon has another working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlakeOutput(String);

impl FlakeOutput {
    /// Parses `<flake>` or `<flake>#<attribute>`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidInstallable> {
        Installable::parse(text, Installable::DEFAULT_ATTRIBUTE)?;
        Ok(Self(absolute(
            text,
            &env::current_dir().unwrap_or_default(),
        )))
    }

    /// Returns the text for a request. The daemon adds its default attribute if none is given.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Makes the path in a path-like flake reference absolute.
///
/// Path-like references start with `.` or `path:` (Nix manual, "nix flake", "Path-like syntax"). All others are URLs,
/// absolute paths or registry names, which do not depend on the working directory.
fn absolute(text: &str, directory: &Path) -> String {
    let (scheme, rest) = match text.strip_prefix("path:") {
        Some(rest) => ("path:", rest),
        None => ("", text),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let (path, parameters) = rest.split_at(end);
    let relative = !path.is_empty() && !path.starts_with('/');
    if !relative || (scheme.is_empty() && !path.starts_with('.')) {
        return text.to_owned();
    }
    let joined = directory.join(path);
    // The daemon reports a path that does not exist, with its own error code.
    let found = joined.canonicalize().unwrap_or_else(|_| normalize(&joined));
    format!("{scheme}{}{parameters}", found.display())
}

/// Removes `.` and `..` from an absolute path without accessing the file system.
fn normalize(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The name that this machine gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineName(String);

/// A text that is not a [`MachineName`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not the name of a machine: use 1 to 64 printable ASCII characters", .0.escape_debug())]
pub(crate) struct InvalidMachineName(String);

impl MachineName {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidMachineName> {
        let is_valid = |b: u8| b.is_ascii_graphic() || b == b' ';
        let is_name =
            (1..=64).contains(&text.len()) && text.bytes().all(is_valid) && text.trim() == text;
        match is_name {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidMachineName(text.to_owned())),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the host name of this machine, without characters that a name cannot have.
    pub(crate) fn of_this_machine() -> Self {
        let system = rustix::system::uname();
        let host = system.nodename().to_string_lossy().into_owned();
        let host: String = host
            .chars()
            .filter(char::is_ascii_graphic)
            .take(64)
            .collect();
        Self(if host.is_empty() {
            "machine".to_owned()
        } else {
            host
        })
    }
}

/// Parses an idle policy.
pub(crate) fn idle_policy(text: &str) -> Result<IdlePolicy, String> {
    let found = IdlePolicy::ALL
        .into_iter()
        .find(|policy| policy.as_str() == text);
    found.ok_or_else(|| "write sleep, pause or always-on".to_owned())
}

/// A visibility, or `default`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VisibilityWord(pub(crate) Option<Visibility>);

/// Parses a visibility, or `default`.
pub(crate) fn visibility(text: &str) -> Result<VisibilityWord, String> {
    if text == "default" {
        return Ok(VisibilityWord(None));
    }
    let found = text
        .parse()
        .map(|visibility| VisibilityWord(Some(visibility)));
    found.map_err(|_| "write public, team, private or default".to_owned())
}

/// Parses the time of a keepalive, in seconds.
pub(crate) fn keepalive_time(text: &str) -> Result<u64, String> {
    let time: Option<SignedDuration> = text.parse().ok();
    let seconds = time.and_then(|time| u64::try_from(time.as_secs()).ok());
    let seconds = seconds.ok_or("write a time such as 90m or 8h")?;
    match seconds <= MAX_KEEPALIVE.as_secs() {
        true => Ok(seconds),
        false => Err("a keepalive lasts at most 24h".to_owned()),
    }
}

/// Parses the lifetime of a token, in seconds.
pub(crate) fn token_lifetime(text: &str) -> Result<u64, String> {
    let span: Option<Span> = text.parse().ok();
    let time = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    let seconds = time.and_then(|time| u64::try_from(time.as_secs()).ok());
    let seconds = seconds.ok_or("write a time such as 12h, 30d or 8w")?;
    match (1..=MAX_TOKEN_LIFETIME).contains(&seconds) {
        true => Ok(seconds),
        false => Err("a token expires after one second at least and ten years at most".to_owned()),
    }
}

/// Parses the lifetime of a share link or a preview's token, in seconds.
pub(crate) fn grant_lifetime(text: &str) -> Result<u64, String> {
    let seconds = token_lifetime(text)?;
    match seconds <= SHARE_LIFETIME.1 {
        true => Ok(seconds),
        false => Err("a share link or token of a preview expires after a year at most".to_owned()),
    }
}

/// An invalid slug where the slug of an existing preview is required.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub(crate) struct InvalidExistingSlug(InvalidSlug);

impl Explain for InvalidExistingSlug {
    fn code(&self) -> Code {
        self.0.code()
    }

    fn remedy(&self) -> Option<String> {
        Some("`preview list` shows the slugs of all previews.".to_owned())
    }
}

/// Parses the slug of an existing preview. Its remedy lists slugs instead of explaining how to choose one.
pub(crate) fn existing_slug(text: &str) -> Result<GuestName, InvalidExistingSlug> {
    parse_existing_slug(text).map_err(InvalidExistingSlug)
}

/// An environment variable for a command in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable(pub(crate) String, pub(crate) String);

/// A text that is not a [`Variable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidVariable {
    /// A missing or invalid name before the `=`.
    #[error(
        "'{0}' is not an environment variable: write NAME=VALUE, or NAME to pass on a variable of this shell"
    )]
    Syntax(String),
    /// A name without a value that is not set in the caller's environment.
    #[error("cannot pass on environment variable '{0}': it is not set in this shell")]
    Unset(String),
}

impl Variable {
    /// Parses `NAME=VALUE`, or `NAME` to pass on the caller's variable.
    ///
    /// All users of the host can read a program's arguments, so `NAME` is the only safe form for a secret.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidVariable> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, env::var(text).ok()),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(InvalidVariable::Syntax(text.to_owned()));
        }
        let value = value.ok_or_else(|| InvalidVariable::Unset(name.to_owned()))?;
        Ok(Self(name.to_owned(), value))
    }
}

/// The id of a delivery (`X-GitHub-Delivery`). It is safe to insert into a URL path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryId(String);

/// A text that is not a [`DeliveryId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a delivery id", .0.escape_debug())]
pub(crate) struct InvalidDeliveryId(String);

impl DeliveryId {
    /// Parses an id of GitHub: ASCII letters, digits, `-` and `_`.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidDeliveryId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(InvalidDeliveryId(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_flakes_resolve_in_the_callers_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path().canonicalize().expect("its path");
        let at = |text: &str| absolute(text, &here);
        let here = here.display();
        assert_eq!(at("."), format!("{here}"));
        assert_eq!(at(".#guest"), format!("{here}#guest"));
        assert_eq!(at("./fleet/../x?dir=a#b"), format!("{here}/x?dir=a#b"));
        assert_eq!(at("path:fleet"), format!("path:{here}/fleet"));
    }

    #[test]
    fn other_flakes_are_unchanged() {
        for text in [
            "/srv/fleet#a",
            "github:owner/repo",
            "nixpkgs#hello",
            "path:/srv/x",
        ] {
            assert_eq!(absolute(text, Path::new("/home/kim")), text);
        }
    }

    #[test]
    fn variables_are_set_or_passed_on() {
        let variable = |name: &str, value: &str| Ok(Variable(name.to_owned(), value.to_owned()));
        assert_eq!(Variable::parse("A=b=c"), variable("A", "b=c"));
        assert_eq!(Variable::parse("A="), variable("A", ""));
        assert!(matches!(Variable::parse("PATH"), Ok(Variable(_, value)) if !value.is_empty()));
        assert!(matches!(
            Variable::parse("=x"),
            Err(InvalidVariable::Syntax(_))
        ));
        assert!(matches!(
            Variable::parse("INNKEEPER_NO_SUCH"),
            Err(InvalidVariable::Unset(_))
        ));
    }

    #[test]
    fn delivery_ids_are_safe_in_a_path() {
        let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
        assert_eq!(DeliveryId::parse(id).expect("valid").as_str(), id);
        for bad in ["", "a/b", "a b", "..", "a?b", "a#b", "a%20b"] {
            assert!(DeliveryId::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn this_machine_has_a_name() {
        let name = MachineName::of_this_machine();
        assert_eq!(MachineName::parse(name.as_str()), Ok(name));
        for bad in ["", " a", "a\n", "\u{1b}", "\u{e9}", &"a".repeat(65)] {
            MachineName::parse(bad).expect_err(bad);
        }
    }
}
