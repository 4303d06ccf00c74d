//! Renders Caddy's configuration and the names in its table. Pure: equal inputs give equal bytes.
//!
//! No quoting is necessary: names and paths have types whose alphabets exclude special characters of Caddyfiles and
//! of the table's names. Untrusted text must never be part of either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use innkeeper_facilities::{RouteSpec, RouteState};
use innkeeper_model::preview::{RESERVED_SLUGS, RouteProtocol, RouteRule};
use innkeeper_model::{DaemonId, GuestName};
use sha2::{Digest, Sha256};

use super::RouteError;
use super::config::CaddyConfig;
use rules::Rule;
use unavailable::{APP_DIR, HELD_DIR};

pub(super) use rules::{LIVE_DIR, is_listed_pattern};
pub(super) use sites::{others, shared};

pub(super) mod access;
mod lookup;
mod matchers;
mod proxy;
mod rules;
mod secrets;
pub(super) mod settled;
mod sites;
mod unavailable;

/// Header of responses on the lookup address: the version of [`SharedConfig`] in force.
pub(super) const CONFIG_HEADER: &str = "x-innkeeper-config";

/// The first line of a preview's file up to the slug, and the text between slug and daemon.
const MARK: &str = "# Innkeeper: preview ";
const DAEMON: &str = " (daemon ";

/// Returns the first line of a preview's file, which marks it as managed by this daemon.
pub(super) fn mark(slug: &GuestName, daemon: &DaemonId) -> String {
    format!("{MARK}{slug}{DAEMON}{daemon})\n")
}

/// Parses a file's first line into the preview and its daemon, which former releases did not record.
pub(super) fn parse_mark(line: &str) -> Option<(GuestName, Option<DaemonId>)> {
    let rest = line.strip_prefix(MARK)?.strip_suffix('\n')?;
    let (slug, daemon) = match rest.split_once(DAEMON) {
        None => (rest, None),
        Some((slug, daemon)) => (slug, Some(DaemonId::parse(daemon.strip_suffix(')')?).ok()?)),
    };
    Some((GuestName::parse(slug).ok()?, daemon))
}

/// The file with the shared sites. Slugs never start with `_`.
pub(super) const SHARED_FILE: &str = "_innkeeper.caddy";

/// A file of former releases, which the files of their previews import.
pub(super) const FORMER_LOOKUP_FILE: &str = "innkeeper.lookup";

/// The file that marks a directory of the table as that of a host.
pub(super) const HOST_FILE: &str = "host";

/// Directory of the slug of a host whose preview has a page instead of an app.
const PAGE_DIR: &str = "page";

/// Time that upgraded connections such as WebSockets survive a reload of Caddy.
const STREAM_CLOSE_DELAY: &str = "24h";

/// Retry interval of programs and browsers, in seconds.
const RETRY_SECONDS: u32 = 3;

/// Response of the described route of a preview whose visitors are checked: an administrator's own site may use it.
const CHECKED: &str = "The visitors of this preview are checked, at its own host names only.";

/// Response for hosts without a preview.
const NO_PREVIEW: &str = "No preview answers here.";

/// Contents of all files of one preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderedRoute {
    pub(super) slug: GuestName,
    /// `<directory>/<slug>.caddy`.
    pub(super) caddyfile: String,
    /// The guest's address, if its app is in service.
    pub(super) guest: Option<Ipv4Addr>,
    /// Files of each host, as directories and names. Their contents have no meaning.
    pub(super) hosts: BTreeMap<String, Vec<(String, String)>>,
}

/// Features of the shared configuration that depend on Caddy and its main file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Caddy supports `stream_close_delay`.
    pub(super) has_close_delay: bool,
    /// The sites include one for all other hosts.
    pub(super) has_catch_all: bool,
}

/// Configuration that all previews share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedConfig {
    /// Hash over the file.
    pub(super) version: String,
    /// Contents of [`SHARED_FILE`].
    pub(super) sites: String,
}

/// Renders a preview's files.
pub(super) fn preview(config: &CaddyConfig, spec: &RouteSpec) -> Result<RenderedRoute, RouteError> {
    let slug = &spec.slug;
    if RESERVED_SLUGS.contains(&slug.as_str()) {
        return Err(RouteError::Reserved { slug: slug.clone() });
    }
    let hosts = hosts(config, spec)?;
    let mut rendered = RenderedRoute {
        slug: slug.clone(),
        caddyfile: format!(
            "{}# Written by innkeeperd, which overwrites changes. A description of the route for administrators: Caddy reads\n\
             # the route in force from Innkeeper's table.\n",
            mark(slug, config.identity.daemon())
        ),
        guest: matches!(spec.state, RouteState::Live | RouteState::Held)
            .then_some(spec.guest_address),
        hosts: BTreeMap::new(),
    };
    for (host, rules) in hosts {
        let body = match &spec.state {
            _ if spec.checked => format!("\trespond \"{CHECKED}\" 403\n"),
            RouteState::Live | RouteState::Held => handlers(&rules),
            RouteState::Placeholder => "\trespond \"This preview is not ready.\" 503\n".to_owned(),
        };
        rendered.caddyfile.push_str(&snippet(&host, &body));
        let files = match &spec.state {
            RouteState::Live | RouteState::Held => {
                let is_held = spec.state == RouteState::Held;
                let mut files = rules::files(&rules, is_held);
                let app = app_name(slug, spec, &rules);
                if is_held {
                    files.push((HELD_DIR.to_owned(), app.clone()));
                }
                files.push((APP_DIR.to_owned(), app));
                files
            }
            RouteState::Placeholder => vec![(PAGE_DIR.to_owned(), slug.to_string())],
        };
        let files = match spec.checked {
            true => access::guarded(slug.as_str(), files),
            false => files,
        };
        rendered.hosts.insert(host, files);
    }
    Ok(rendered)
}

/// Reports whether Caddy lists the directory of a host with this name, rather than those below it.
pub(super) fn is_listed(name: &str) -> bool {
    [APP_DIR, HELD_DIR, PAGE_DIR, LIVE_DIR].contains(&name)
}

/// Returns the name in the table of an app, with the ports of a host.
fn app_name(slug: &GuestName, spec: &RouteSpec, rules: &[Rule<'_>]) -> String {
    let ports: BTreeSet<u16> = rules.iter().map(|rule| rule.route.port).collect();
    unavailable::app_name(slug.as_str(), &spec.guest_address.to_string(), ports)
}

/// Returns a configuration of the preview's file and sites that use its snippets, so that Caddy can check it alone.
pub(super) fn standalone(rendered: &RenderedRoute) -> String {
    let mut text = rendered.caddyfile.clone();
    for host in rendered.hosts.keys() {
        // Writing into a String cannot fail.
        writeln!(text, "http://{host} {{\n\timport {host}\n}}").ok();
    }
    text
}

/// Returns a configuration that Caddy accepts only if it supports `stream_close_delay` (2.7 and newer).
pub(super) fn close_delay_probe() -> String {
    format!(
        ":80 {{\n\treverse_proxy 127.0.0.1:1 {{\n\t\tstream_close_delay {STREAM_CLOSE_DELAY}\n\t}}\n}}\n"
    )
}

/// Returns the hosts of a preview with their rules, longest path first.
fn hosts<'a>(
    config: &CaddyConfig,
    spec: &'a RouteSpec,
) -> Result<BTreeMap<String, Vec<Rule<'a>>>, RouteError> {
    let slug = &spec.slug;
    // The table has hosts in lower case.
    let domain = config.domain.to_ascii_lowercase();
    let mut hosts = BTreeMap::from([(format!("{slug}.{domain}"), rules(spec, &spec.routes))]);
    for extra in &spec.extra_hosts {
        let label = extra.label(slug).map_err(|source| RouteError::Host {
            slug: slug.clone(),
            prefix: extra.prefix.clone(),
            source,
        })?;
        let host = format!("{label}.{domain}");
        if hosts
            .insert(host.clone(), rules(spec, &extra.routes))
            .is_some()
        {
            return Err(RouteError::HostTaken {
                slug: slug.clone(),
                host,
                owner: slug.to_string(),
            });
        }
    }
    Ok(hosts)
}

fn rules<'a>(spec: &RouteSpec, routes: &'a [RouteRule]) -> Vec<Rule<'a>> {
    let mut routes: Vec<_> = routes.iter().collect();
    routes.sort_by(|a, b| a.by_specificity(b));
    let rule = |route: &'a RouteRule| Rule {
        route,
        upstream: SocketAddr::from((spec.guest_address, route.port)),
    };
    routes.into_iter().map(rule).collect()
}

/// Renders a snippet of Caddy's configuration.
fn snippet(name: &str, body: &str) -> String {
    format!("({name}) {{\n{body}}}\n")
}

/// Renders the rules as Caddy directives, in a `route` block, since Caddy would reorder them otherwise.
fn handlers(rules: &[Rule<'_>]) -> String {
    let mut text = String::from("\troute {\n");
    for rule in rules {
        let (path, base) = (&rule.route.path, rule.route.path.base());
        let opening = if base.is_empty() {
            "handle {".to_owned()
        } else if rule.route.strip_prefix {
            format!("redir {base} {base}/ 308\n\t\thandle_path {base}/* {{")
        } else {
            format!("handle {path} {{")
        };
        let upstream = match rule.route.protocol {
            RouteProtocol::Http => rule.upstream.to_string(),
            RouteProtocol::H2c => format!("h2c://{}", rule.upstream),
        };
        // Writing into a String cannot fail.
        writeln!(
            text,
            "\t\t{opening}\n\t\t\treverse_proxy {upstream}\n\t\t}}"
        )
        .ok();
    }
    if rules.iter().all(|rule| !rule.route.path.base().is_empty()) {
        writeln!(text, "\t\trespond \"{NO_PREVIEW}\" 404").ok();
    }
    text.push_str("\t}\n");
    text
}

/// Returns a hash over texts, as sixteen hexadecimal digits.
fn digest<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let hash = hash.finalize();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reports whether a path needs no quoting in a Caddyfile.
pub(super) fn is_plain_path(path: &Path) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/+@".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(is_plain))
}

#[cfg(test)]
mod tests;
