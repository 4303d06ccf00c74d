//! Renders Caddy's configuration and lookup templates. Pure: equal inputs give equal bytes.
//!
//! No quoting is necessary: names and paths have types whose alphabets exclude special characters of Caddyfiles and
//! templates. Untrusted text must never be part of either.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use innkeeper_facilities::{RouteSpec, RouteState};
use innkeeper_model::preview::{RESERVED_SLUGS, RouteRule};
use innkeeper_model::{DaemonId, GuestName};
use sha2::{Digest, Sha256};

use super::config::{CaddyConfig, Tls};
use super::{RouteError, page};

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

/// The file that a live route's mark links to. The mark is a link because the kernel records when a link is followed.
pub(super) const LIVE_FILE: &str = "live";

/// The file with the lookup, which all sites import.
pub(super) const LOOKUP_FILE: &str = "innkeeper.lookup";

/// The file with the shared sites. Slugs never start with `_`.
pub(super) const SHARED_FILE: &str = "_innkeeper.caddy";

/// Time that upgraded connections such as WebSockets survive a reload of Caddy.
const STREAM_CLOSE_DELAY: &str = "24h";

/// Response for hosts without a preview.
const NO_PREVIEW: &str = "No preview answers here.";

/// Request headers that can change the response for a file to something other than its contents with status 200 (RFC
/// 9110, sections 13 and 14).
const CONDITIONAL_HEADERS: [&str; 6] = [
    "If-Match",
    "If-None-Match",
    "If-Modified-Since",
    "If-Unmodified-Since",
    "If-Range",
    "Range",
];

/// Template for all lookups. It includes the template of the host.
pub(super) const LOOKUP_TEMPLATE: &str = "\
{{- $host := print \"/hosts/\" (lower .Host) -}}
{{- if fileExists $host -}}{{- include $host -}}{{- end -}}
";

/// Contents of all files of one preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenderedRoute {
    pub(super) slug: GuestName,
    /// `<directory>/<slug>.caddy`.
    pub(super) caddyfile: String,
    /// Lookup template of each host.
    pub(super) hosts: BTreeMap<String, String>,
    /// Further files beside the templates.
    pub(super) files: BTreeMap<String, String>,
    /// Name of the link that marks the version in force.
    pub(super) mark: Option<String>,
}

/// Configuration that all previews share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedConfig {
    /// Hash over both files.
    pub(super) version: String,
    /// Contents of [`LOOKUP_FILE`].
    pub(super) lookup: String,
    /// Contents of [`SHARED_FILE`].
    pub(super) sites: String,
}

/// A rule and its upstream.
struct Rule<'a> {
    route: &'a RouteRule,
    upstream: SocketAddr,
}

/// Renders a preview's files.
pub(super) fn preview(
    config: &CaddyConfig,
    spec: &RouteSpec,
    has_close_delay: bool,
) -> Result<RenderedRoute, RouteError> {
    let slug = &spec.slug;
    if RESERVED_SLUGS.contains(&slug.as_str()) {
        return Err(RouteError::Reserved { slug: slug.clone() });
    }
    let hosts = hosts(config, spec)?;
    let mut rendered = RenderedRoute {
        slug: slug.clone(),
        caddyfile: format!(
            "{}# Written by innkeeperd, which overwrites changes. Innkeeper's table has the route in force. After a reload,\n\
             # Caddy uses this file instead as long as both are the same.\n",
            mark(slug, config.identity.daemon())
        ),
        hosts: BTreeMap::new(),
        files: BTreeMap::new(),
        mark: None,
    };
    match &spec.state {
        RouteState::Live | RouteState::Held => {
            let bodies: Vec<_> = hosts
                .iter()
                .map(|(host, rules)| (host, handlers(rules, has_close_delay)))
                .collect();
            let generation = digest(bodies.iter().flat_map(|(host, body)| [host.as_str(), body]));
            for (host, body) in &bodies {
                rendered
                    .caddyfile
                    .push_str(&live_site(config, slug, host, body, &generation));
            }
            rendered.hosts = hosts
                .iter()
                .map(|(host, rules)| (host.clone(), live_template(rules)))
                .collect();
            rendered.files.insert(LIVE_FILE.to_owned(), String::new());
            rendered.mark = Some(generation);
        }
        RouteState::Placeholder { state, log } => {
            let template = format!("{{{{- .RespHeader.Set \"X-Innkeeper-Page\" \"{slug}\" -}}}}\n");
            for host in hosts.into_keys() {
                rendered
                    .caddyfile
                    .push_str(&placeholder_site(config, &host));
                rendered.hosts.insert(host, template.clone());
            }
            let files = &mut rendered.files;
            files.insert("page.html".to_owned(), page::html(slug, state, log));
            files.insert("page.txt".to_owned(), page::text(slug, state));
        }
    }
    Ok(rendered)
}

/// Returns the preview's file with stubs for its references to other files, so that Caddy can check it alone.
pub(super) fn standalone(config: &CaddyConfig, caddyfile: &str) -> String {
    match &config.tls {
        Tls::Snippet(name) => format!("({name}) {{\n\ttls internal\n}}\n{caddyfile}"),
        _ => caddyfile.to_owned(),
    }
}

/// Returns a configuration that Caddy accepts only if it supports `stream_close_delay` (2.7 and newer).
pub(super) fn close_delay_probe() -> String {
    format!(
        ":80 {{\n\treverse_proxy 127.0.0.1:1 {{\n\t\tstream_close_delay {STREAM_CLOSE_DELAY}\n\t}}\n}}\n"
    )
}

/// Renders the configuration that all previews share.
pub(super) fn shared(config: &CaddyConfig, has_close_delay: bool) -> SharedConfig {
    let lookup = lookup(config, has_close_delay);
    let site = site(
        config,
        &format!("*.{}", config.domain),
        &import_lookup(config, 1),
    );
    let address = config.lookup;
    let table = config.table.display();
    let sites = |version: &str| {
        format!(
            "\
# Innkeeper: sites that all previews share
# Written by innkeeperd, which overwrites changes.
{site}
# Internal lookups of routes, answered from Innkeeper's table.
http://:{port} {{
	bind {ip}
	header {CONFIG_HEADER} {version}
	@lookup header X-Innkeeper-Lookup *
	handle @lookup {{
		root * {table}
		rewrite * /lookup.html
		templates
		file_server {{
			disable_canonical_uris
		}}
	}}
	@allowed file {{
		root {table}
		try_files /hosts/{{query.domain}}
	}}
	handle @allowed {{
		respond 200
	}}
	handle {{
		respond 404
	}}
}}
",
            port = address.port(),
            ip = address.ip(),
        )
    };
    let version = digest([lookup.as_str(), &sites("")]);
    SharedConfig {
        sites: sites(&version),
        lookup,
        version,
    }
}

/// Returns the hosts of a preview with their rules, longest path first.
fn hosts<'a>(
    config: &CaddyConfig,
    spec: &'a RouteSpec,
) -> Result<BTreeMap<String, Vec<Rule<'a>>>, RouteError> {
    let slug = &spec.slug;
    // The lookup uses the host in lower case.
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

fn live_site(
    config: &CaddyConfig,
    slug: &GuestName,
    host: &str,
    handlers: &str,
    generation: &str,
) -> String {
    let table = config.table.display();
    let lookup = import_lookup(config, 2);
    let body = format!(
        "	@current file {{
		root {table}
		try_files /previews/{slug}/{generation}
	}}
	handle @current {{
		route {{
{handlers}		}}
	}}
	handle {{
{lookup}	}}
"
    );
    site(config, host, &body)
}

fn placeholder_site(config: &CaddyConfig, host: &str) -> String {
    site(config, host, &import_lookup(config, 1))
}

fn site(config: &CaddyConfig, host: &str, body: &str) -> String {
    let scheme = if config.tls == Tls::None {
        "http://"
    } else {
        ""
    };
    let port = config
        .port
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let tls = match &config.tls {
        Tls::None => String::new(),
        Tls::Files { certificate, key } => {
            format!("\ttls {} {}\n", certificate.display(), key.display())
        }
        Tls::Snippet(name) => format!("\timport {name}\n"),
        Tls::Internal => "\ttls internal\n".to_owned(),
        Tls::OnDemand => "\ttls {\n\t\ton_demand\n\t}\n".to_owned(),
    };
    format!("{scheme}{host}{port} {{\n{tls}{body}}}\n")
}

fn import_lookup(config: &CaddyConfig, depth: usize) -> String {
    let path = config.directory.join(LOOKUP_FILE);
    format!("{}import {}\n", "\t".repeat(depth), path.display())
}

/// Renders the rules as Caddy directives. They are placed in a `route` block, since Caddy would reorder them otherwise.
fn handlers(rules: &[Rule<'_>], has_close_delay: bool) -> String {
    let mut text = String::new();
    for rule in rules {
        let (path, base) = (&rule.route.path, rule.route.path.base());
        let opening = if base.is_empty() {
            "handle {".to_owned()
        } else if rule.route.strip_prefix {
            format!("redir {base} {base}/\n\t\t\thandle_path {base}/* {{")
        } else {
            format!("handle {path} {{")
        };
        let proxy = proxy(&rule.upstream.to_string(), has_close_delay, 4);
        // Writing into a String cannot fail.
        writeln!(text, "\t\t\t{opening}\n{proxy}\t\t\t}}").ok();
    }
    if rules.iter().all(|rule| !rule.route.path.base().is_empty()) {
        writeln!(text, "\t\t\trespond \"{NO_PREVIEW}\" 404").ok();
    }
    text
}

fn proxy(upstream: &str, has_close_delay: bool, depth: usize) -> String {
    let tabs = "\t".repeat(depth);
    if has_close_delay {
        format!(
            "{tabs}reverse_proxy {upstream} {{\n{tabs}\tstream_close_delay {STREAM_CLOSE_DELAY}\n{tabs}}}\n"
        )
    } else {
        format!("{tabs}reverse_proxy {upstream}\n")
    }
}

/// Renders the same rules as a lookup template. Like Caddy's request matcher `path`, it compares paths without case and
/// with `//`, `.` and `..` resolved, but respects a trailing `/`.
fn live_template(rules: &[Rule<'_>]) -> String {
    let mut text = String::from(
        "{{- $raw := .OriginalReq.URL.Path -}}\n\
         {{- $path := lower (clean (print \"/\" $raw)) -}}\n\
         {{- if and (hasSuffix \"/\" $raw) (ne $path \"/\") -}}{{- $path = print $path \"/\" -}}{{- end -}}\n",
    );
    let branches = rules.iter().flat_map(branches);
    for (number, (condition, body)) in branches.enumerate() {
        let keyword = if number == 0 { "if" } else { "else if" };
        write!(text, "{{{{- {keyword} {condition} -}}}}\n{body}").ok();
    }
    if !rules.is_empty() {
        text.push_str("{{- end -}}\n");
    }
    text
}

/// Returns the conditions of a rule with their responses.
fn branches(rule: &Rule<'_>) -> Vec<(String, String)> {
    let path = &rule.route.path;
    let base = path.base();
    let key = base.to_ascii_lowercase();
    let is_exact = format!("eq $path \"{key}\"");
    let is_below = format!("hasPrefix \"{key}/\" $path");
    let upstream = set("Upstream", &rule.upstream.to_string());
    if rule.route.strip_prefix && !base.is_empty() {
        let redirect = set("Redirect", &format!("{base}/"));
        // Caddy adds the leading '/' of the prefix itself.
        let strip = set("Strip", &base[1..]);
        vec![(is_exact, redirect), (is_below, upstream + &strip)]
    } else if path.is_tree() {
        // For `/`, all paths are below the empty base.
        vec![(is_below, upstream)]
    } else {
        vec![(is_exact, upstream)]
    }
}

fn set(header: &str, value: &str) -> String {
    format!("{{{{- .RespHeader.Set \"X-Innkeeper-{header}\" \"{value}\" -}}}}\n")
}

/// Renders the lookup and the handling of its response, which has only headers. The request itself is forwarded unchanged.
///
/// Connections to the lookup must not be kept alive. Up to Caddy 2.6, a proxy dials the last upstream of the request, which
/// may already be the app. A pooled connection to the "lookup" would then reach an app, which could redirect other
/// previews' requests.
fn lookup(config: &CaddyConfig, has_close_delay: bool) -> String {
    let removed = |directive: &str, depth: usize| -> String {
        let line = |header| format!("{}{directive} -{header}\n", "\t".repeat(depth));
        CONDITIONAL_HEADERS.iter().map(line).collect()
    };
    let unconditional_lookup = removed("header_up", 1);
    let unconditional_page = removed("request_header", 2);
    let proxy = proxy(
        "{http.reverse_proxy.header.X-Innkeeper-Upstream}",
        has_close_delay,
        2,
    );
    let address = config.lookup;
    let table = config.table.display();
    let retry = page::RETRY_SECONDS;
    format!(
        "\
# Innkeeper: lookup of a request's route, and responses without an app
# Written by innkeeperd, which overwrites changes.
reverse_proxy {address} {{
	# Caddy 2.6 may confuse a kept connection with one to an app.
	transport http {{
		keepalive off
	}}
	method GET
	header_up X-Innkeeper-Lookup 1
{unconditional_lookup}	@broken status 4xx 5xx
	handle_response @broken {{
		respond \"Cannot read Innkeeper's table of routes.\" 502
	}}
	@stripped header X-Innkeeper-Strip *
	handle_response @stripped {{
		uri strip_prefix {{http.reverse_proxy.header.X-Innkeeper-Strip}}
{proxy}	}}
	@app header X-Innkeeper-Upstream *
	handle_response @app {{
{proxy}	}}
	@redirect header X-Innkeeper-Redirect *
	handle_response @redirect {{
		redir {{http.reverse_proxy.header.X-Innkeeper-Redirect}}
	}}
	@page header X-Innkeeper-Page *
	handle_response @page {{
		@other not method GET HEAD
		method @other GET
{unconditional_page}		header {{
			Retry-After {retry}
			Cache-Control no-store
			Content-Security-Policy \"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\"
			X-Content-Type-Options nosniff
			X-Robots-Tag noindex
			-Etag
			-Last-Modified
			defer
		}}
		root * {table}
		@person header Accept *text/html*
		rewrite @person /previews/{{http.reverse_proxy.header.X-Innkeeper-Page}}/page.html
		@program not header Accept *text/html*
		rewrite @program /previews/{{http.reverse_proxy.header.X-Innkeeper-Page}}/page.txt
		file_server {{
			disable_canonical_uris
			status 503
		}}
	}}
	handle_response {{
		respond \"{NO_PREVIEW}\" 404
	}}
}}
"
    )
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
