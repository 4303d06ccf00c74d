//! The settings that all routes share.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    /// Address of Caddy's admin API.
    pub admin: Admin,
    /// Domain of the previews, such as `preview.example.org` or `localhost`.
    pub domain: String,
    /// Encryption of browsers' connections.
    pub tls: Tls,
    /// Port for browsers. `None` means 80 or 443.
    pub port: Option<u16>,
    /// Marks the previews' files.
    pub identity: Identity,
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
