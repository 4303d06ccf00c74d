//! Renders the proxy to an app.

use std::fmt::Write as _;

use innkeeper_model::preview::RouteProtocol;
use ipnet::IpNet;

use super::rules::Transport;
use super::{Features, STREAM_CLOSE_DELAY};
use crate::route::config::{CaddyConfig, Tls};

/// Response in place of an upgrade that would set a cookie of all previews.
const SHARED_COOKIE: &str =
    "The app's response has a cookie whose Domain attribute names a domain of all previews.";

/// Renders a proxy to an app, for requests that the named matcher accepts.
///
/// A request must not pass two proxies whose connections are kept. Up to Caddy 2.6, a proxy dials the last upstream of
/// the request; a connection for the first proxy that is dialed late would reach the second one's upstream, and be kept.
pub(super) fn proxy(
    config: &CaddyConfig,
    matcher: &str,
    upstream: &str,
    transport: Transport,
    features: Features,
) -> String {
    let tabs = "\t\t";
    let mut text = format!("{tabs}reverse_proxy {matcher} {upstream} {{\n");
    if features.has_close_delay {
        // Writing into a String cannot fail.
        writeln!(text, "{tabs}\tstream_close_delay {STREAM_CLOSE_DELAY}").ok();
    }
    text += &forwarding(config, &format!("{tabs}\t"));
    text += &response_headers(config, &format!("{tabs}\t"));
    let versions = match transport.protocol {
        RouteProtocol::Http => None,
        RouteProtocol::H2c => Some("versions h2c 2".to_owned()),
    };
    let timeout = transport
        .timeout
        .map(|timeout| format!("response_header_timeout {}s", timeout.seconds()));
    let options: Vec<_> = versions.into_iter().chain(timeout).collect();
    if !options.is_empty() {
        let options = options.join(&format!("\n{tabs}\t\t"));
        writeln!(
            text,
            "{tabs}\ttransport http {{\n{tabs}\t\t{options}\n{tabs}\t}}"
        )
        .ok();
    }
    text + &format!("{tabs}}}\n")
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
pub(super) fn response_headers(config: &CaddyConfig, tabs: &str) -> String {
    let mut text = String::new();
    if let Some(robots) = &config.robots {
        // Writing into a String cannot fail.
        writeln!(
            text,
            "{tabs}header_down X-Robots-Tag \"{}\"",
            robots.as_str()
        )
        .ok();
    }
    let shared = shared_domain(&config.domain);
    writeln!(
        text,
        "\
{tabs}header_down Set-Cookie `(?:{shared})+(;|$)` $1
{tabs}@upgrade {{
{tabs}	status 101
{tabs}	header Set-Cookie *
{tabs}}}
{tabs}handle_response @upgrade {{
{tabs}	@shared vars_regexp {{http.reverse_proxy.header.Set-Cookie}} `{shared}(?:[;,]|$)`
{tabs}	route {{
{tabs}		respond @shared \"{SHARED_COOKIE}\" 502
{tabs}		copy_response
{tabs}	}}
{tabs}}}"
    )
    .ok();
    text
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
