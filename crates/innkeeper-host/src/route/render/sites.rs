//! Renders the configuration that all previews share.

use super::access::{self, GUEST};
use super::lookup;
use super::matchers::{host, lower_case, usual_host};
use super::settled::settled;
use super::unavailable;
use super::{CONFIG_HEADER, Features, HOST_FILE, NO_PREVIEW, SharedConfig, digest};

use crate::route::config::{CaddyConfig, Tls};

/// Response for a guest's requests to other hosts than its own.
const NOT_YOURS: &str = "A guest reaches only the hosts of its own preview.";

/// Snippet of the normalization of hosts.
const HOSTS: &str = "innkeeper-hosts";

/// Snippet of the error handling of a site.
const ERRORS: &str = "innkeeper-errors";

/// Renders the shared configuration.
pub(crate) fn shared(config: &CaddyConfig, features: Features) -> SharedConfig {
    let host = format!("*.{}", config.domain);
    let site = site(config, config.port, &host, &settled(config), "");
    let others = if features.has_catch_all {
        others(config)
    } else {
        String::new()
    };
    let guests = config
        .guest_port
        .map(|port| guest_sites(config, port, &host))
        .unwrap_or_default();
    let address = config.lookup;
    let table = config.table.display();
    let sites = |version: &str| {
        format!(
            "\
# Innkeeper: sites that all previews share
# Written by innkeeperd, which overwrites changes.
{snippets}{site}
{others}{guests}# Internal queries about this configuration and about hosts.
http://:{port} {{
	bind {ip}
	header {CONFIG_HEADER} {version}
{unavailable}	@allowed file {{
		root {table}
		try_files /hosts/{{query.domain}}/{HOST_FILE}
	}}
	handle @allowed {{
		respond 200
	}}
	handle {{
		respond 404
	}}
}}
",
            snippets = snippets(config, features),
            port = address.port(),
            ip = address.ip(),
            unavailable = unavailable::internal(config),
        )
    };
    let version = digest([sites("").as_str()]);
    SharedConfig {
        sites: sites(&version),
        version,
    }
}

/// Renders the sites for guests, on a port of their own so that no other site of Caddy's main file is reachable there. A
/// request for a host of another guest's preview is rejected, and one from an address without a preview as well.
fn guest_sites(config: &CaddyConfig, port: u16, host_pattern: &str) -> String {
    let own = format!(
        "\t\t@foreign not file {{
			root {table}
			try_files /guests/{{http.request.remote.host}}/{host}/{HOST_FILE}
		}}
		respond @foreign \"{NOT_YOURS}\" 403
		vars {GUEST} yes
",
        table = config.table.display(),
        host = host(config),
    );
    [
        "# The same for guests, each for its own hosts.\n",
        &site(config, Some(port), host_pattern, "", &own),
        &catch_all(config, port, NOT_YOURS, 403),
    ]
    .concat()
}

/// Renders the site for all hosts without a site: the domain itself, deeper names, and other domains.
pub(crate) fn others(config: &CaddyConfig) -> String {
    let default = if config.tls == Tls::None { 80 } else { 443 };
    catch_all(config, config.port.unwrap_or(default), NO_PREVIEW, 404)
}

/// Renders a site for all hosts without a site. A name with a dot at its end is the same host (RFC 9110, section 4.2.3),
/// but Caddy 2.6 rejects sites of such names if they have a certificate, so they are redirected.
fn catch_all(config: &CaddyConfig, port: u16, response: &str, status: u16) -> String {
    let domain = config.domain.replace('.', r"\.");
    let scheme = if config.tls == Tls::None {
        "http"
    } else {
        "https"
    };
    let public = if config.is_https { "https" } else { "http" };
    format!(
        "\
{scheme}://:{port} {{
	@dotted header_regexp dotted Host (?i)^([a-z0-9-]+\\.{domain})\\.(:[0-9]+)?$
	redir @dotted {public}://{{http.regexp.dotted.1}}{{http.regexp.dotted.2}}{{http.request.uri}} 308
	respond \"{response}\" {status}
}}
"
    )
}

/// Renders a site of all previews. `shortcut` sees requests before their hosts are normalized; `own` has precedence over the
/// routing.
///
/// Caddy prepares all routes of a block at each request that reaches the block, so the shortcut has one of its own.
fn site(config: &CaddyConfig, port: Option<u16>, host: &str, shortcut: &str, own: &str) -> String {
    let scheme = if config.tls == Tls::None {
        "http://"
    } else {
        ""
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let tls = match &config.tls {
        Tls::None => String::new(),
        Tls::Files { certificate, key } => {
            format!("\ttls {} {}\n", certificate.display(), key.display())
        }
        Tls::Snippet(name) => format!("\timport {name}\n"),
        Tls::Internal => "\ttls internal\n".to_owned(),
        Tls::OnDemand => "\ttls {\n\t\ton_demand\n\t}\n".to_owned(),
    };
    format!(
        "\
{scheme}{host}{port} {{
{tls}	route {{
{front}{shortcut}		route {{
			import {HOSTS}
{own}			import {routing}
		}}
	}}
	import {ERRORS}
}}
",
        front = access::front(config),
        routing = lookup::ROUTING
    )
}

/// Renders the parts that the sites share, as snippets.
fn snippets(config: &CaddyConfig, features: Features) -> String {
    [
        format!("({HOSTS}) {{\n{}}}\n", normalization(config)),
        lookup::snippets(config, features),
        format!("({ERRORS}) {{\n{}}}\n", unavailable::errors(config)),
    ]
    .concat()
}

/// Renders the normalization of hosts to lower case, as Caddy has no placeholder for that. All other hosts than a name of
/// letters, digits and `-` below the domain have no preview; as a part of a file's path they could be patterns.
fn normalization(config: &CaddyConfig) -> String {
    let lower = lower_case("Host");
    let usual = usual_host(config);
    format!(
        "\t\t@unusual not {usual}
		route @unusual {{
{lower}			@invalid not {usual}
			respond @invalid \"{NO_PREVIEW}\" 404
{parameters}		}}
",
        parameters = access::open_parameters(config, "unusual-parameter"),
    )
}
