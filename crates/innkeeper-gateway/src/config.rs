//! The settings: a part of innkeeperd's configuration file.

use std::path::PathBuf;
use std::time::Duration;

use innkeeper_service::{ConfigError, Gateway, Log, Settings};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A configuration with the origin of each value.
pub type Loaded = innkeeper_service::Loaded<Config>;

/// The number of timeouts for which a client may read none of its response: a person may pause the output of a terminal.
const STALL_FACTOR: u32 = 30;

/// The settings of this program. Sections that belong to others are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The directory of innkeeperd's sockets.
    pub runtime_dir: PathBuf,
    /// This program's own section, which innkeeperd also reads.
    pub gateway: Gateway,
    /// Caddy.
    pub caddy: Caddy,
    /// The previews.
    pub previews: Previews,
    /// The log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/innkeeper".into(),
            gateway: Gateway::default(),
            caddy: Caddy::default(),
            previews: Previews::default(),
            log: Log::default(),
        }
    }
}

/// The part of innkeeperd's section `[caddy]` that it reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Caddy {
    /// The networks of servers in front of Caddy, whose addresses are not those of clients.
    pub trusted_proxies: Vec<IpNet>,
}

/// The part of innkeeperd's section `[previews]` that it reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Previews {
    /// The domain of previews' hosts; empty means none.
    pub domain: String,
}

impl Settings for Config {
    const WITHOUT_DEFAULT: &'static [&'static str] = &[];
    const OWN_PREFIXES: &'static [&'static str] = &[
        "gateway.",
        "log.",
        "caddy.trusted_proxies",
        "previews.domain",
    ];

    fn validate(&self) -> Result<(), ConfigError> {
        self.gateway.validate()
    }
}

impl Config {
    /// Returns the timeout for a request's head, and for each part of its body.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.gateway.timeout_seconds)
    }

    /// Returns the timeout for a client that reads none of its response.
    pub(crate) fn stall_timeout(&self) -> Duration {
        self.timeout().saturating_mul(STALL_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_other_programs_are_ignored() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("config.toml");
        let text = "state_dir = '/x'\n[webhook]\ngroup = 'y'\n[gateway]\nmax_connections = 7";
        std::fs::write(&file, text).expect("written");
        let loaded: Loaded = innkeeper_service::load(Some(&file), |_| None).expect("valid");
        insta::assert_snapshot!(loaded);
    }
}
