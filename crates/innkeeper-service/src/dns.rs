//! The section `[dns]`, which both programs read: `innkeeper-dns`, the guests' resolver, and `innkeeperd`, whose firewall and
//! guests lead to it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The section `[dns]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// The port of the host, UDP and TCP, on which `innkeeper-dns` responds to guests. The firewall redirects queries to a
    /// guest's gateway there. 0 means that guests have no resolver of the host.
    pub port: u16,
    /// The directory in which `innkeeper-dns` reports that it listens.
    pub directory: PathBuf,
    /// The maximum number of one guest's queries that wait for name servers at a time. Further ones fail at once.
    pub max_queries_per_guest: usize,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            port: 3053,
            directory: "/run/innkeeper-dns".into(),
            max_queries_per_guest: 256,
        }
    }
}

impl Dns {
    /// Returns the file that exists while `innkeeper-dns` listens. It outlives a crash: the program starts again.
    #[must_use]
    pub fn listening(&self) -> PathBuf {
        self.directory.join("listening")
    }

    /// Returns the link to the table of routes that exists while `innkeeper-dns` resolves settled routes for Caddy.
    #[must_use]
    pub fn table(&self) -> PathBuf {
        self.directory.join("table")
    }

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.directory.is_absolute() {
            return Err(ConfigError::value(
                "dns.directory",
                "the path must start with '/'",
            ));
        }
        if self.max_queries_per_guest == 0 {
            return Err(ConfigError::value(
                "dns.max_queries_per_guest",
                "must be at least 1",
            ));
        }
        Ok(())
    }
}
