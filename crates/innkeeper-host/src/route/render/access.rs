//! Renders the check of visitors of previews that are not public.
//!
//! Their hosts have all files of a route in the directory [`CHECKED_DIR`], and [`ACCESS_DIR`] beside it. Caddy looks the route up
//! in the directory that the variable [`PART`] names. Only two requests get it: one that `innkeeper-gateway` admits, and one of the
//! preview's own guest. Without it no lookup finds anything of such a host: neither app nor page nor the wait for an app, nor
//! in the error handling. So the check fails closed, and comes before all else.
//!
//! A request for a public host never reaches the gateway. It loses the same secrets, in case the preview was not public before:
//! our cookies and tokens, the parameters of links, and the name of a visitor, which only the gateway sets.

use innkeeper_model::access::{ACCESS_HEADER, CHECK_PATH};

use super::matchers::{file_matcher, host};
use super::proxy::forwarding;
use super::rules::{LIVE_DIR, PATHS_DIR};
use super::secrets::{self, TOKEN, cookies};
use crate::route::config::CaddyConfig;

/// Directory of the slug of a host whose visitors are checked.
pub(super) const ACCESS_DIR: &str = "access";

/// Directory of the other directories of such a host.
pub(in crate::route) const CHECKED_DIR: &str = "checked";

/// Variable with the directory of a host in which its route is looked up. While it is not set, that is the host's own.
pub(super) const PART: &str = "innkeeper_part";

/// Value of [`PART`] until the visitor is admitted: no directory has this name.
const UNCHECKED: &str = "unchecked";

/// Variable of requests of the preview's own guest.
pub(super) const GUEST: &str = "innkeeper_guest";

/// [`USER_HEADER`](innkeeper_model::access::USER_HEADER) as Caddy writes it in placeholders. One without a value is `<nil>` there.
const USER: &str = "X-Sandbox-External-User-Id";

/// Snippet of the removal of our parameters from a URL, by a redirect.
const PARAMETERS: &str = "innkeeper-parameters";

/// Snippet of the response while visitors cannot be checked.
pub(super) const CLOSED: &str = "innkeeper-closed";

/// Retry interval of clients while visitors cannot be checked, in seconds.
const RETRY_SECONDS: u32 = 10;

/// Response while visitors cannot be checked.
const NO_CHECK: &str =
    "The visitors of this preview cannot be checked at the moment, so it is closed.";

/// [`NO_CHECK`] for browsers.
const NO_CHECK_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
    <meta http-equiv=\"refresh\" content=\"10\"><title>Closed</title>\
    <h1>This preview is closed at the moment</h1><p>Its visitors cannot be checked. The page loads again by itself.</p></html>";

/// Moves the files of a host to where only checked requests find them. The shortcuts are left out: they precede the check.
pub(in crate::route) fn guarded(slug: &str, files: Vec<(String, String)>) -> Vec<(String, String)> {
    let is_shortcut = |dir: &str| {
        let top = dir.split('/').next();
        top == Some(LIVE_DIR) || top == Some(PATHS_DIR)
    };
    let kept = files.into_iter().filter(|(dir, _)| !is_shortcut(dir));
    let moved = kept.map(|(dir, name)| (format!("{CHECKED_DIR}/{dir}"), name));
    moved
        .chain([(ACCESS_DIR.to_owned(), slug.to_owned())])
        .collect()
}

/// Reverses [`guarded`], without the shortcuts.
pub(in crate::route) fn unguarded(files: Vec<(String, String)>) -> Vec<(String, String)> {
    let prefix = format!("{CHECKED_DIR}/");
    let open = files.into_iter().filter(|(dir, _)| dir != ACCESS_DIR);
    let open = open.map(|(dir, name)| match dir.strip_prefix(&prefix) {
        Some(dir) => (dir.to_owned(), name),
        None => (dir, name),
    });
    open.collect()
}

/// Reports whether a host with these files has its visitors checked.
pub(in crate::route) fn is_guarded(files: &[(String, String)]) -> bool {
    files.iter().any(|(dir, _)| dir == ACCESS_DIR)
}

/// Returns the directory below that of a host, in the part of it that applies to the request.
pub(super) fn part(dir: &str) -> String {
    format!("{{http.vars.{PART}}}/{dir}")
}

/// Renders the snippets of this module.
pub(super) fn snippets(config: &CaddyConfig) -> String {
    [parameters(config), closed()].concat()
}

/// Renders the handlers at the start of a site, before the shortcuts of public hosts.
///
/// Hosts are as they arrived here: only one that is written as the table has it is found.
pub(super) fn front(config: &CaddyConfig) -> String {
    // Apps that read headers as CGI variables do not tell `-` and `_` apart.
    let spoofed: String = [
        "X-Sandbox-External",
        "X-Sandbox_External",
        "X_Sandbox-External",
        "X_Sandbox_External",
    ]
    .iter()
    .map(|prefix| format!("\t\trequest_header -{prefix}*\n"))
    .collect();
    format!(
        "\
{spoofed}		@token header_regexp Authorization {TOKEN}
		route @token {{
{open_token}			request_header @open-token -Authorization
		}}
{parameter}",
        open_token = open(config, "open-token"),
        parameter = open_parameters(config, "parameter"),
    )
}

/// Renders the removal of our parameters from a URL of a public host. `name` is that of a matcher.
///
/// [`front`] does it for hosts that are written as the table has them, so that others need it after their normalization.
pub(super) fn open_parameters(config: &CaddyConfig, name: &str) -> String {
    format!(
        "\
		@{name} vars_regexp {{http.request.uri}} [?&](?:{names})=
		route @{name} {{
{open}			route @open-{name} {{
				import {PARAMETERS}
			}}
		}}
",
        open = open(config, &format!("open-{name}")),
        names = secrets::parameters(),
    )
}

/// Renders a matcher of public hosts.
fn open(config: &CaddyConfig, name: &str) -> String {
    let (table, host) = (config.table.display(), host(config));
    format!(
        "\
			@{name} {{
				file {{
					root {table}/hosts
					try_files /{host}/{host_file}
				}}
				not file {{
					root {table}/hosts
					try_files /{host}/{ACCESS_DIR}/
				}}
			}}
",
        host_file = super::HOST_FILE,
    )
}

/// Renders the check of the visitor, after the shortcuts of public hosts and before all else.
pub(super) fn check(config: &CaddyConfig) -> String {
    let matcher = file_matcher(config, "checked", ACCESS_DIR, "/*");
    let ask = match &config.access {
        Some(socket) => ask(config, &socket.display().to_string()),
        None => format!("\t\troute @visitor {{\n\t\t\timport {CLOSED}\n\t\t}}\n"),
    };
    format!(
        "\
{matcher}	route @checked {{
		vars {PART} {UNCHECKED}
		@guest vars {GUEST} yes
		vars @guest {PART} {CHECKED_DIR}
		@visitor not vars {GUEST} yes
{ask}		@cookies header_regexp Cookie (?i)^\\s*(?:{ours}\\s*=[^;]*(?:;\\s*|$))+$
		request_header @cookies -Cookie
		@tokens header_regexp Authorization {TOKEN}
		request_header @tokens -Authorization
		request_header -{ACCESS_HEADER}
		route {{
			import {PARAMETERS}
		}}
	}}
",
        ours = cookies(),
    )
}

/// Renders the request to `innkeeper-gateway`. Only its response 204 lets the visitor's own request go on; any other one is for the
/// visitor.
///
/// `X-Forwarded-Host` is always the request's own host: a visitor could send another one through a trusted proxy.
///
/// Connections are not kept: the request goes on to an app's proxy, and up to Caddy 2.6 a connection that is dialed late reaches the
/// app's address instead ([`super::proxy::proxy`]). A kept one would have the app decide about later visitors.
fn ask(config: &CaddyConfig, socket: &str) -> String {
    let user = format!("{{http.reverse_proxy.header.{USER}}}");
    format!(
        "\
		reverse_proxy @visitor unix/{socket} {{
			method GET
			rewrite {CHECK_PATH}
			lb_retries 4
			lb_try_interval 250ms
			transport http {{
				keepalive off
				response_header_timeout 30s
			}}
			header_up {ACCESS_HEADER} {{http.matchers.file.relative}}
			header_up X-Forwarded-Method {{http.request.method}}
			header_up X-Forwarded-Uri {{http.request.uri}}
			header_up X-Forwarded-Host {{http.request.hostport}}
{forwarding}			@pass status 204
			handle_response @pass {{
				vars {PART} {CHECKED_DIR}
				@user vars_regexp {user} ^[^<]
				request_header @user {USER} {user}
			}}
		}}
",
        forwarding = forwarding(config, "\t\t\t"),
    )
}

/// Renders the handling of errors before the visitor was admitted.
pub(super) fn errors() -> String {
    format!(
        "\
		@closed vars {PART} {UNCHECKED}
		route @closed {{
			import {CLOSED}
		}}
"
    )
}

/// Renders the snippet of the removal of our parameters: a redirect for each, to the same host.
fn parameters(config: &CaddyConfig) -> String {
    let scheme = if config.is_https { "https" } else { "http" };
    let origin = format!("{scheme}://{{http.request.hostport}}");
    let own = format!("(?:{})=[^&]*", secrets::parameters());
    let (first, second) = ("{http.regexp.ours.1}", "{http.regexp.ours.2}");
    format!(
        "\
({PARAMETERS}) {{
	@only vars_regexp ours {{http.request.uri}} ^([^?]*)\\?{own}$
	redir @only {origin}{first} 307
	@front vars_regexp ours {{http.request.uri}} ^([^?]*\\?(?:.*&)?){own}&(.*)$
	redir @front {origin}{first}{second} 307
	@last vars_regexp ours {{http.request.uri}} ^([^?]*\\?.*)&{own}$
	redir @last {origin}{first} 307
}}
"
    )
}

/// Renders the snippet of the response while visitors cannot be checked.
fn closed() -> String {
    format!(
        "\
({CLOSED}) {{
	header Retry-After {RETRY_SECONDS}
	header Cache-Control no-store
	header X-Innkeeper-Page closed
	@person header Accept *text/html*
	header @person Content-Type \"text/html; charset=utf-8\"
	header @person Content-Security-Policy \"default-src 'none'; frame-ancestors 'none'\"
	respond @person `{NO_CHECK_PAGE}` 503
	respond \"{NO_CHECK}\" 503
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dirs: &[&str]) -> Vec<(String, String)> {
        let file = |dir: &&str| ((*dir).to_owned(), "x".to_owned());
        dirs.iter().map(file).collect()
    }

    #[test]
    fn header_has_the_name_of_the_model() {
        assert_eq!(
            USER.to_ascii_lowercase(),
            innkeeper_model::access::USER_HEADER
        );
    }

    #[test]
    fn guarded_host_has_nothing_beside_its_checked_part() {
        let open = files(&["rules/,", "live", "paths/=", "held", "app", "page"]);
        let guarded = guarded("web", open);
        assert!(is_guarded(&guarded));
        for (dir, name) in &guarded {
            assert!(
                dir.starts_with("checked/") || (dir == "access" && name == "web"),
                "{dir}"
            );
            assert!(!dir.contains("live") && !dir.contains("paths"), "{dir}");
        }
        let open = unguarded(guarded);
        assert!(!is_guarded(&open));
        assert_eq!(open, files(&["rules/,", "held", "app", "page"]));
    }
}
