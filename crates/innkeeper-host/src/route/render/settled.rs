//! Renders the routes of settled hosts: those that did not change for a while. Caddy has them in its configuration, and reads no
//! file for their requests.
//!
//! ```text
//! map label ─► 10.100.0.3:3000                one rule for all paths
//!            └► 10.100.0.3:{innkeeper_shape_1} ─► map path ─► 3000, 4000=api (path without a base), or other (see `rules`)
//! ```
//!
//! Hosts with the same rules share a shape. A row applies unless the host has changed since the configuration was rendered:
//! then its mark exists in the directory of the configuration's generation. The absence of a file costs one system call; a file
//! that exists costs sixteen in Caddy 2.11, as much as the listing of a directory.
//!
//! The way to the mark leads through a link of the host, whose access time shows visits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::matchers::label;
use super::proxy::proxy;
use super::rules::{DEEP_DIR, EXACT, REDIRECT, RULES_DIR, STRIP, TREE, Transport};
use super::{digest, lookup};
use crate::route::config::CaddyConfig;

/// Snippet of the settled hosts.
pub(super) const SETTLED: &str = "innkeeper-settled";

/// The first line of the part, up to its generation. The number is that of its format.
const BEGIN: &str = "# Settled hosts 1, generation ";

/// The last line of the part.
const END: &str = "# End of the settled hosts\n";

/// Start of the comment of a row, before the digest of the host.
const DIGEST: &str = " # ";

/// Directory in the table of the marks of changed hosts, below a directory for each generation.
pub(in crate::route) const CHANGED_DIR: &str = "changed";

/// Directory in the table of the links of settled hosts to [`CHANGED_DIR`].
pub(in crate::route) const VISITED_DIR: &str = "visited";

/// Maximum number of shapes: Caddy looks at the names of all of them for each request.
const MAX_SHAPES: usize = 32;

/// Port of a path that needs the lookup in the table.
const OTHER: &str = "other";

/// The part of the shared configuration about settled hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::route) struct SettledPart {
    /// Empty without settled hosts.
    text: String,
}

/// A host's address, and the port for each pattern of [`RULES_DIR`].
#[derive(Clone, Debug, PartialEq, Eq)]
struct Route {
    address: Ipv4Addr,
    ports: BTreeMap<String, String>,
}

impl SettledPart {
    /// Returns the part of the shared sites, if it has this format.
    pub(in crate::route) fn find(sites: &str) -> Self {
        let part = sites.find(BEGIN).and_then(|start| {
            let end = sites.get(start..)?.find(END)? + END.len();
            sites.get(start..start + end)
        });
        Self {
            text: part.unwrap_or_default().to_owned(),
        }
    }

    /// Renders the part for hosts, by their labels and listings. Skips those without an app or with an unusual shape.
    pub(in crate::route) fn render(
        config: &CaddyConfig,
        generation: u64,
        listings: &BTreeMap<String, String>,
    ) -> Self {
        let routes: Vec<_> = listings
            .iter()
            .filter_map(|(label, listing)| Some((label, listing, parse(listing)?)))
            .collect();
        let shapes = shapes(routes.iter().map(|(.., route)| route));
        let mut rows = String::new();
        for (label, listing, route) in &routes {
            let port = match route.only_port() {
                Some(port) => port.to_owned(),
                None => match shapes.iter().position(|shape| *shape == route.ports) {
                    Some(index) => format!("{{{}}}", shape_name(index)),
                    None => continue,
                },
            };
            // Writing into a String cannot fail.
            writeln!(
                rows,
                "\t\t{label} {}:{port}{DIGEST}{}",
                route.address,
                listing_digest(listing)
            )
            .ok();
        }
        if rows.is_empty() {
            return Self::default();
        }
        Self {
            text: format!(
                "{BEGIN}{generation}\n({SETTLED}) {{\n\tmap {label} {{innkeeper_settled}} {{\n{rows}\t}}\n{shapes}{routing}}}\n{END}",
                label = label(config),
                shapes = shape_map(&shapes),
                routing = routing(config, generation),
            ),
        }
    }

    pub(in crate::route) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the generation.
    pub(in crate::route) fn generation(&self) -> Option<u64> {
        let (number, _) = self.text.strip_prefix(BEGIN)?.split_once('\n')?;
        number.parse().ok()
    }

    /// Returns the digests of the hosts' listings by the hosts' labels.
    pub(in crate::route) fn hosts(&self) -> BTreeMap<String, String> {
        let row = |line: &str| {
            let (row, digest) = line.split_once(DIGEST)?;
            let (label, _) = row.trim_start().split_once(' ')?;
            Some((label.to_owned(), digest.to_owned()))
        };
        self.text.lines().skip(1).filter_map(row).collect()
    }
}

/// Returns a digest of the listing of a host.
pub(in crate::route) fn listing_digest(listing: &str) -> String {
    digest([listing])
}

/// Reports whether a host with this listing can be settled: an app is in service on it.
pub(in crate::route) fn can_settle(listing: &str) -> bool {
    parse(listing).is_some()
}

impl Route {
    /// Returns the port of all paths, if it is the same.
    fn only_port(&self) -> Option<&str> {
        let mut ports = self.ports.iter();
        let (key, port) = ports.next()?;
        (key.len() == 1 && port != OTHER && ports.next().is_none()).then_some(port)
    }
}

/// Parses the listing of a host. Returns `None` unless requests go to apps that are in service, at least some of them without
/// options.
fn parse(listing: &str) -> Option<Route> {
    let mut address = None;
    let mut ports = BTreeMap::new();
    let mut is_live = false;
    for line in listing.lines() {
        let (dir, file) = line.split_once('/')?;
        is_live |= [super::rules::LIVE_DIR, super::rules::PATHS_DIR].contains(&dir);
        if ![RULES_DIR, DEEP_DIR].contains(&dir) {
            continue;
        }
        let (key, name) = file.rsplit_once('/')?;
        let (upstream, options) = name.split_once('=')?;
        let (action, transport) = options.split_once('=')?;
        let upstream: SocketAddrV4 = upstream.parse().ok()?;
        address.get_or_insert(*upstream.ip());
        let is_plain = transport == Transport::default().name() && action != REDIRECT;
        let port = match (is_plain, action) {
            (false, _) => OTHER.to_owned(),
            (true, STRIP) => format!("{}=$1", upstream.port()),
            (true, _) => upstream.port().to_string(),
        };
        ports.insert(key.to_owned(), port);
    }
    let has_ports = ports.values().any(|port| port != OTHER);
    let address = address.filter(|_| is_live && has_ports)?;
    Some(Route { address, ports })
}

/// Returns the most frequent shapes of hosts with several patterns.
fn shapes<'a>(routes: impl Iterator<Item = &'a Route>) -> Vec<BTreeMap<String, String>> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for route in routes.filter(|route| route.only_port().is_none()) {
        *counts.entry(&route.ports).or_default() += 1;
    }
    let mut shapes: Vec<_> = counts.into_iter().collect();
    shapes.sort_by_key(|(_, count)| Reverse(*count));
    let shapes = shapes.into_iter().take(MAX_SHAPES);
    shapes.map(|(shape, _)| shape.clone()).collect()
}

/// Returns the placeholder's name of a shape.
fn shape_name(index: usize) -> String {
    format!("innkeeper_shape_{index}")
}

/// Renders the ports of all shapes by path. The first row that has a port for the shape applies, so exact paths come first and
/// then longer bases. Caddy compares cleaned paths, without regard of case and of `.` and spaces at the end; other paths than
/// plain ones need the lookup.
fn shape_map(shapes: &[BTreeMap<String, String>]) -> String {
    if shapes.is_empty() {
        return String::new();
    }
    let keys: BTreeSet<_> = shapes.iter().flat_map(BTreeMap::keys).collect();
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_key(|key| (key.ends_with(TREE), Reverse(key.len()), *key));
    let names: String = (0..shapes.len())
        .map(|index| format!(" {{{}}}", shape_name(index)))
        .collect();
    let unusual = format!(" {OTHER}").repeat(shapes.len());
    let mut text = format!(
        "\tmap {{http.request.uri.path}}{names} {{\n\t\t~//|/\\.|\\.$|[^\\x21-\\x5b\\x5d-\\x7e]{unusual}\n"
    );
    for key in keys {
        let cells: String = shapes
            .iter()
            .map(|shape| format!(" {}", shape.get(key).map_or("-", String::as_str)))
            .collect();
        // Writing into a String cannot fail.
        writeln!(text, "\t\t~{}{cells}", expression(key)).ok();
    }
    text + "\t}\n"
}

/// Returns the regular expression of the paths of a pattern, which captures the base without the `/` at its start.
fn expression(key: &str) -> String {
    let escape = |base: &str| base.replace('.', r"\.").replace('+', r"\+");
    if let Some(base) = key.strip_suffix(EXACT) {
        return format!("(?i)^/{}$", escape(base));
    }
    match key.trim_end_matches([TREE, '/']) {
        "" => "^/".to_owned(),
        base => format!("(?i)^/({})/", escape(base)),
    }
}

/// Renders the routing of a request to a settled host. Each part of a matcher needs the one before it, and Caddy keeps the order
/// of several `not` only.
fn routing(config: &CaddyConfig, generation: u64) -> String {
    let matcher = |name: &str, expression: &str| {
        format!(
            "\
	@{name} {{
		not {{
			not vars_regexp settled innkeeper_upstream {expression}
		}}
		not file {{
			root {table}/{VISITED_DIR}/{label}/{generation}
			try_files /{label}
		}}
	}}
",
            table = config.table.display(),
            label = label(config),
        )
    };
    let to_app = |matcher| proxy(matcher, "{http.regexp.settled.1}", Transport::default());
    format!(
        "\
	vars innkeeper_upstream {{innkeeper_settled}}
{plain}{to_app}{stripped}	route @settled-base {{
{strip}{to_stripped}	}}
",
        plain = matcher("settled", "^([0-9.]+:[0-9]+)$"),
        to_app = to_app("@settled"),
        stripped = matcher("settled-base", "^([0-9.]+:[0-9]+)=(.+)$"),
        strip = lookup::strip("{http.regexp.settled.2}"),
        to_stripped = to_app("*"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "rules/,/10.100.0.3:3000==http\nlive/10.100.0.3:3000\napp/web,10.100.0.3,3000\n";

    #[test]
    fn hosts_with_an_app_in_service_can_settle() {
        assert!(can_settle(ONE));
        for listing in [
            "",
            "page/web-1\n",
            "rules/,/10.100.0.3:3000==http\nheld/web,10.100.0.3,3000\n",
            "rules/,/10.100.0.3:3000==h2c\npaths/=/other\n",
            "nonsense",
        ] {
            assert!(!can_settle(listing), "{listing}");
        }
    }

    #[test]
    fn one_rule_is_an_address_and_several_are_a_shape() {
        let several = "rules/,/10.100.0.4:3000==http\nrules/api/,/10.100.0.4:4000=strip=http\n\
            rules/api=/10.100.0.4:4000=redirect=http\nrules/slow/x/,/10.100.0.4:3000==http-30\npaths/=/10.100.0.4:3000\n";
        let route = parse(several).expect("live");
        assert_eq!(route.only_port(), None);
        assert_eq!(parse(ONE).expect("live").only_port(), Some("3000"));
        let shapes = shapes([&route, &parse(ONE).expect("live")].into_iter());
        insta::assert_snapshot!(shape_map(&shapes), @r"
        	map {http.request.uri.path} {innkeeper_shape_0} {
        		~//|/\.|\.$|[^\x21-\x5b\x5d-\x7e] other
        		~(?i)^/api$ other
        		~(?i)^/(slow/x)/ other
        		~(?i)^/(api)/ 4000=$1
        		~^/ 3000
        	}
        ");
    }
}
