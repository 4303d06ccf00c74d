//! Renders the configuration that all previews share.

use std::fmt::Write as _;

use super::proxy::{forwarding, proxy};
use super::rules::{
    LIVE_DIR, MAX_PAGES, REDIRECT, RULES_PER_PAGE, SLASH, STRIP, Transport, page_dir,
};
use super::unavailable::{self, APP_DIR, HELD_DIR};
use super::{
    CONFIG_HEADER, Features, HOST_FILE, NO_PREVIEW, PAGE_DIR, RETRY_SECONDS, SharedConfig, digest,
};
use innkeeper_model::preview::RouteProtocol;

use crate::route::config::{CaddyConfig, Tls};

/// A request header that has the rules of a page while they are matched. Only header values support replacements.
const RULES_HEADER: &str = "X-Innkeeper-Rules";

/// Response for a guest's requests to other hosts than its own.
const NOT_YOURS: &str = "A guest reaches only the hosts of its own preview.";

/// The pages after the first, in blocks.
const BLOCKS: [(usize, usize); 3] = [(2, 4), (5, 16), (17, MAX_PAGES)];

/// Renders the shared configuration.
pub(crate) fn shared(config: &CaddyConfig, features: Features) -> SharedConfig {
    let host = format!("*.{}", config.domain);
    let site = site(
        config,
        config.port,
        &host,
        &[normalization(config), routing(config, features)].concat(),
    );
    let others = if features.has_catch_all {
        others(config)
    } else {
        String::new()
    };
    let guests = config
        .guest_port
        .map(|port| guest_sites(config, port, &host, features))
        .unwrap_or_default();
    let address = config.lookup;
    let table = config.table.display();
    let sites = |version: &str| {
        format!(
            "\
# Innkeeper: sites that all previews share
# Written by innkeeperd, which overwrites changes.
{site}
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
            port = address.port(),
            ip = address.ip(),
            unavailable = unavailable::internal(config, features),
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
fn guest_sites(config: &CaddyConfig, port: u16, host_pattern: &str, features: Features) -> String {
    let own = format!(
        "\t\t@foreign not file {{
			root {table}
			try_files /guests/{{http.request.remote.host}}/{host}/{HOST_FILE}
		}}
		respond @foreign \"{NOT_YOURS}\" 403
",
        table = config.table.display(),
        host = host(config),
    );
    let body = [normalization(config), own, routing(config, features)].concat();
    [
        "# The same for guests, each for its own hosts.\n",
        &site(config, Some(port), host_pattern, &body),
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

fn site(config: &CaddyConfig, port: Option<u16>, host: &str, body: &str) -> String {
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
    let errors = unavailable::errors(config, &file_matcher(config, "app", APP_DIR));
    format!("{scheme}{host}{port} {{\n{tls}\troute {{\n{body}\t}}\n{errors}}}\n")
}

/// Renders the routing of a request by the files of its host. Only the name of the host is part of a file's path: up to
/// here, [`normalization`] has rejected all others than letters, digits, `-` and `.`.
fn routing(config: &CaddyConfig, features: Features) -> String {
    let plain = Transport {
        protocol: RouteProtocol::default(),
        timeout: None,
    };
    let live = proxy(config, "{http.matchers.file.relative}", plain, features);
    [
        format!(
            "\
{matcher}		handle @live {{
{live}		}}
",
            matcher = file_matcher(config, "live", LIVE_DIR),
        ),
        unavailable::held(config, &file_matcher(config, "held", HELD_DIR)),
        // The app may have become live during the wait.
        format!(
            "\
{matcher}		}}
		handle @relive {{
{live}		}}
",
            matcher = file_matcher(config, "relive", LIVE_DIR).replacen(
                "file {",
                "{\n\t\t\tvars innkeeper_held yes\n\t\t\tfile {",
                1,
            ),
        ),
        pages(config),
        actions(config, features),
        placeholder(config),
        outdated(config),
        format!("\t\trespond \"{NO_PREVIEW}\" 404\n"),
    ]
    .concat()
}

/// Renders a matcher for the one file in a directory of the request's host. Its name is then in
/// `{http.matchers.file.relative}`, after a `/`.
fn file_matcher(config: &CaddyConfig, name: &str, dir: &str) -> String {
    format!(
        "\t\t@{name} file {{
			root {table}/hosts/{host}/{dir}
			try_files /*
		}}
",
        table = config.table.display(),
        host = host(config),
    )
}

/// Returns the request's host, without a port, as a part of a file's path.
fn host(config: &CaddyConfig) -> String {
    let domain = config.domain.to_ascii_lowercase();
    let labels = domain.split('.').count();
    format!("{{http.request.host.labels.{labels}}}.{domain}")
}

/// Renders the normalization of hosts to lower case, as Caddy has no placeholder for that. All other hosts than a name of
/// letters, digits and `-` below the domain have no preview; as a part of a file's path they could be patterns.
fn normalization(config: &CaddyConfig) -> String {
    let lower: String = ('A'..='Z')
        .map(|c| format!("\t\t\trequest_header Host {c} {}\n", c.to_ascii_lowercase()))
        .collect();
    let domain = config.domain.to_ascii_lowercase().replace('.', r"\.");
    format!(
        "\t\t@unusual not header_regexp Host ^[a-z0-9-]+\\.{domain}(?::[0-9]+)?$
		route @unusual {{
{lower}			@invalid not header_regexp Host ^[a-z0-9-]+\\.{domain}(?::[0-9]+)?$
			respond @invalid \"{NO_PREVIEW}\" 404
		}}
"
    )
}

/// Renders the match of a request with the rules of its host. The action is then in variables.
///
/// Caddy prepares all routes of a block at each request, and a missing page costs an access to the file system. So the
/// pages after the first, which few hosts have, are in blocks of their own.
fn pages(config: &CaddyConfig) -> String {
    let mut further =
        String::from("\t\t@further not vars innkeeper_found yes\n\t\troute @further {\n");
    for (first, last) in BLOCKS {
        let block = format!("block{first}");
        further.push_str(&page_matcher(config, &block, first));
        // Writing into a String cannot fail.
        writeln!(further, "\t\troute @{block} {{").ok();
        for number in first..=last {
            further.push_str(&page(config, number, ""));
        }
        further.push_str("\t\t}\n");
    }
    further.push_str("\t\t}\n");
    page(config, 1, &further)
}

/// Renders a matcher for a page of rules, unless a former page had a matching rule.
fn page_matcher(config: &CaddyConfig, name: &str, number: usize) -> String {
    file_matcher(config, name, &page_dir(number)).replacen(
        "file {",
        "{\n\t\t\tnot vars innkeeper_found yes\n\t\t\tfile {",
        1,
    ) + "\t\t}\n"
}

/// Renders the match of a request with the rules of a page.
fn page(config: &CaddyConfig, number: usize, otherwise: &str) -> String {
    let rule = r"(/([^=;]*?)(?:/\*)?)=([^=;]*)=([^=;]*)=([^=;]*)";
    let further = format!("(?:;{rule})?").repeat(RULES_PER_PAGE - 1);
    let mut text = format!(
        "\
{matcher}		route @page{number} {{
		request_header {RULES_HEADER} {{http.matchers.file.relative}}
		request_header {RULES_HEADER} {SLASH} /
		@rules{number} header_regexp rule {RULES_HEADER} ^/{rule}{further}$
		route @rules{number} {{
		request_header -{RULES_HEADER}
",
        matcher = page_matcher(config, &format!("page{number}"), number),
    );
    for position in 0..RULES_PER_PAGE {
        let group = |field: usize| format!("{{http.regexp.rule.{}}}", 5 * position + field);
        // Writing into a String cannot fail.
        write!(
            text,
            "\t\t@rule{number}-{position} {{
			path {pattern}
			not vars innkeeper_found yes
		}}
		vars @rule{number}-{position} {{
			innkeeper_found yes
			innkeeper_base {base}
			innkeeper_upstream {upstream}
			innkeeper_action {action}
			innkeeper_transport {transport}
		}}
",
            pattern = group(1),
            base = group(2),
            upstream = group(3),
            action = group(4),
            transport = group(5),
        )
        .ok();
    }
    text + otherwise + "\t\t}\n\t\t}\n"
}

/// Renders the actions of the rule that [`pages`] found.
fn actions(config: &CaddyConfig, features: Features) -> String {
    let upstream = "{http.vars.innkeeper_upstream}";
    let proxies: String = Transport::all()
        .map(|transport| {
            let name = transport.name();
            let proxy = proxy(config, upstream, transport, features);
            format!(
                "\t\t@{name} vars innkeeper_transport {name}\n\t\troute @{name} {{\n{proxy}\t\t}}\n"
            )
        })
        .collect();
    format!(
        "\t\t@redirect vars innkeeper_action {REDIRECT}
		route @redirect {{
			@bare vars {{http.request.uri.query}} \"\"
			redir @bare /{{http.vars.innkeeper_base}}/ 308
			redir * /{{http.vars.innkeeper_base}}/?{{http.request.uri.query}} 308
		}}
		@strip vars innkeeper_action {STRIP}
		uri @strip strip_prefix {{http.vars.innkeeper_base}}
{proxies}",
    )
}

/// Renders the page of a preview without an app, which innkeeper-pages serves. It receives the preview's slug after a `/`.
fn placeholder(config: &CaddyConfig) -> String {
    let forwarding = forwarding(config, "\t\t\t\t");
    let proxy = |matcher: &str, method: &str| {
        format!(
            "\
			reverse_proxy {matcher}unix/{socket} {{
{method}				header_up X-Innkeeper-Preview {{http.matchers.file.relative}}
				header_up -X-Innkeeper-Hold
{forwarding}			}}
",
            socket = config.pages.display(),
        )
    };
    format!(
        "\
{matcher}		route @page {{
			@body not method GET HEAD
{without_body}{page}		}}
",
        matcher = file_matcher(config, "page", PAGE_DIR),
        without_body = proxy("@body ", "\t\t\t\tmethod GET\n"),
        page = proxy("", ""),
    )
}

/// Renders the response for a preview whose files in the table are still those of a former release.
fn outdated(config: &CaddyConfig) -> String {
    format!(
        "\t\t@outdated file {{
			root {table}
			try_files /hosts/{host}
		}}
		route @outdated {{
			header Retry-After {retry}
			respond \"The routes of this host are being updated.\" 503
		}}
",
        table = config.table.display(),
        host = host(config),
        retry = RETRY_SECONDS,
    )
}
