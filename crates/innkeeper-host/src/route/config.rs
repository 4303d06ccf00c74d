//! The settings that all routes share.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::identity::Identity;

/// The settings of [`CaddyRoutes`](super::CaddyRoutes).
#[derive(Clone, Debug)]
pub struct CaddyConfig {
    /// The directory of the previews' files, such as `/etc/caddy/previews`. Caddy's main file must have
    /// `import <directory>/*.caddy`. The path stands in files that Caddy reads: absolute, without spaces.
    pub directory: PathBuf,
    /// Caddy's main file, such as `/etc/caddy/Caddyfile`. What it imports, it must import by absolute path:
    /// it is given to Caddy's admin API, where a relative path starts at Caddy's working directory.
    pub caddyfile: PathBuf,
    /// The directory of the tables that Caddy reads at each request. Caddy's user must be able to read it
    /// and nobody but us may write there. Absolute, without spaces.
    pub table: PathBuf,
    /// The address on which Caddy looks routes up, on loopback and used by nothing else.
    pub lookup: SocketAddr,
    /// Where Caddy's admin API listens.
    pub admin: Admin,
    /// The domain under which previews appear, such as `preview.example.org` or `localhost`.
    pub domain: String,
    /// How browsers are spoken to.
    pub tls: Tls,
    /// The port that browsers use; 80 or 443 when nothing is given.
    pub port: Option<u16>,
    /// Marks the previews' files.
    pub identity: Identity,
}

/// Where Caddy's admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// A Unix socket, `admin unix//run/caddy/admin.sock` in Caddy's main file. Preferable, because the API
    /// lets who reaches it do everything.
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

/// How browsers are spoken to.
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
    /// A snippet of Caddy's main file with a `tls` directive, such as `cloudflare_tls`. A wildcard
    /// certificate by ACME goes this way too, because its DNS challenge needs a provider's module.
    Snippet(String),
    /// Caddy's own certificate authority.
    Internal,
    /// One certificate for each host by ACME, when a browser first asks for it. Caddy's main file must have
    /// `on_demand_tls { ask http://<lookup address>/ }` among its global options; hosts of previews are
    /// allowed there and no others.
    OnDemand,
}
