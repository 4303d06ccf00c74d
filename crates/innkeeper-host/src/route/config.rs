//! The settings that all routes share.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::identity::Identity;

/// Settings of [`CaddyRoutes`](super::CaddyRoutes).
#[derive(Clone, Debug)]
pub struct CaddyConfig {
    /// Directory of the previews' files, such as `/etc/caddy/previews`. Caddy's main file must contain
    /// `import <directory>/*.caddy`. An absolute path without spaces: Caddyfiles contain it.
    pub directory: PathBuf,
    /// Caddy's main file, such as `/etc/caddy/Caddyfile`. It must import other files by absolute path: Caddy's admin API
    /// resolves relative paths from Caddy's working directory.
    pub caddyfile: PathBuf,
    /// Directory of the table that Caddy reads at each request. Caddy's user must be able to read it, and only innkeeperd
    /// may write there. An absolute path without spaces.
    pub table: PathBuf,
    /// Loopback address of Caddy's internal lookups, exclusive to them.
    pub lookup: SocketAddr,
    /// Unix socket of the program `innkeeper-pages`, for requests whose app does not answer. A path without spaces.
    pub pages: PathBuf,
    /// Unix socket of `innkeeper-gateway` for the check of visitors. A path without spaces. `None` means that previews that are
    /// not public are closed.
    pub access: Option<PathBuf>,
    /// The resolver of settled hosts. `None` means that no host is settled.
    pub resolver: Option<RouteResolver>,
    /// Address of Caddy's admin API.
    pub admin: Admin,
    /// Domain of the previews, such as `preview.example.org` or `localhost`.
    pub domain: String,
    /// Encryption of browsers' connections.
    pub tls: Tls,
    /// Port for browsers. `None` means 80 or 443.
    pub port: Option<u16>,
    /// Port for guests, on which each guest reaches only the hosts of its own preview. The firewall redirects their
    /// connections to [`Self::port`] there. `None` means that they do not reach Caddy.
    pub guest_port: Option<u16>,
    /// True if browsers use HTTPS, with Caddy or with a server in front of it. Apps see it in `X-Forwarded-Proto`.
    pub is_https: bool,
    /// Networks of servers in front of Caddy, such as a tunnel or a load balancer. Their `X-Forwarded-For` is passed on.
    pub trusted_proxies: Vec<IpNet>,
    /// The value of `X-Robots-Tag` in the responses of apps; `None` leaves the header to apps.
    pub robots: Option<Robots>,
    /// Marks the previews' files.
    pub identity: Identity,
}

/// The program `innkeeper-dns`, as Caddy uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteResolver {
    /// The port on which it responds to the host.
    pub port: u16,
    /// The link to the table that exists while it runs.
    pub table: PathBuf,
}

/// A value of the response header `X-Robots-Tag`, such as `noindex`: letters, digits and `-_:, `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Robots(String);

impl Robots {
    /// Parses a value. Returns `None` if it is empty or has other characters, which Caddyfiles would need to quote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_:, ".contains(c);
        (!text.trim().is_empty() && text.chars().all(is_plain)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Address of Caddy's admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// A Unix socket, `admin unix//run/caddy/admin.sock` in Caddy's main file. Preferable, because the API gives full
    /// control of Caddy to all its clients.
    Unix(PathBuf),
    /// A loopback address; Caddy's own default is 127.0.0.1:2019.
    Tcp(SocketAddr),
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix/{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Encryption of browsers' connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain HTTP.
    None,
    /// A certificate from files that covers `*.<domain>`.
    Files {
        /// The certificate with its chain, PEM.
        certificate: PathBuf,
        /// Its key, PEM.
        key: PathBuf,
    },
    /// A snippet of Caddy's main file with a `tls` directive, such as `cloudflare_tls`. Also for a wildcard certificate by
    /// ACME, whose DNS challenge needs a provider's module.
    Snippet(String),
    /// Caddy's own certificate authority.
    Internal,
    /// One ACME certificate per host, obtained at its first request. Caddy's main file must have
    /// `on_demand_tls { ask http://<lookup address>/ }` among its global options, which allows only hosts of previews.
    OnDemand,
}
