//! The parts of a [`super::Meta`].

use std::cmp::Ordering;
use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize};

use crate::preview::InvalidText;
use crate::preview::checked::checked_text;
use crate::preview::slug::MAX_SLUG;
use crate::{GuestName, InvalidName};

/// The name of a systemd service, always with `.service` at its end: `web` and `web.service` are one.
///
/// By systemd.unit(5) a unit's name has at most 255 characters out of letters, digits and `:-_.\@`. A template
/// without an instance (`web@.service`) cannot be started, and units of other types are no services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// The ends of the names of other units.
    const OTHER_TYPES: [&str; 10] = [
        ".automount",
        ".device",
        ".mount",
        ".path",
        ".scope",
        ".slice",
        ".socket",
        ".swap",
        ".target",
        ".timer",
    ];

    /// Parses a name, with or without `.service`.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        let refuse = |reason| {
            Err(InvalidText {
                what: "systemd service",
                text: text.to_owned(),
                reason,
            })
        };
        let stem = text.strip_suffix(".service").unwrap_or(text);
        if stem.is_empty() {
            return refuse("it is empty");
        }
        if stem.len() + ".service".len() > 255 {
            return refuse("it has more than 255 characters");
        }
        if !stem
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
        {
            return refuse("only letters, digits and : - _ . \\ @ are allowed");
        }
        if stem.starts_with(['-', '@']) || stem.ends_with('@') {
            return refuse("it starts with '-' or '@', or is a template without an instance");
        }
        if Self::OTHER_TYPES.iter().any(|end| stem.ends_with(end)) {
            return refuse("it is a unit of another type");
        }
        Ok(Self(format!("{stem}.service")))
    }
}

checked_text!(ServiceName);

/// Which paths a route is for: `/` for all, `/ws` for exactly this one, `/api/*` for all below `/api/`.
///
/// A path is normalised: no empty parts, none of `.` and `..`, no `/` at the end. Its parts consist of letters,
/// digits and `-._~@:+`, so nothing in it means anything to Caddy, and every character sorts behind `*`.
/// Caddy compares paths without case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(String);

impl RoutePath {
    /// The most characters of a path.
    pub const MAX_LENGTH: usize = 200;

    /// Parses a path. `/*` means `/`.
    ///
    /// # Errors
    /// [`InvalidText`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        if matches!(text, "/" | "/*") {
            return Ok(Self("/".to_owned()));
        }
        let refuse = |reason| {
            Err(InvalidText {
                what: "path of a route",
                text: text.to_owned(),
                reason,
            })
        };
        let Some(rest) = text.strip_prefix('/') else {
            return refuse("it does not start with '/'");
        };
        if text.len() > Self::MAX_LENGTH {
            return refuse("it has more than 200 characters");
        }
        let parts = rest.strip_suffix("/*").unwrap_or(rest);
        if parts.contains('*') {
            return refuse("'*' can only stand at the end, after a '/'");
        }
        if !parts
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-._~@:+".contains(&b))
        {
            return refuse("only letters, digits and / - . _ ~ @ : + are allowed");
        }
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("it contains '//', '.' or '..' as a part, or ends with '/'");
        }
        Ok(Self(text.to_owned()))
    }

    /// The path without `/*` at its end: `/api` for `/api/*`, and nothing for `/`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0
            .strip_suffix("/*")
            .unwrap_or(self.0.trim_end_matches('/'))
    }

    /// Whether it means all paths below its base, and not exactly one.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.0 == "/" || self.0.ends_with("/*")
    }

    /// All paths below this one's base.
    pub(super) fn tree(&self) -> Self {
        if self.is_tree() {
            return self.clone();
        }
        Self(format!("{}/*", self.0))
    }
}

checked_text!(RoutePath);

/// Where requests for a path go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    /// The path.
    pub path: RoutePath,
    /// The port that the app listens on in the guest.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// Whether the app gets the path without the route's base: a request for `/admin/users` by the route
    /// `/admin/*` reaches it as `/users`. A request for `/admin` itself is redirected to `/admin/`. Such a
    /// route is always for a tree, and `stripPrefix` of `/` means nothing.
    #[serde(default)]
    pub strip_prefix: bool,
}

/// 1 to 65535.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    NonZeroU16::deserialize(deserializer).map(NonZeroU16::get)
}

impl RouteRule {
    /// A route; with `strip_prefix`, the path is taken as a tree.
    #[must_use]
    pub fn new(path: RoutePath, port: u16, strip_prefix: bool) -> Self {
        let strip_prefix = strip_prefix && !path.base().is_empty();
        let path = if strip_prefix { path.tree() } else { path };
        Self {
            path,
            port,
            strip_prefix,
        }
    }

    /// What the route is for, in lower case: two routes of one host must not have any in common.
    pub(super) fn claims(&self) -> Vec<String> {
        let path = self.path.as_str().to_ascii_lowercase();
        if self.strip_prefix {
            vec![self.path.base().to_ascii_lowercase(), path]
        } else {
            vec![path]
        }
    }

    /// The order in which routes are tried: the longest path first, `/` last. Of two with the same length the
    /// greater one is first, so that `/a/b` comes before `/a/*`.
    #[must_use]
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let key = |route: &Self| (route.path.0.len(), route.path.0.to_ascii_lowercase());
        key(other).cmp(&key(self))
    }
}

/// Where a preview's PostgreSQL database is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseMode {
    /// On the host's server: the preview is given a database and a role of its own there, in `DATABASE_URL`.
    Host,
    /// In the guest, if it has one: its own configuration sees to it.
    Container,
}

/// Another host name of a preview, `<prefix>-<slug>.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraHost {
    /// What comes before the slug: a DNS label of at most [`ExtraHost::MAX_PREFIX`] characters.
    pub prefix: GuestName,
    /// Which request goes to which port, the most specific path first.
    pub routes: Vec<RouteRule>,
}

impl ExtraHost {
    /// The most characters of a prefix: with a `-` and the longest slug it is a DNS label.
    pub const MAX_PREFIX: usize = GuestName::MAX_LENGTH - 1 - MAX_SLUG;

    /// The first label of its host name, for a preview of this name.
    ///
    /// # Errors
    /// [`InvalidName`] when both together are longer than a DNS label may be.
    pub fn label(&self, slug: &GuestName) -> Result<GuestName, InvalidName> {
        GuestName::parse(&format!("{}-{slug}", self.prefix))
    }
}
