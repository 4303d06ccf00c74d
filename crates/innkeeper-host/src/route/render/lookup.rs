//! Renders the routing of a request by the files of its host.
//!
//! Caddy prepares all routes of a block at each request that reaches the block, and each match costs an access to the file
//! system. So the blocks are nested, with those that most requests need outside: the shortcuts of the table, then the wait
//! for an app that restarts, then all rules, at last the pages. Hosts whose visitors are checked have no shortcuts, and nothing
//! else that a request finds before the check ([`super::access`]).

use super::access::{self, part};
use super::matchers::{file_matcher, host, lower_case};
use super::proxy::{self, forwarding, proxy};
use super::rules::{
    DEEP_DIR, EXACT, LIVE_DIR, MAX_SEGMENTS, PATHS_DIR, REDIRECT, RULES_DIR, SEGMENTS, STRIP, TREE,
    Transport,
};
use super::{Features, NO_PREVIEW, PAGE_DIR, RETRY_SECONDS, unavailable};
use crate::route::config::CaddyConfig;

/// Snippet of the routing of a request.
pub(super) const ROUTING: &str = "innkeeper-routing";

/// A request header that has the normalized path while it is looked up. Only header values support replacements.
const PATH_HEADER: &str = "X-Innkeeper-Path";

/// Directory of the rules of a host, as former releases wrote it.
const FORMER_RULES_DIR: &str = "rules.1";

/// Renders the snippets of the routing.
pub(super) fn snippets(config: &CaddyConfig, features: Features) -> String {
    [
        proxy::app_options(config, features),
        access::snippets(config),
        format!("({ROUTING}) {{\n{}}}\n", routing(config)),
    ]
    .concat()
}

/// Renders the routing. Only the name of the host is part of a directory's path: up to here, all other hosts than those of
/// letters, digits, `-` and `.` have been rejected. Caddy escapes a request's path in patterns of files, except for `\`.
fn routing(config: &CaddyConfig) -> String {
    let proxy = |matcher, upstream| proxy(matcher, upstream, Transport::default());
    let stripped = format!(
        "\
	@stripped vars_regexp app {{http.matchers.file.relative}} ^/([^/=]*){EXACT}/([0-9.:]+)={STRIP}$
	route @stripped {{
{strip}{proxy}	}}
",
        strip = strip("{http.regexp.app.1}"),
        proxy = proxy("*", "{http.regexp.app.2}"),
    );
    [
        file_matcher(config, "live", LIVE_DIR, "/*"),
        proxy("@live", "{http.matchers.file.relative}"),
        shortcut(config),
        proxy("@shortcut", "{http.regexp.app.1}"),
        // The name in `paths` is not only an address.
        format!("\troute {{\n{stripped}\troute {{\n"),
        unavailable::removed_headers(),
        access::check(config),
        rules(config),
        placeholder(config),
        outdated(config),
        format!("\trespond \"{NO_PREVIEW}\" 404\n\t}}\n\t}}\n"),
    ]
    .concat()
}

/// Renders the matcher of an address in [`PATHS_DIR`]. Its first expression excludes paths that [`rules`] must normalize
/// first: Caddy compares paths in lower case, and without `.` and spaces at their end.
///
/// Caddy matches the parts of a matcher in any order, but several `not` in their own. Each part needs the one before it.
fn shortcut(config: &CaddyConfig) -> String {
    let key = format!("{{http.regexp.path.1}}{EXACT}{{http.regexp.path.2}}");
    let files = file_matcher(config, "", PATHS_DIR, &format!("/{key}/* /{EXACT}/*"));
    format!(
        "\
	@shortcut {{
	not {{
		not path_regexp path ^/(?:([^/A-Z\\x5c]+)/.*|([^/A-Z\\x5c]*[^/A-Z.\\x20\\x5c]))?$
	}}
	not {{
		not {files}	}}
	not {{
		not vars_regexp app {{http.matchers.file.relative}} /([0-9.:]+)$
	}}
	}}
",
        files = files.trim_start().trim_start_matches("@ "),
    )
}

/// Renders the lookup in all rules of a host, and their actions.
fn rules(config: &CaddyConfig) -> String {
    let dirs = format!("/{RULES_DIR}/ /{DEEP_DIR}/");
    let exact = format!("{{http.request.header.{PATH_HEADER}}}{EXACT}/*");
    let prefixes = (0..=SEGMENTS).rev().map(|count| {
        let segments: String = (1..=count)
            .map(|n| format!("{{re.segment.{n}}}/"))
            .collect();
        format!(" /{segments}{TREE}/*")
    });
    let patterns = exact.clone() + &prefixes.collect::<String>();
    format!(
        "\
{known}	route @known {{
	request_header -{PATH_HEADER}
	@clean path_regexp path (?s)^(.*?)[.\\x20]*$
	request_header @clean {PATH_HEADER} {{http.regexp.path.1}}
	request_header {PATH_HEADER} \\x5c ;
	@upper header_regexp {PATH_HEADER} [A-Z]
	route @upper {{
{lower}	}}
	@segments header_regexp segment {PATH_HEADER} ^/{segments}
	route @segments {{
{matcher}	vars @rule innkeeper_rule {{http.matchers.file.relative}}
{deep}	}}
	request_header -{PATH_HEADER}
{held}	@found vars_regexp rule innkeeper_rule ^/(?:{TREE}|(.*)/{TREE}|(.*){EXACT})/([^/=]+)=([^/=]*)=([^/=]*)$
	route @found {{
{actions}	}}
	}}
",
        known = file_matcher(config, "known", &part(""), &dirs),
        lower = lower_case(PATH_HEADER),
        segments = "(?:([^/]+)/)?".repeat(SEGMENTS),
        matcher = file_matcher(config, "rule", &part(RULES_DIR), &patterns),
        deep = deep(config, &exact),
        held = unavailable::held(config),
        actions = actions(),
    )
}

/// Renders the lookup of a host with patterns of many segments. Variables have the parents of the path.
fn deep(config: &CaddyConfig, exact: &str) -> String {
    let parents: String = (1..=MAX_SEGMENTS)
        .map(|n| {
            let parent = match n {
                1 => String::new(),
                n => format!("{{http.vars.d{}}}", n - 1),
            };
            format!("\tvars d{n} {parent}/{{http.regexp.deep.{n}}}\n")
        })
        .collect();
    let prefixes: String = (1..=MAX_SEGMENTS)
        .rev()
        .map(|n| format!(" {{http.vars.d{n}}}/{TREE}/*"))
        .collect();
    format!(
        "\
{dir}	route @deep {{
	@parents header_regexp deep {PATH_HEADER} ^/{segments}
	route @parents {{
{parents}{matcher}	vars @deep-rule innkeeper_rule {{http.matchers.file.relative}}
	}}
	}}
",
        dir = file_matcher(config, "deep", &part(""), &format!("/{DEEP_DIR}/")),
        segments = "(?:([^/]+)/)?".repeat(MAX_SEGMENTS),
        matcher = file_matcher(
            config,
            "deep-rule",
            &part(DEEP_DIR),
            &format!("{exact}{prefixes} /{TREE}/*")
        ),
    )
}

/// Renders the actions of the rule that applies.
fn actions() -> String {
    let base = "{http.regexp.rule.1}{http.regexp.rule.2}";
    let to_app = |transport: Transport| {
        let name = transport.name();
        let matcher = format!("@{name}");
        [
            format!("\t{matcher} vars {{http.regexp.rule.5}} {name}\n"),
            proxy(&matcher, "{http.regexp.rule.3}", transport),
        ]
        .concat()
    };
    let with_options = Transport::all().filter(|transport| transport.has_options());
    format!(
        "\
	@redirect vars {{http.regexp.rule.4}} {REDIRECT}
	route @redirect {{
		@bare vars {{http.request.uri.query}} \"\"
		redir @bare /{base}/ 308
		redir * /{base}/?{{http.request.uri.query}} 308
	}}
	@strip vars {{http.regexp.rule.4}} {STRIP}
	route @strip {{
{strip}	}}
{plain}	route {{
{with_options}	}}
",
        strip = strip(base),
        plain = to_app(Transport::default()),
        with_options = with_options.map(to_app).collect::<String>(),
    )
}

/// Renders the removal of a base from the path. The error handling repeats it.
fn strip(base: &str) -> String {
    format!(
        "\
		vars {{
			innkeeper_action {STRIP}
			innkeeper_base {base}
		}}
		uri strip_prefix {base}
"
    )
}

/// Renders the page of a preview without an app, which innkeeper-pages serves. It receives the preview's slug after a `/`.
fn placeholder(config: &CaddyConfig) -> String {
    let forwarding = forwarding(config, "\t\t\t");
    let proxy = |matcher: &str, method: &str| {
        format!(
            "\
		reverse_proxy {matcher}unix/{socket} {{
{method}			header_up X-Innkeeper-Preview {{http.matchers.file.relative}}
			header_up -X-Innkeeper-Hold
{forwarding}		}}
",
            socket = config.pages.display(),
        )
    };
    format!(
        "\
{matcher}	route @page {{
		@body not method GET HEAD
{without_body}{page}	}}
",
        matcher = file_matcher(config, "page", &part(PAGE_DIR), "/*"),
        without_body = proxy("@body ", "\t\t\tmethod GET\n"),
        page = proxy("", ""),
    )
}

/// Renders the response for a preview whose files in the table are still those of a former release.
fn outdated(config: &CaddyConfig) -> String {
    format!(
        "\
	@outdated file {{
		root {table}/hosts
		try_files /{host} /{host}/{FORMER_RULES_DIR}/
	}}
	route @outdated {{
		header Retry-After {RETRY_SECONDS}
		respond \"The routes of this host are being updated.\" 503
	}}
",
        table = config.table.display(),
        host = host(config),
    )
}
