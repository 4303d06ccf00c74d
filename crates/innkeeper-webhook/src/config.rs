//! The settings: a part of innkeeperd's configuration file.
//!
//! Sections that belong to innkeeperd are ignored. Settings that neither the file nor a variable contains may come from
//! the environment files of the contract: `WEBHOOK_PORT` and `ALLOWED_REPOS`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use innkeeper_github::{EnvironmentFiles, SecretFileError};
use innkeeper_service::{ConfigError, Log, Settings, Webhook};
use serde::{Deserialize, Serialize};

/// A configuration with the origin of each value.
pub type Loaded = innkeeper_service::Loaded<Config>;

/// The port of the contract.
const DEFAULT_PORT: u16 = 3100;

/// The settings of this program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The directory of innkeeperd's sockets.
    pub runtime_dir: PathBuf,
    /// This program's own section, which innkeeperd also reads.
    pub webhook: Webhook,
    /// The log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/innkeeper".into(),
            webhook: Webhook::default(),
            log: Log::default(),
        }
    }
}

impl Settings for Config {
    const WITHOUT_DEFAULT: &'static [&'static str] = Webhook::WITHOUT_DEFAULT;
    const OWN_PREFIXES: &'static [&'static str] = &["webhook.", "log."];

    fn validate(&self) -> Result<(), ConfigError> {
        self.webhook.validate(&self.runtime_dir)
    }
}

impl Config {
    /// Returns the path of innkeeperd's intake socket.
    pub(crate) fn intake(&self) -> PathBuf {
        self.webhook.intake_socket(&self.runtime_dir)
    }

    /// Returns the address to listen on.
    pub(crate) fn listen(&self) -> SocketAddr {
        // The files may be unreadable for this user; the default port is used then.
        let port = || {
            let files = self.contract().ok()?;
            files.get("WEBHOOK_PORT").ok()??.expose().parse().ok()
        };
        self.webhook.listen.parse().unwrap_or_else(|_| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port().unwrap_or(DEFAULT_PORT)))
        })
    }

    /// Reads the environment files of the contract.
    ///
    /// # Errors
    /// When one exists and cannot be read.
    pub(crate) fn contract(&self) -> Result<EnvironmentFiles, SecretFileError> {
        EnvironmentFiles::read(&self.webhook.environment_files)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("config.toml");
        std::fs::write(&file, text).expect("written");
        innkeeper_service::load(Some(&file), |name| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn error(text: &str, variables: &[(&str, &str)]) -> String {
        let error = load(text, variables).expect_err("rejected").to_string();
        // The file's name differs from run to run.
        let start = error.find("config.toml").unwrap_or(0);
        error[start..].to_owned()
    }

    #[test]
    fn sections_of_the_daemon_are_ignored() {
        let loaded = load(
            "runtime_dir = '/run/x'\n[network]\nsubnet = '10.1.0.0/16'\n[webhook]\nallowed_repos = ['octo/web']",
            &[("INNKEEPER_WEBHOOK_MAX_CONNECTIONS", "7"), ("INNKEEPER_WEBHOOK_LISTEN", "[::1]:1")],
        )
        .expect("valid");
        assert_eq!(loaded.config.intake(), Path::new("/run/x/intake.sock"));
        assert_eq!(loaded.config.listen().to_string(), "[::1]:1");
        insta::assert_snapshot!(loaded);
    }

    #[test]
    fn the_port_comes_from_the_contracts_environment_file() {
        let directory = tempfile::tempdir().expect("directory");
        let file = directory.path().join("preview.env");
        let text = format!("[webhook]\nenvironment_files = ['{}']", file.display());
        let listen = || load(&text, &[]).expect("valid").config.listen().to_string();
        assert_eq!(listen(), "127.0.0.1:3100");
        std::fs::write(&file, "WEBHOOK_PORT=4100\n").expect("written");
        assert_eq!(listen(), "127.0.0.1:4100");
    }

    #[test]
    fn errors_name_the_setting() {
        insta::assert_snapshot!(error("[webhook]\nlisten_on = 'x'", &[]));
        insta::assert_snapshot!(error("[webhook]\nallowed_repos = ['web']", &[]));
        insta::assert_snapshot!(error("", &[("INNKEEPER_WEBHOOK_LISTEN", "3100")]));
        insta::assert_snapshot!(error("", &[("INNKEEPER_WEBHOOK_ALLOWED_REPOS", "web")]));
        insta::assert_snapshot!(error("[webhook]\ntimeout_seconds = 0", &[]));
    }
}
