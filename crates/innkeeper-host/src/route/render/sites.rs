//! Renders the configuration that all previews share.

use std::fmt::Write as _;

use super::proxy::{forwarding, proxy};
use super::rules::{
    LIVE_DIR, MAX_PAGES, PATHS_DIR, REDIRECT, RULES_PER_PAGE, SLASH, STRIP, Transport, page_dir,
};
use super::unavailable::{self, APP_DIR, HELD_DIR};
use super::{
    CONFIG_HEADER, Features, HOST_FILE, NO_PREVIEW, PAGE_DIR, RETRY_SECONDS, SharedConfig, digest,
};

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
///
/// Caddy prepares all routes of a block at each request that reaches the block. So the blocks are nested, with those that
/// most requests need outside.
fn routing(config: &CaddyConfig, features: Features) -> String {
    [
        direct(config, features, ""),
        "\t\troute {\n".to_owned(),
        unavailable::held(config, &file_matcher(config, "held", HELD_DIR)),
        // The app may be in service after the wait.
        "\t\t@waited vars innkeeper_held yes\n\t\troute @waited {\n".to_owned(),
        direct(config, features, "again-"),
        "\t\t}\n".to_owned(),
        pages(config),
        actions(config, features),
        placeholder(config),
        outdated(config),
        format!("\t\trespond \"{NO_PREVIEW}\" 404\n\t\t}}\n"),
    ]
    .concat()
}

/// Renders the proxies of a host with one rule, or with few rules without options. `prefix` makes the names unique.
fn direct(config: &CaddyConfig, features: Features, prefix: &str) -> String {
    let proxy = |matcher: &str, upstream: &str| {
        proxy(config, matcher, upstream, Transport::default(), features)
    };
    let rule = |position: usize| {
        let group = |field: usize| format!("{{http.regexp.path.{}}}", 4 * position + field);
        let action = format!("{prefix}action{position}");
        format!(
            "\
		@{prefix}path{position} path {pattern}
		route @{prefix}path{position} {{
		@{action} not vars {name} \"\"
		route @{action} {{
			vars innkeeper_action {name}
			vars innkeeper_base {base}
{on_paths}		}}
{proxy}		}}
",
            pattern = group(1),
            base = group(2),
            name = group(4),
            on_paths = actions_on_paths(),
            proxy = proxy("*", &group(3)),
        )
    };
    [
        file_matcher(config, &format!("{prefix}live"), LIVE_DIR),
        proxy(&format!("@{prefix}live"), "{http.matchers.file.relative}"),
        file_matcher(config, &format!("{prefix}paths"), PATHS_DIR),
        format!("\t\troute @{prefix}paths {{\n"),
        matched_rules("path", r"(/([^=;]*?)(?:/\*)?)=([^=;]*)=([^=;]*)"),
        (0..RULES_PER_PAGE).map(rule).collect(),
        format!("\t\trespond \"{NO_PREVIEW}\" 404\n\t\t}}\n\t\t}}\n"),
    ]
    .concat()
}

/// Renders the opening of a block for a file whose name contains rules, with the groups of `rule` for each of them as
/// `{http.regexp.<name>.*}`. Its caller closes the block.
fn matched_rules(name: &str, rule: &str) -> String {
    let further = format!("(?:;{rule})?").repeat(RULES_PER_PAGE - 1);
    format!(
        "\
		request_header {RULES_HEADER} {{http.matchers.file.relative}}
		request_header {RULES_HEADER} {SLASH} /
		@{name}-rules header_regexp {name} {RULES_HEADER} ^/{rule}{further}$
		route @{name}-rules {{
		request_header -{RULES_HEADER}
"
    )
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
    let regexp = format!("rules{number}");
    let rule = |position: usize| {
        let group = |field: usize| format!("{{http.regexp.{regexp}.{}}}", 5 * position + field);
        format!(
            "\
		@rule{number}-{position} {{
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
    };
    [
        page_matcher(config, &format!("page{number}"), number),
        format!("\t\troute @page{number} {{\n"),
        matched_rules(&regexp, r"(/([^=;]*?)(?:/\*)?)=([^=;]*)=([^=;]*)=([^=;]*)"),
        (0..RULES_PER_PAGE).map(rule).collect(),
        otherwise.to_owned(),
        "\t\t}\n\t\t}\n".to_owned(),
    ]
    .concat()
}

/// Renders the actions of the rule that [`pages`] found.
fn actions(config: &CaddyConfig, features: Features) -> String {
    let proxy = |transport: Transport| {
        let name = transport.name();
        let upstream = "{http.vars.innkeeper_upstream}";
        [
            format!("\t\t@{name} vars innkeeper_transport {name}\n"),
            proxy(config, &format!("@{name}"), upstream, transport, features),
        ]
        .concat()
    };
    let with_options = Transport::all().filter(|transport| transport.has_options());
    format!(
        "\t\t@found vars innkeeper_found yes
		route @found {{
{on_paths}{plain}		route {{
{with_options}		}}
		}}
",
        on_paths = actions_on_paths(),
        plain = proxy(Transport::default()),
        with_options = with_options.map(proxy).collect::<String>(),
    )
}

/// Renders the actions that concern the request's path. Variables have the action and its base.
fn actions_on_paths() -> String {
    format!(
        "\
		@redirect vars innkeeper_action {REDIRECT}
		route @redirect {{
			@bare vars {{http.request.uri.query}} \"\"
			redir @bare /{{http.vars.innkeeper_base}}/ 308
			redir * /{{http.vars.innkeeper_base}}/?{{http.request.uri.query}} 308
		}}
		@strip vars innkeeper_action {STRIP}
		uri @strip strip_prefix {{http.vars.innkeeper_base}}
"
    )
}

/// Renders the page of a preview without an app, which innkeeper-pages serves. It receives the preview's slug after a `/`.
fn placeholder(config: &CaddyConfig) -> String {
    let proxy = |matcher: &str, method: &str| {
        format!(
            "\
			reverse_proxy {matcher}unix/{socket} {{
{method}				header_up X-Innkeeper-Preview {{http.matchers.file.relative}}
				header_up -X-Innkeeper-Hold
{forwarding}			}}
",
            socket = config.pages.display(),
            forwarding = forwarding(config, "\t\t\t\t"),
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
