//! The settings: a part of innkeeperd's configuration file.

use std::path::PathBuf;

use innkeeper_model::SlotRange;
use innkeeper_service::{ConfigError, Log, Pages, Settings};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A configuration with the origin of each value.
pub type Loaded = innkeeper_service::Loaded<Config>;

/// The settings of this program. Sections that belong to others are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The directory of innkeeperd's sockets.
    pub runtime_dir: PathBuf,
    /// This program's own section, which innkeeperd also reads.
    pub pages: Pages,
    /// The guests' network.
    pub network: Network,
    /// Caddy.
    pub caddy: Caddy,
    /// The log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/innkeeper".into(),
            pages: Pages::default(),
            network: Network::default(),
            caddy: Caddy::default(),
            log: Log::default(),
        }
    }
}

/// The part of innkeeperd's section `[network]` that it reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The guests' subnet. No request waits for another address.
    pub subnet: SlotRange,
}

/// The part of innkeeperd's section `[caddy]` that it reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Caddy {
    /// The networks of servers in front of Caddy, whose addresses are not those of visitors.
    pub trusted_proxies: Vec<IpNet>,
}

impl Settings for Config {
    const WITHOUT_DEFAULT: &'static [&'static str] = &[];
    const OWN_PREFIXES: &'static [&'static str] =
        &["pages.", "log.", "network.subnet", "caddy.trusted_proxies"];

    fn validate(&self) -> Result<(), ConfigError> {
        self.pages.validate(&self.runtime_dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("config.toml");
        std::fs::write(&file, text).expect("written");
        innkeeper_service::load(Some(&file), |_| None)
    }

    #[test]
    fn sections_of_other_programs_are_ignored() {
        let loaded = load("state_dir = '/x'\n[webhook]\ngroup = 'y'\n[pages]\nmax_connections = 7")
            .expect("valid");
        insta::assert_snapshot!(loaded, @r#"
        caddy.trusted_proxies = [] # default
        log.format = "auto" # default
        log.level = "info" # default
        network.subnet = "10.100.0.0/16" # default
        pages.directory = "/var/lib/innkeeper-pages" # default
        pages.group = "innkeeper-pages" # default
        pages.hold_seconds = 8 # default
        pages.max_connections = 7 # file
        pages.max_holds_per_address = 128 # default
        pages.max_streams_per_address = 16 # default
        pages.socket = "/run/innkeeper-pages/pages.sock" # default
        pages.wake_for_bots = false # default
        pages.wake_page_seconds = 4 # default
        pages.wake_socket = "" # default
        pages.wake_timeout_seconds = 30 # default
        runtime_dir = "/run/innkeeper" # default
        "#);
    }

    #[test]
    fn errors_name_the_setting() {
        let error = |text: &str| load(text).expect_err("rejected").to_string();
        insta::assert_snapshot!(error("[pages]\ndirectory = 'x'"), @"pages.directory: the path must start with '/'");
        insta::assert_snapshot!(error("[pages]\nsocket = '/a b'"), @"pages.socket: the path must start with '/' and consist of letters, digits and -._/+@");
        insta::assert_snapshot!(error("[pages]\nmax_connections = 1"), @"pages.max_connections and pages.max_streams_per_address: must be at least 3 and 1");
    }
}
