//! Names by which Caddy finds the apps of settled routes, whose preview has not changed for a while.
//!
//! innkeeperd's configuration of Caddy contains them, and `innkeeper-dns` resolves them for the host itself:
//!
//! ```text
//! web.preview.example.org.routes.innkeeper.internal   SRV  3000 g-10-100-0-3.routes.innkeeper.internal
//! g-10-100-0-3.routes.innkeeper.internal              A    10.100.0.3
//! ```
//!
//! A target of an SRV record is a name, so it has the address in it.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The zone of the names. No name in it exists outside the host.
pub const ZONE: &str = "routes.innkeeper.internal";

/// The link in the directory of a settled host. It leads to the file whose name is the app's address.
pub const LINK: &str = "settled";

/// The directory of that file.
const LIVE: &str = "live/";

/// The start of a target's name.
const GUEST: &str = "g-";

/// Returns the link's target for an app.
#[must_use]
pub fn link_to(app: &str) -> String {
    format!("{LIVE}{app}")
}

/// Parses the link's target. Returns `None` if it is none of [`link_to`].
#[must_use]
pub fn parse_link(target: &Path) -> Option<SocketAddrV4> {
    let target = OsStr::as_bytes(target.as_os_str());
    std::str::from_utf8(target)
        .ok()?
        .strip_prefix(LIVE)?
        .parse()
        .ok()
}

/// Returns the first label of the name of a guest.
#[must_use]
pub fn label_of(guest: Ipv4Addr) -> String {
    format!("{GUEST}{}", guest.to_string().replace('.', "-"))
}

/// Parses the first label of the name of a guest.
#[must_use]
pub fn parse_label(label: &str) -> Option<Ipv4Addr> {
    label
        .strip_prefix(GUEST)?
        .replace('-', ".")
        .parse()
        .ok()
        .filter(|guest| label_of(*guest) == label)
}

/// Returns a regular expression for a name of a guest with a port, whose groups are the four numbers and the port.
#[must_use]
pub fn pattern() -> String {
    format!(
        r"^{GUEST}([0-9]+)-([0-9]+)-([0-9]+)-([0-9]+)\.{}\.?:([0-9]+)$",
        ZONE.replace('.', r"\.")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_labels_are_strict() {
        let app = "10.100.0.3:3000";
        let parsed = parse_link(Path::new(&link_to(app)));
        assert_eq!(parsed, app.parse().ok());
        for other in [
            "",
            "live/",
            "live/web:3000",
            "live/../10.100.0.3:3000",
            "/live/10.100.0.3:1",
            "live/10.100.0.3",
        ] {
            assert_eq!(parse_link(Path::new(other)), None, "{other}");
        }
        let guest = Ipv4Addr::new(10, 100, 0, 3);
        assert_eq!(label_of(guest), "g-10-100-0-3");
        assert_eq!(parse_label("g-10-100-0-3"), Some(guest));
        for other in [
            "10-100-0-3",
            "g-10-100-0",
            "g-10.100-0-3",
            "g-10-100-0-03",
            "g--10-100-0-3",
            "g-10-100-0-3-",
        ] {
            assert_eq!(parse_label(other), None, "{other}");
        }
    }
}
