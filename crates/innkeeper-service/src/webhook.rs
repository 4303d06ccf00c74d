//! The section `[webhook]`, which both sides of the intake socket read: `innkeeper-webhook`, which owns it, and
//! `innkeeperd`, which listens on the socket and reports the whole configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use innkeeper_model::preview::RepoName;
use innkeeper_model::preview::intake::INTAKE_SOCKET;
use serde::{Deserialize, Serialize};

use crate::{ConfigError, socket_path};

/// The environment files of a host that followed the contract, with the webhook's secrets and other settings.
const ENVIRONMENT_FILES: [&str; 2] = [
    "/var/secrets/preview.env",
    "/var/secrets/preview-webhook.env",
];

/// The section `[webhook]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// The address to listen on, unless systemd passes a socket. Empty means the loopback interface, with the port of
    /// `WEBHOOK_PORT` or else 3100.
    pub listen: String,
    /// innkeeperd's intake socket; empty means `<runtime_dir>/intake.sock`.
    pub intake: String,
    /// The group that `innkeeper-webhook` runs as. Only root and programs of this group may hand deliveries to
    /// innkeeperd. If the group does not exist, only root may.
    pub group: String,
    /// Files with one webhook secret each, at most two: the new one and the one that it replaces. Empty means
    /// systemd's credentials `webhook-secret` and `webhook-secret-previous`, or else `environment_files`.
    pub secret_files: Vec<PathBuf>,
    /// Files of environment variables, as in the contract.
    pub environment_files: Vec<PathBuf>,
    /// The repositories whose deliveries are accepted. Empty means all; an absent setting means `ALLOWED_REPOS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_repos: Option<Vec<RepoName>>,
    /// The maximum number of concurrent connections. Further ones wait.
    pub max_connections: usize,
    /// Timeout for a request's head, and again for its body, in seconds. An idle connection is closed after the same
    /// time.
    pub timeout_seconds: u64,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            listen: String::new(),
            intake: String::new(),
            group: "innkeeper-webhook".to_owned(),
            secret_files: Vec::new(),
            environment_files: ENVIRONMENT_FILES.map(PathBuf::from).to_vec(),
            allowed_repos: None,
            max_connections: 256,
            timeout_seconds: 10,
        }
    }
}

impl Webhook {
    /// Full names of the section's settings that have no default.
    pub const WITHOUT_DEFAULT: &'static [&'static str] = &["webhook.allowed_repos"];

    /// Returns the path of innkeeperd's intake socket.
    #[must_use]
    pub fn intake_socket(&self, runtime_dir: &Path) -> PathBuf {
        match self.intake.as_str() {
            "" => runtime_dir.join(INTAKE_SOCKET),
            path => path.into(),
        }
    }

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    pub fn validate(&self, runtime_dir: &Path) -> Result<(), ConfigError> {
        let invalid = |setting, problem: &str| Err(ConfigError::value(setting, problem));
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            return invalid("webhook.listen", "write it as <address>:<port>");
        }
        socket_path::check("webhook.intake", &self.intake_socket(runtime_dir))?;
        if self.max_connections == 0 || self.timeout_seconds == 0 {
            return invalid(
                "webhook.max_connections and webhook.timeout_seconds",
                "must be at least 1",
            );
        }
        Ok(())
    }
}

/// Parses `ALLOWED_REPOS`, a list separated by commas.
///
/// # Errors
/// [`ConfigError::Value`] for the first invalid name.
pub fn parse_allowed_repos(text: &str) -> Result<Vec<RepoName>, ConfigError> {
    let names = text.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(|name| {
            RepoName::parse(name).map_err(|error| ConfigError::value("ALLOWED_REPOS", &error))
        })
        .collect()
}
