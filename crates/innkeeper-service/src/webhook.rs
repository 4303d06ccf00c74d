//! The section `[webhook]`, which both sides of the intake socket read: `innkeeper-webhook`, whose it is, and
//! `innkeeperd`, which listens on the socket and shows the whole configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use innkeeper_model::preview::RepoName;
use innkeeper_model::preview::intake::INTAKE_SOCKET;
use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// Where a host that followed the contract has the webhook's secrets, and its other settings with them.
pub const ENVIRONMENT_FILES: [&str; 2] = [
    "/var/secrets/preview.env",
    "/var/secrets/preview-webhook.env",
];

/// The longest path of a socket: `sockaddr_un` has 108 bytes, one of them for the end (unix(7)).
const MAX_SOCKET: usize = 107;

/// The section `[webhook]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// The address to listen on, unless systemd gives a socket; empty means the port of `WEBHOOK_PORT`, or
    /// 3100, of the loopback interface.
    pub listen: String,
    /// innkeeperd's intake socket; empty means `<runtime_dir>/intake.sock`.
    pub intake: String,
    /// The group that `innkeeper-webhook` runs as: only programs of this group, and root, may hand deliveries
    /// to innkeeperd. Without such a group, root alone.
    pub group: String,
    /// Files with one webhook secret each, at most two: the new one and the one that it replaces. Empty means
    /// systemd's credentials `webhook-secret` and `webhook-secret-previous`, or else `environment_files`.
    pub secret_files: Vec<PathBuf>,
    /// Files of variables as the contract has them.
    pub environment_files: Vec<PathBuf>,
    /// The repositories whose deliveries are taken; empty means all, and left out means `ALLOWED_REPOS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_repos: Option<Vec<RepoName>>,
    /// How many connections there may be at the same time. More wait.
    pub max_connections: usize,
    /// How long a request's head, and then its body, may take to arrive, in seconds. A connection without a
    /// request is closed after as long.
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
    /// The settings that have no default, by their whole names: a list of settings made from the defaults
    /// lacks them.
    pub const WITHOUT_DEFAULT: [&str; 1] = ["webhook.allowed_repos"];

    /// The path of innkeeperd's intake socket.
    #[must_use]
    pub fn intake_socket(&self, runtime_dir: &Path) -> PathBuf {
        match self.intake.as_str() {
            "" => runtime_dir.join(INTAKE_SOCKET),
            path => path.into(),
        }
    }

    /// What types alone do not say.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the setting.
    pub fn validate(&self, runtime_dir: &Path) -> Result<(), ConfigError> {
        let refuse = |setting, problem: &str| {
            Err(ConfigError::Value {
                setting,
                problem: problem.to_owned(),
            })
        };
        if !self.listen.is_empty() && self.listen.parse::<SocketAddr>().is_err() {
            return refuse("webhook.listen", "write it as <address>:<port>");
        }
        let intake = self.intake_socket(runtime_dir);
        if !intake.is_absolute() {
            return refuse("webhook.intake", "the path must start with '/'");
        }
        if intake.as_os_str().len() > MAX_SOCKET {
            return refuse(
                "webhook.intake",
                "the path of a socket has 107 bytes at most",
            );
        }
        if self.max_connections == 0 || self.timeout_seconds == 0 {
            return refuse(
                "webhook.max_connections and webhook.timeout_seconds",
                "must be at least 1",
            );
        }
        Ok(())
    }
}
