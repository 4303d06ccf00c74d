//! The hosts of previews in the table that Caddy routes by: those of a guest's own preview, and settled ones.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper_model::settled;
use tracing::{info, warn};

/// The table of routes. innkeeperd writes `<table>/guests/<address>/<host>` for each host of the preview of the guest with
/// this address, and `<table>/hosts/<host>/settled` for each settled host.
#[derive(Debug)]
pub(crate) struct Hosts {
    guests: PathBuf,
    settled: PathBuf,
    is_unreadable: AtomicBool,
}

impl Hosts {
    pub(crate) fn new(table: &Path) -> Self {
        Self {
            guests: table.join("guests"),
            settled: table.join("hosts"),
            is_unreadable: AtomicBool::new(false),
        }
    }

    /// Reports whether a name is a host of the guest's own preview. `host` is a safe name of a file.
    ///
    /// This looks at one file and lists no directory: a listing counts as a visit of the preview.
    pub(crate) fn contains(&self, guest: Ipv4Addr, host: &str) -> bool {
        let path = self.guests.join(guest.to_string()).join(host);
        match fs::symlink_metadata(path) {
            Ok(_) => self.report(None),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.report(None);
                return false;
            }
            Err(error) => {
                self.report(Some(&error));
                return false;
            }
        }
        true
    }

    /// Returns the app of a settled host. `host` is a safe name of a file.
    ///
    /// One system call finds both that the host is settled and its app. It counts as a visit of the preview: Caddy sends
    /// such a query for a request only.
    pub(crate) fn app(&self, host: &str) -> Option<SocketAddrV4> {
        let link = self.settled.join(host).join(settled::LINK);
        settled::parse_link(&fs::read_link(link).ok()?)
    }

    /// Logs the first failure of several.
    fn report(&self, error: Option<&std::io::Error>) {
        let was_unreadable = self.is_unreadable.swap(error.is_some(), Ordering::Relaxed);
        let directory = self.guests.display();
        match (error, was_unreadable) {
            (Some(error), false) => warn!(
                %error,
                "cannot read {directory}: previews' own hosts are resolved by the host's name servers; `chmod o+x` lets this program in"
            ),
            (None, true) => info!("can read {directory} again"),
            _ => {}
        }
    }
}
