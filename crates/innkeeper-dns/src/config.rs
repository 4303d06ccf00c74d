//! The settings. The file is shared with innkeeperd, whose other sections are ignored.

use std::net::IpAddr;
use std::path::PathBuf;

use innkeeper_model::SlotRange;
use innkeeper_service::{ConfigError, Dns, Log, Settings};
use serde::{Deserialize, Serialize};

/// The settings with the origin of each.
pub type Loaded = innkeeper_service::Loaded<Config>;

/// The sections that this program reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// This program's own section, which innkeeperd also reads.
    pub dns: Dns,
    /// The guests' network.
    pub network: Network,
    /// Caddy.
    pub caddy: Caddy,
    /// The log.
    pub log: Log,
}

/// The part of innkeeperd's section `[network]` that it reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The guests' subnet. Queries from other addresses are ignored.
    pub subnet: SlotRange,
    /// The name servers; empty means those of the host that guests can reach.
    pub nameservers: Vec<IpAddr>,
}

/// The part of innkeeperd's section `[caddy]` that it reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Caddy {
    /// The folder of the tables that Caddy reads at each request.
    pub table: PathBuf,
}

impl Default for Caddy {
    fn default() -> Self {
        Self {
            table: "/var/lib/innkeeper-routes".into(),
        }
    }
}

impl Settings for Config {
    const WITHOUT_DEFAULT: &'static [&'static str] = &[];
    const OWN_PREFIXES: &'static [&'static str] = &[
        "dns.",
        "log.",
        "network.subnet",
        "network.nameservers",
        "caddy.table",
    ];

    fn validate(&self) -> Result<(), ConfigError> {
        self.dns.validate()
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
        let loaded =
            load("state_dir = '/x'\n[pages]\ngroup = 'y'\n[dns]\nport = 5353").expect("valid");
        insta::assert_snapshot!(loaded, @r#"
        caddy.table = "/var/lib/innkeeper-routes" # default
        dns.directory = "/run/innkeeper-dns" # default
        dns.max_queries_per_guest = 256 # default
        dns.port = 5353 # file
        log.format = "auto" # default
        log.level = "info" # default
        network.nameservers = [] # default
        network.subnet = "10.100.0.0/16" # default
        "#);
    }

    #[test]
    fn errors_name_the_setting() {
        let error = |text: &str| load(text).expect_err("rejected").to_string();
        insta::assert_snapshot!(error("[dns]\ndirectory = 'x'"), @"dns.directory: the path must start with '/'");
        insta::assert_snapshot!(error("[dns]\nmax_queries_per_guest = 0"), @"dns.max_queries_per_guest: must be at least 1");
    }
}
