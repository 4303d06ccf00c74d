//! Renders the proxy to the app of a settled host, without a look into directories.
//!
//! A host with one app for all paths is settled once its preview has not changed for a minute: its directory has a link by
//! then ([`settled::LINK`]). That it exists costs a request one look at a file. The address comes from Caddy's cache of SRV
//! records, which `innkeeper-dns` answers, so Caddy needs no configuration for a preview.
//!
//! # No former address
//!
//! The link is in the directory that a change replaces or removes, so it ends at the same instant as the route. Caddy keeps
//! an answer for [`REFRESH`], and a host is settled again after [`UNCHANGED`](crate::route::UNCHANGED) at the earliest, which
//! is longer by more than the timeout of a DNS query (5 seconds in Go, unless the host's `resolv.conf` has another one). So
//! Caddy's answer is newer than the change. A name of the zone contains the address that it stands for, so a
//! connection that Caddy keeps for it leads nowhere else.
//!
//! # Without the resolver
//!
//! The path to the link leads through another one, which exists while `innkeeper-dns` runs. If the program has crashed, Caddy
//! finds no address, and the error handling of the site looks it up in the table.

use std::time::Duration;

use innkeeper_model::settled::{self, ZONE};

use super::is_plain_path;
use super::matchers::host;
use super::proxy::{APP, dial_timeout};
use crate::route::config::CaddyConfig;

/// The time that Caddy keeps an SRV record.
pub(in crate::route) const REFRESH: Duration = Duration::from_secs(30);

/// Maximum length of a name in the DNS, in bytes, and of the label in front of the domain.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Renders the proxy for settled hosts. Empty if Caddy can have none.
///
/// The host of the request is the one that the table is searched for and the one whose name is resolved: both have the label
/// in front of the domain. Requests have their hosts as they arrived, and only one that is written as the table has it is
/// found: Caddy escapes the placeholders of `try_files`, unlike those of `root`, so that no host is a pattern.
pub(super) fn settled(config: &CaddyConfig) -> String {
    let longest = MAX_LABEL + 1 + config.domain.len() + 1 + ZONE.len();
    let Some(resolver) = &config.resolver else {
        return String::new();
    };
    if longest > MAX_NAME || !is_plain_path(&resolver.table) {
        return String::new();
    }
    // Go dials the address of the system's resolver with TCP unless the network is part of it.
    let resolvers = format!("resolvers udp/127.0.0.1:{}", resolver.port);
    format!(
        "\
		@settled {{
			file {{
				root {table}/hosts
				try_files /{host}/{link}
			}}
		}}
		reverse_proxy @settled {{
			import {APP}
			dynamic srv {{
				name {host}.{ZONE}.
				refresh {refresh}s
				{resolvers}
			}}
			transport http {{
{dial}				{resolvers}
			}}
		}}
",
        table = resolver.table.display(),
        host = host(config),
        link = settled::LINK,
        refresh = REFRESH.as_secs(),
        dial = dial_timeout("\t\t\t\t"),
    )
}
