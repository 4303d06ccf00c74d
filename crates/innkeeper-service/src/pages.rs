//! The section `[pages]`, which both programs read: `innkeeperd`, which writes the status files, and `innkeeper-pages`,
//! which shows them.

use std::path::{Path, PathBuf};

use innkeeper_model::preview::page::WAKE_SOCKET;
use serde::{Deserialize, Serialize};

use crate::{ConfigError, socket_path};

/// The maximum of `hold_seconds`: browsers and programs give up waiting for a response.
const MAX_HOLD: u64 = 60;

/// The maximum of `wake_timeout_seconds`.
const MAX_WAKE: u64 = 600;

/// The section `[pages]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pages {
    /// The directory of the status files, which innkeeperd writes and `innkeeper-pages` reads.
    pub directory: PathBuf,
    /// The group that `innkeeper-pages` runs as, and the only one besides root that may read the status files. If the
    /// group does not exist, only root may.
    pub group: String,
    /// The socket on which Caddy requests pages. `innkeeper-pages` listens there, unless systemd passes a socket.
    pub socket: PathBuf,
    /// The maximum number of concurrent connections. Further ones wait. At most a third of them are live logs, and at most a
    /// third are waiting requests, so that the last third serves pages.
    pub max_connections: usize,
    /// The maximum number of live logs that one visitor's address follows at a time. Further ones are refused, and the page
    /// polls instead.
    pub max_streams_per_address: usize,
    /// The longest time for which a request waits while an app restarts, in seconds. 0 means not at all.
    pub hold_seconds: u64,
    /// The maximum number of waiting requests of one visitor's address. Further ones get the page at once.
    pub max_holds_per_address: usize,
    /// The longest time for which a request waits while it wakes a sleeping preview, in seconds.
    pub wake_timeout_seconds: u64,
    /// The time after which a person who waits for a sleeping preview gets its page, in seconds.
    pub wake_page_seconds: u64,
    /// Requests of crawlers and scanners wake sleeping previews, too.
    pub wake_for_bots: bool,
    /// innkeeperd's socket for requests to wake previews; empty means `<runtime_dir>/wake.sock`.
    pub wake_socket: String,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            directory: "/var/lib/innkeeper-pages".into(),
            group: "innkeeper-pages".to_owned(),
            socket: "/run/innkeeper-pages/pages.sock".into(),
            max_connections: 1024,
            max_streams_per_address: 16,
            hold_seconds: 8,
            max_holds_per_address: 128,
            wake_timeout_seconds: 30,
            wake_page_seconds: 4,
            wake_for_bots: false,
            wake_socket: String::new(),
        }
    }
}

impl Pages {
    /// Returns the maximum number of connections that are live logs, and that of those that are waiting requests.
    #[must_use]
    pub fn share(&self) -> usize {
        (self.max_connections / 3).max(1)
    }

    /// Returns the path of innkeeperd's socket for requests to wake previews.
    #[must_use]
    pub fn wake_socket(&self, runtime_dir: &Path) -> PathBuf {
        match self.wake_socket.as_str() {
            "" => runtime_dir.join(WAKE_SOCKET),
            path => path.into(),
        }
    }

    /// Checks the values beyond their types.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first invalid setting.
    pub fn validate(&self, runtime_dir: &Path) -> Result<(), ConfigError> {
        let invalid = |setting, problem: &str| Err(ConfigError::value(setting, problem));
        if !self.directory.is_absolute() {
            return invalid("pages.directory", "the path must start with '/'");
        }
        if !is_plain(&self.socket) {
            return invalid(
                "pages.socket",
                "the path must start with '/' and consist of letters, digits and -._/+@",
            );
        }
        socket_path::check("pages.socket", &self.socket)?;
        if self.max_connections < 3 || self.max_streams_per_address == 0 {
            return invalid(
                "pages.max_connections and pages.max_streams_per_address",
                "must be at least 3 and 1",
            );
        }
        if self.hold_seconds > MAX_HOLD || self.max_holds_per_address == 0 {
            return invalid(
                "pages.hold_seconds and pages.max_holds_per_address",
                "must be at most 60, and at least 1",
            );
        }
        if !(1..=MAX_WAKE).contains(&self.wake_timeout_seconds) {
            return invalid("pages.wake_timeout_seconds", "must be 1 to 600");
        }
        if self.wake_page_seconds > self.wake_timeout_seconds {
            return invalid(
                "pages.wake_page_seconds",
                "must be at most pages.wake_timeout_seconds",
            );
        }
        socket_path::check("pages.wake_socket", &self.wake_socket(runtime_dir))
    }
}

/// Reports whether a path needs no quoting in a Caddyfile.
fn is_plain(path: &Path) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/+@".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(is_plain))
}
