//! Renders the proxy to an app.

use std::fmt::Write as _;

use innkeeper_model::preview::RouteProtocol;
use ipnet::IpNet;

use super::rules::Transport;
use super::{Features, STREAM_CLOSE_DELAY};
use crate::route::config::{CaddyConfig, Tls};

/// Renders a proxy to an app.
///
/// A request must not pass two proxies whose connections are kept. Up to Caddy 2.6, a proxy dials the last upstream of
/// the request; a connection for the first proxy that is dialed late would reach the second one's upstream, and be kept.
pub(super) fn proxy(
    config: &CaddyConfig,
    upstream: &str,
    transport: Transport,
    features: Features,
) -> String {
    let tabs = "\t\t\t";
    let mut text = format!("{tabs}reverse_proxy {upstream} {{\n");
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
    let cookies = shared_cookies(&config.domain);
    writeln!(text, "{tabs}header_down Set-Cookie `{cookies}` $1").ok();
    text
}

/// Returns a regular expression for the attributes `Domain` of a cookie (RFC 6265, section 5.2.3) that name a parent
/// domain of previews' hosts. Such a cookie would be sent to all previews. Browsers decode other characters than those of
/// names, such as `%6f`, so the expression includes all values with them. Its group is the text after the attributes.
fn shared_cookies(domain: &str) -> String {
    let labels: Vec<_> = domain.split('.').collect();
    let parents: Vec<_> = (0..labels.len())
        .map(|start| labels[start..].join(r"\."))
        .collect();
    format!(
        r"(?i)(?:;\s*domain\s*=\s*(?:\.*(?:{})\.*|[^;]*[^a-z0-9.\-;\s][^;]*?)\s*)+(;|$)",
        parents.join("|")
    )
}
