//! The parts of a [`super::Meta`].

use std::cmp::Ordering;
use std::num::NonZeroU16;

use serde::{Deserialize, Deserializer, Serialize};

use super::HealthPath;
use crate::preview::InvalidText;
use crate::preview::checked::checked_text;
use crate::preview::slug::MAX_SLUG;
use crate::{GuestName, InvalidName};

/// The name of a systemd service, always with the suffix `.service`: `web` and `web.service` are the same.
///
/// By systemd.unit(5), a unit's name has at most 255 characters out of letters, digits and `:-_.\@`. A template without
/// an instance (`web@.service`) cannot be started, and units of other types are not services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

impl ServiceName {
    /// The suffixes of other units.
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
    /// [`InvalidText`] names the broken rule.
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

/// The paths of a route: `/` for all, `/ws` and `/ws/` for exactly this one, `/api/*` for all below `/api/`.
///
/// A path is normalized: no empty segments, no `.` or `..`. Its segments consist of letters, digits and
/// `-._~@:+`, so that no character has a meaning for Caddy, and every character sorts after `*`. Caddy compares paths
/// case-insensitively.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoutePath(String);

impl RoutePath {
    /// Maximum length of a path, in characters.
    pub const MAX_LENGTH: usize = 200;

    /// Parses a path. `/*` means `/`.
    ///
    /// # Errors
    /// [`InvalidText`] names the broken rule.
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
        let parts = rest
            .strip_suffix("/*")
            .or_else(|| rest.strip_suffix('/'))
            .unwrap_or(rest);
        if parts.contains('*') {
            return refuse("'*' is only allowed at the end, after a '/'");
        }
        if !parts
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/-._~@:+".contains(&b))
        {
            return refuse("only letters, digits and / - . _ ~ @ : + are allowed");
        }
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("it contains '//' or the segment '.' or '..'");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the path without `/*` or `/` at its end: `/api` for `/api/*`, and the empty string for `/`.
    #[must_use]
    pub fn base(&self) -> &str {
        self.0
            .strip_suffix("/*")
            .unwrap_or(self.0.trim_end_matches('/'))
    }

    /// Reports whether it matches all paths below its base, rather than exactly one.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.0 == "/" || self.0.ends_with("/*")
    }

    /// Returns the pattern for all paths below its base.
    pub(super) fn tree(&self) -> Self {
        if self.is_tree() {
            return self.clone();
        }
        Self(format!("{}/*", self.base()))
    }
}

checked_text!(RoutePath);

/// A route from a path to a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    /// The path.
    pub path: RoutePath,
    /// The app's port in the guest.
    #[serde(deserialize_with = "port")]
    pub port: u16,
    /// True if the route's base is removed from the path: by the route `/admin/*`, a request for `/admin/users` reaches
    /// the app as `/users`, and a request for `/admin` is redirected to `/admin/`. Such a route always matches a tree;
    /// for `/`, `stripPrefix` has no effect.
    #[serde(default)]
    pub strip_prefix: bool,
    /// The target of health checks, not changed by `strip_prefix`. `None` for the route's own path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_path: Option<HealthPath>,
    /// The protocol between the host's proxy and the app.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: RouteProtocol,
    /// Maximum time until the app's response begins. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<RouteTimeout>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The protocol between the host's proxy and an app.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RouteProtocol {
    /// HTTP/1.1, with WebSockets.
    #[default]
    Http,
    /// HTTP/2 without TLS and without an upgrade ("prior knowledge"), as gRPC servers speak it.
    H2c,
}

impl RouteProtocol {
    /// All protocols.
    pub const ALL: [Self; 2] = [Self::Http, Self::H2c];

    /// Returns the name in preview-config.nix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
        }
    }
}

/// Maximum time until an app's response begins, in seconds: one of [`Self::SECONDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct RouteTimeout(u16);

impl RouteTimeout {
    /// The supported times. The proxy's configuration, which is the same for all previews, has each of them.
    pub const SECONDS: [u16; 14] = [1, 2, 5, 10, 15, 30, 60, 90, 120, 180, 300, 600, 1800, 3600];

    /// Returns the time in seconds.
    #[must_use]
    pub fn seconds(self) -> u16 {
        self.0
    }

    /// Returns all supported times, in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::SECONDS.into_iter().map(Self)
    }
}

impl TryFrom<u16> for RouteTimeout {
    type Error = InvalidText;

    fn try_from(seconds: u16) -> Result<Self, InvalidText> {
        if Self::SECONDS.contains(&seconds) {
            return Ok(Self(seconds));
        }
        Err(InvalidText {
            what: "timeout of a route",
            text: seconds.to_string(),
            reason: "it is not among the supported numbers of seconds",
        })
    }
}

impl From<RouteTimeout> for u16 {
    fn from(timeout: RouteTimeout) -> Self {
        timeout.0
    }
}

/// Deserializes a port from 1 to 65535.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    NonZeroU16::deserialize(deserializer).map(NonZeroU16::get)
}

impl RouteRule {
    /// Creates a route. With `strip_prefix`, the path becomes a tree.
    #[must_use]
    pub fn new(path: RoutePath, port: u16, strip_prefix: bool) -> Self {
        let strip_prefix = strip_prefix && !path.base().is_empty();
        let path = if strip_prefix { path.tree() } else { path };
        Self {
            path,
            port,
            strip_prefix,
            protocol: RouteProtocol::default(),
            timeout: None,
            health_path: None,
        }
    }

    /// Returns the patterns that the route matches, in lower case. Routes of one host must not share any.
    pub(super) fn claims(&self) -> Vec<String> {
        let path = self.path.as_str().to_ascii_lowercase();
        if self.strip_prefix {
            vec![self.path.base().to_ascii_lowercase(), path]
        } else {
            vec![path]
        }
    }

    /// Orders routes for matching: the longest path first, `/` last. Of two paths with the same length the greater one is
    /// first, so that `/a/b` precedes `/a/*`.
    #[must_use]
    pub fn by_specificity(&self, other: &Self) -> Ordering {
        let key = |route: &Self| (route.path.0.len(), route.path.0.to_ascii_lowercase());
        key(other).cmp(&key(self))
    }
}

/// The place of a preview's PostgreSQL database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DatabaseMode {
    /// On the host's server, with its own database and role, passed in `DATABASE_URL`.
    Host,
    /// In the guest, if at all: the guest's configuration provides it.
    Container,
}

/// An additional host name of a preview, `<prefix>-<slug>.<domain>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraHost {
    /// The prefix of the slug: a DNS label of at most [`ExtraHost::MAX_PREFIX`] characters.
    pub prefix: GuestName,
    /// The routes from paths to ports, the most specific path first.
    pub routes: Vec<RouteRule>,
}

impl ExtraHost {
    /// Maximum length of a prefix: together with `-` and the longest slug it is a DNS label.
    pub const MAX_PREFIX: usize = GuestName::MAX_LENGTH - 1 - MAX_SLUG;

    /// Returns the first label of its host name for a preview with this slug.
    ///
    /// # Errors
    /// [`InvalidName`] when the label is longer than a DNS label may be.
    pub fn label(&self, slug: &GuestName) -> Result<GuestName, InvalidName> {
        GuestName::parse(&format!("{}-{slug}", self.prefix))
    }
}
