//! Renders the proxy to an app.

use std::fmt::Write as _;

use innkeeper_model::preview::RouteProtocol;
use ipnet::IpNet;

use super::rules::Transport;
use super::secrets;
use super::{Features, STREAM_CLOSE_DELAY};
use crate::route::config::{CaddyConfig, Tls};

/// Snippet of the options of all proxies to apps.
pub(super) const APP: &str = "innkeeper-app";

/// Time that an app has to accept a connection, in seconds. It is that of a wake: packets to a guest that is asleep are dropped, and
/// so are those to a paused guest whose queue of connections is full, until it is awake. Caddy gives up the body of a request whose
/// connection fails.
const DIAL_SECONDS: u32 = 30;

/// Response in place of an upgrade that would set a cookie of all previews.
const SHARED_COOKIE: &str =
    "The app's response has a cookie whose Domain attribute names a domain of all previews.";

/// Renders a proxy to an app, for requests that `matcher` accepts.
///
/// A request must not pass two proxies whose connections are kept. Up to Caddy 2.6, a proxy dials the last upstream of
/// the request; a connection for the first proxy that is dialed late would reach the second one's upstream, and be kept.
pub(super) fn proxy(matcher: &str, upstream: &str, transport: Transport) -> String {
    let versions = match transport.protocol {
        RouteProtocol::Http => String::new(),
        RouteProtocol::H2c => "\t\t\tversions h2c 2\n".to_owned(),
    };
    let timeout = transport
        .timeout
        .map(|timeout| format!("\t\t\tresponse_header_timeout {}s\n", timeout.seconds()))
        .unwrap_or_default();
    let dial = dial_timeout("\t\t\t");
    format!(
        "\treverse_proxy {matcher} {upstream} {{\n\t\timport {APP}\n\t\ttransport http {{\n{dial}{versions}{timeout}\t\t}}\n\t}}\n"
    )
}

/// Renders the limit of a connection to an app.
pub(super) fn dial_timeout(tabs: &str) -> String {
    format!("{tabs}dial_timeout {DIAL_SECONDS}s\n")
}

/// Renders the snippet of the options of all proxies to apps.
pub(super) fn app_options(config: &CaddyConfig, features: Features) -> String {
    let close_delay = match features.has_close_delay {
        true => format!("\tstream_close_delay {STREAM_CLOSE_DELAY}\n"),
        false => String::new(),
    };
    [
        format!("({APP}) {{\n{close_delay}"),
        forwarding(config, "\t"),
        secrets::removed(),
        response_headers(config),
        "}\n".to_owned(),
    ]
    .concat()
}

/// Renders the options of a proxy for servers in front of Caddy.
pub(super) fn forwarding(config: &CaddyConfig, tabs: &str) -> String {
    let mut text = String::new();
    if !config.trusted_proxies.is_empty() {
        let networks: Vec<_> = config
            .trusted_proxies
            .iter()
            .map(IpNet::to_string)
            .collect();
        // Writing into a String cannot fail.
        writeln!(text, "{tabs}trusted_proxies {}", networks.join(" ")).ok();
    }
    if config.is_https && config.tls == Tls::None {
        writeln!(text, "{tabs}header_up X-Forwarded-Proto https").ok();
    }
    text
}

/// Renders the options of a proxy that change the headers of an app's responses.
///
/// Caddy passes a response with status 101 on with all its headers, so one with such a cookie is refused.
fn response_headers(config: &CaddyConfig) -> String {
    let robots = config
        .robots
        .as_ref()
        .map(|robots| format!("\theader_down X-Robots-Tag \"{}\"\n", robots.as_str()))
        .unwrap_or_default();
    let shared = shared_domain(&config.domain);
    format!(
        "\
{robots}	header_down Set-Cookie `(?:{shared})+(;|$)` $1
	@upgrade {{
		status 101
		header Set-Cookie *
	}}
	handle_response @upgrade {{
		@shared vars_regexp {{http.reverse_proxy.header.Set-Cookie}} `{shared}(?:[;,]|$)`
		route {{
			respond @shared \"{SHARED_COOKIE}\" 502
			copy_response
		}}
	}}
"
    )
}

/// Returns a regular expression for an attribute `Domain` of a cookie (RFC 6265, section 5.2.3) that names a parent domain
/// of previews' hosts. Such a cookie would be sent to all previews. Browsers decode other characters than those of names,
/// such as `%6f`, so the expression includes all values with them.
fn shared_domain(domain: &str) -> String {
    let labels: Vec<_> = domain.split('.').collect();
    let parents: Vec<_> = (0..labels.len())
        .map(|start| labels[start..].join(r"\."))
        .collect();
    format!(
        r"(?i:;\s*domain\s*=\s*(?:\.*(?:{})\.*|[^;]*[^a-z0-9.\-;\s][^;]*?)\s*)",
        parents.join("|")
    )
}
