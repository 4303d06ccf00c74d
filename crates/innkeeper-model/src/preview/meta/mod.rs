//! What a repository's `preview-config.nix` says about the app (`config.system.build.previewMeta`), read
//! strictly: the repository's author learns everything that is wrong at once.
//!
//! | field | | value |
//! | --- | --- | --- |
//! | `setupService` | required | the service that fetches and builds the app ([`ServiceName`]) |
//! | `appServices` | required | the services that are started after it, at most [`Meta::MAX_SERVICES`] |
//! | `database` | required | `"host"` or `"container"` ([`DatabaseMode`]) |
//! | `routes` | required | at least one `{ path, port, stripPrefix? }`, at most [`Meta::MAX_ROUTES`] ([`RouteRule`]) |
//! | `hostSecrets` | | names of environment variables, at most [`Meta::MAX_SECRETS`] |
//! | `extraHosts` | | `{ prefix, routes }`, at most [`Meta::MAX_EXTRA_HOSTS`] ([`ExtraHost`]) |
//!
//! The last two may be left out or `null`. Nothing in it is trusted: a pull request wrote it.

mod parts;
mod problem;
mod read;

use serde::{Deserialize, Deserializer, Serialize, de};

pub use self::parts::{DatabaseMode, ExtraHost, RoutePath, RouteRule, ServiceName};
pub use self::problem::{MetaProblem, MetaProblemKind, MetaProblems};
use super::EnvName;
use crate::{GuestName, InvalidName};

/// What the app is: its services, its database, its routes, and what it wants from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The service that fetches and builds the app; it has ended when the app services are started.
    pub setup_service: ServiceName,
    /// The services that make up the app.
    pub app_services: Vec<ServiceName>,
    /// Where its PostgreSQL database is.
    pub database: DatabaseMode,
    /// Which request goes to which port, the most specific path first.
    pub routes: Vec<RouteRule>,
    /// The host's secrets that it wants. It gets those that the host allows for the repository.
    pub host_secrets: Vec<EnvName>,
    /// More host names.
    pub extra_hosts: Vec<ExtraHost>,
}

impl Meta {
    /// The most bytes of its JSON.
    pub const MAX_BYTES: usize = 256 * 1024;
    /// The most app services.
    pub const MAX_SERVICES: usize = 32;
    /// The most routes of one host name.
    pub const MAX_ROUTES: usize = 64;
    /// The most secrets.
    pub const MAX_SECRETS: usize = 64;
    /// The most extra hosts.
    pub const MAX_EXTRA_HOSTS: usize = 16;

    /// Reads the JSON that Nix made of it.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text, and at least one problem.
    pub fn parse(json: &str) -> Result<Self, Vec<MetaProblem>> {
        read::meta(json)
    }

    /// Every DNS label that a preview of this name answers to: its slug, and `<prefix>-<slug>` for each extra
    /// host. Two previews must not share one, or one of them could take the other's requests: `admin-web-1`
    /// can be a preview's slug as well as an extra host of the preview `web-1`.
    ///
    /// # Errors
    /// [`InvalidName`] when a prefix and the slug together are too long; see [`super::MAX_SLUG`].
    pub fn labels(&self, slug: &GuestName) -> Result<Vec<GuestName>, InvalidName> {
        let extra = self.extra_hosts.iter().map(|host| host.label(slug));
        std::iter::once(Ok(slug.clone())).chain(extra).collect()
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        read::value(&value).map_err(|problems| de::Error::custom(MetaProblems(problems)))
    }
}

#[cfg(test)]
mod tests;
