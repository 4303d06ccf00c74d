//! The section `[gateway]`, which both sides of the gateway's socket read: `innkeeper-gateway`, which authenticates the
//! requests of other machines, and `innkeeperd`, which authorizes them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use innkeeper_model::access::{ACCESS_FILE, GATEWAY_SOCKET, Role, TOKENS_FILE};
use serde::{Deserialize, Serialize};

use crate::{ConfigError, socket_path};

/// The section `[gateway]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// Whether other machines may use the API.
    pub enabled: bool,
    /// The host name of the API; empty means `api.<domain>`, with the domain of previews.
    pub host: String,
    /// The socket on which Caddy passes requests on. `innkeeper-gateway` listens there, unless systemd passes a socket.
    pub socket: PathBuf,
    /// The socket on which Caddy asks whether a visitor may see a preview that is not public. `innkeeper-gateway` listens
    /// there, unless systemd passes a socket.
    pub access_socket: PathBuf,
    /// The group that may connect to both sockets besides the program's own user: Caddy's. Used where systemd passes no socket.
    pub socket_group: String,
    /// The group that `innkeeper-gateway` runs as, and the only one besides root that may pass requests on to innkeeperd.
    /// If the group does not exist, only root may.
    pub group: String,
    /// An environment file with tokens that another program manages: `INNKEEPER_API_TOKENS=<name>:<secret>,...`. Empty
    /// means that of the variable `SANDBOXD_ENV_FILE`, if it is set.
    pub tokens_file: String,
    /// The role of all tokens of `tokens_file`.
    pub tokens_file_role: Role,
    /// The directory of the key of previews' cookies, which `innkeeper-gateway` creates there. Only its user may read it.
    pub state_dir: PathBuf,
    /// The file with the key of the cookies `sandbox_preview`, which another program signs; empty means that none is accepted.
    pub sandbox_preview_key_file: String,
    /// The URLs of the pages at which OAuth providers let people log in to apps of private previews, through `auth.<domain>/relay`.
    pub relay_providers: Vec<String>,
    /// The maximum number of concurrent connections on each socket. Further ones wait.
    pub max_connections: usize,
    /// Timeout for a request's head, and for each part of its body, in seconds. A client that reads none of its response is
    /// disconnected after thirty times as long.
    pub timeout_seconds: u64,
    /// The address of the gateway's metrics on the loopback interface, which Caddy does not proxy; empty means none. Used
    /// where systemd passes no second socket.
    pub metrics_listen: String,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            enabled: false,
            host: String::new(),
            socket: "/run/innkeeper-gateway/http.sock".into(),
            access_socket: "/run/innkeeper-gateway/access.sock".into(),
            socket_group: "caddy".to_owned(),
            group: "innkeeper-gateway".to_owned(),
            tokens_file: String::new(),
            tokens_file_role: Role::Developer,
            state_dir: "/var/lib/innkeeper-gateway".into(),
            sandbox_preview_key_file: String::new(),
            relay_providers: Vec::new(),
            max_connections: 1024,
            timeout_seconds: 10,
            metrics_listen: "127.0.0.1:3301".to_owned(),
        }
    }
}

impl Gateway {
    /// Returns the path of innkeeperd's socket for the gateway.
    #[must_use]
    pub fn daemon_socket(&self, runtime_dir: &Path) -> PathBuf {
        runtime_dir.join(GATEWAY_SOCKET)
    }

    /// Returns the path of the digests of tokens, which innkeeperd writes and the gateway reads.
    #[must_use]
    pub fn published_tokens(&self, runtime_dir: &Path) -> PathBuf {
        runtime_dir.join(TOKENS_FILE)
    }

    /// Returns the path of the gateway's knowledge of previews and their visitors, which innkeeperd writes.
    #[must_use]
    pub fn published_access(&self, runtime_dir: &Path) -> PathBuf {
        runtime_dir.join(ACCESS_FILE)
    }

    /// Returns the host name of the API, if one is configured or follows from the domain of previews.
    #[must_use]
    pub fn host(&self, domain: Option<&str>) -> Option<String> {
        match self.host.as_str() {
            "" => domain.map(|domain| format!("api.{domain}")),
            host => Some(host.to_owned()),
        }
    }

    /// Returns the host name of the callback for OAuth providers, with the domain of previews.
    #[must_use]
    pub fn relay_host(&self, domain: Option<&str>) -> Option<String> {
        domain.map(|domain| format!("auth.{domain}"))
    }

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |setting, problem: &str| Err(ConfigError::value(setting, problem));
        for (setting, socket) in [
            ("gateway.socket", &self.socket),
            ("gateway.access_socket", &self.access_socket),
        ] {
            socket_path::check(setting, socket)?;
        }
        if !self.tokens_file.is_empty() && !self.tokens_file.starts_with('/') {
            return invalid("gateway.tokens_file", "the path must start with '/'");
        }
        if !self.state_dir.is_absolute() {
            return invalid("gateway.state_dir", "the path must start with '/'");
        }
        let key_file = &self.sandbox_preview_key_file;
        if !key_file.is_empty() && !key_file.starts_with('/') {
            return invalid(
                "gateway.sandbox_preview_key_file",
                "the path must start with '/'",
            );
        }
        let is_page = |url: &String| url.starts_with("https://") && !url.contains(['#', ' ']);
        if !self.relay_providers.iter().all(is_page) {
            return invalid(
                "gateway.relay_providers",
                "write the URLs of the providers' authorization endpoints, with https://",
            );
        }
        if !is_host(&self.host) {
            return invalid(
                "gateway.host",
                "write a host name, without scheme, port and path",
            );
        }
        let listen = &self.metrics_listen;
        let is_loopback = |address: SocketAddr| address.ip().is_loopback();
        if !listen.is_empty() && !listen.parse().is_ok_and(is_loopback) {
            return invalid(
                "gateway.metrics_listen",
                "write it as <address>:<port>, with an address of the loopback interface",
            );
        }
        if self.max_connections == 0 || self.timeout_seconds == 0 {
            return invalid(
                "gateway.max_connections and gateway.timeout_seconds",
                "must be at least 1",
            );
        }
        Ok(())
    }
}

/// Reports whether a text is empty, or the name of a host with a domain, in lower case.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.is_empty() || (text.len() <= 253 && text.contains('.') && text.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_off() {
        let gateway = Gateway::default();
        gateway.validate().expect("valid");
        assert!(!gateway.enabled);
        assert_eq!(
            gateway.host(Some("example.org")).as_deref(),
            Some("api.example.org")
        );
        assert_eq!(gateway.host(None), None);
    }

    #[test]
    fn invalid_values_name_their_setting() {
        let valid = Gateway::default;
        let text = str::to_owned;
        let long = format!("/{}", "a".repeat(107));
        #[rustfmt::skip]
        let invalid = [
            ("gateway.socket", Gateway { socket: "http.sock".into(), ..valid() }),
            ("gateway.socket", Gateway { socket: long.into(), ..valid() }),
            ("gateway.access_socket", Gateway { access_socket: "access.sock".into(), ..valid() }),
            ("gateway.tokens_file", Gateway { tokens_file: text("tokens.env"), ..valid() }),
            ("gateway.state_dir", Gateway { state_dir: "state".into(), ..valid() }),
            ("gateway.sandbox_preview_key_file", Gateway { sandbox_preview_key_file: text("key"), ..valid() }),
            ("gateway.relay_providers", Gateway { relay_providers: vec![text("github.com")], ..valid() }),
            ("gateway.host", Gateway { host: text("https://api.example.org"), ..valid() }),
            ("gateway.host", Gateway { host: text("*.example.org"), ..valid() }),
            ("gateway.metrics_listen", Gateway { metrics_listen: text("3301"), ..valid() }),
            ("gateway.metrics_listen", Gateway { metrics_listen: text("0.0.0.0:3301"), ..valid() }),
            ("gateway.max_connections", Gateway { max_connections: 0, ..valid() }),
            ("gateway.timeout_seconds", Gateway { timeout_seconds: 0, ..valid() }),
        ];
        for (setting, gateway) in invalid {
            let error = gateway.validate().expect_err(setting);
            assert!(error.to_string().contains(setting), "{error}");
        }
    }
}
