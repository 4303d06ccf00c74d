//! The metadata of an app in a repository's `preview-config.nix` (`config.system.build.previewMeta`). Parsing is strict
//! and reports all problems at once.
//!
//! | field | | value |
//! | --- | --- | --- |
//! | `setupService` | required | the service that fetches and builds the app ([`ServiceName`]) |
//! | `appServices` | required | the services that are started after it, at most [`Meta::MAX_SERVICES`] |
//! | `database` | required | `"host"` or `"container"` ([`DatabaseMode`]) |
//! | `routes` | required | at least one `{ path, port, stripPrefix?, protocol?, timeout?, healthPath? }`, at most [`Meta::MAX_ROUTES`] ([`RouteRule`]) |
//! | `hostSecrets` | | names of environment variables, at most [`Meta::MAX_SECRETS`] |
//! | `extraHosts` | | `{ prefix, routes }`, at most [`Meta::MAX_EXTRA_HOSTS`] ([`ExtraHost`]) |
//! | `visibility` | | `"public"`, `"team"` or `"private"` ([`Visibility`]): the host's setting applies if it is stricter |
//!
//! The last three may be omitted or `null`. All of it is untrusted: it comes from a pull request.

mod health;
mod parts;
mod problem;
mod read;

use serde::{Deserialize, Deserializer, Serialize, de};

pub use self::health::HealthPath;
pub use self::parts::{
    DatabaseMode, ExtraHost, RoutePath, RouteProtocol, RouteRule, RouteTimeout, ServiceName,
};
pub use self::problem::{MetaProblem, MetaProblemKind, MetaProblems};
use super::{EnvName, Visibility};
use crate::reserved::prefix_reservation;
use crate::{GuestName, InvalidName};

/// An app's services, database, routes, and the secrets that it needs from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The service that fetches and builds the app; it ends before the app services start.
    pub setup_service: ServiceName,
    /// The services that serve the app.
    pub app_services: Vec<ServiceName>,
    /// The place of its PostgreSQL database.
    pub database: DatabaseMode,
    /// The routes from paths to ports, the most specific path first.
    pub routes: Vec<RouteRule>,
    /// The host's secrets that it requests. It receives those that the host allows for the repository.
    pub host_secrets: Vec<EnvName>,
    /// Additional host names.
    pub extra_hosts: Vec<ExtraHost>,
    /// The visitors that it asks for; `None` leaves them to the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
}

impl Meta {
    /// Maximum length of its JSON, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;
    /// Maximum number of app services.
    pub const MAX_SERVICES: usize = 32;
    /// Maximum number of routes of one host name.
    pub const MAX_ROUTES: usize = 64;
    /// Maximum number of secrets.
    pub const MAX_SECRETS: usize = 64;
    /// Maximum number of extra hosts.
    pub const MAX_EXTRA_HOSTS: usize = 16;

    /// Parses the JSON that Nix generated.
    ///
    /// # Errors
    /// All problems, at least one, in the order of the text.
    pub fn parse(json: &str) -> Result<Self, Vec<MetaProblem>> {
        read::meta(json)
    }

    /// Returns the DNS labels of a preview with this slug: the slug, and `<prefix>-<slug>` for each extra host. Two
    /// previews must not share one, or one could receive the other's requests: `admin-web-1` can be a preview's slug as
    /// well as an extra host of the preview `web-1`.
    ///
    /// # Errors
    /// [`InvalidName`] when a prefix and the slug together are too long; see [`super::MAX_SLUG`].
    pub fn labels(&self, slug: &GuestName) -> Result<Vec<GuestName>, InvalidName> {
        let extra = self.extra_hosts.iter().map(|host| host.label(slug));
        std::iter::once(Ok(slug.clone())).chain(extra).collect()
    }

    /// Returns the reserved prefixes of the extra hosts, each with its problem. A repository that had one before the
    /// reservation may keep it.
    pub fn reserved_prefixes(&self) -> impl Iterator<Item = (&GuestName, MetaProblem)> {
        let hosts = self.extra_hosts.iter().enumerate();
        hosts.filter_map(|(index, ExtraHost { prefix, .. })| {
            let reason = prefix_reservation(prefix)?;
            let problem = MetaProblem {
                place: format!("/extraHosts/{index}/prefix"),
                kind: MetaProblemKind::Reserved {
                    prefix: prefix.clone(),
                    reason,
                },
            };
            Some((prefix, problem))
        })
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
