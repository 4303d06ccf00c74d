//! Renders the handling of requests whose app does not answer.
//!
//! While an app restarts or its guest is asleep, the table has its host as held: Caddy sends a subrequest to `innkeeper-pages`,
//! which responds with 204 once the app accepts connections. The request, with its body or its upgrade, then goes on to the app.
//! Any other response is for the visitor. The subrequest has no body, so that it can be sent again: if `innkeeper-pages` crashes
//! meanwhile, Caddy does so. A path that no rule of the host has is not held: it has 404, and wakes nobody.
//!
//! A live app can still refuse a connection. Then Caddy's error handling applies. A request without a body waits and is
//! sent to the app once more; the body of another one is lost, so it gets the page. A request that has reached the app is
//! never sent again: the app may have acted on it. The app of a settled host has no address
//! if its resolver has just crashed; no body is lost then, so each request waits and is sent to the address in the table. An
//! error in Caddy's error handling is an empty response. So all go through the internal site, whose own error handling has a response with a body.

use innkeeper_model::settled;

use super::access::{self, part};
use super::matchers::file_matcher;
use super::proxy::{self, forwarding};
use super::rules::{LIVE_DIR, STRIP};
use super::{CONFIG_HEADER, RETRY_SECONDS};
use crate::route::config::CaddyConfig;

/// Directory of a host whose app is being restarted. The name in it has the form of [`app_name`].
pub(super) const HELD_DIR: &str = "held";

/// Directory of a host with an app, for the error handling. The name in it has the form of [`app_name`].
pub(super) const APP_DIR: &str = "app";

/// Headers of requests to `innkeeper-pages` and to the internal site. Visitors' own are removed.
const HEADERS: [&str; 4] = [HOLD, PREVIEW, AGAIN, UNAVAILABLE];

/// The app to wait for, as in the table.
const HOLD: &str = "X-Innkeeper-Hold";

/// The preview whose page is requested.
const PREVIEW: &str = "X-Innkeeper-Preview";

/// The address at which the app refused the connection.
const AGAIN: &str = "X-Innkeeper-Again";

/// Selects the handler of the internal site.
const UNAVAILABLE: &str = "X-Innkeeper-Unavailable";

/// The paths of `innkeeper-pages` itself, which compares them as they were sent: a matcher `path` would ignore the case of letters,
/// and decode the path.
const RESERVED: &str = "/.innkeeper/";

/// Response if `innkeeper-pages` does not answer, either.
const NO_ANSWER: &str = "This preview does not answer at the moment.";

/// [`NO_ANSWER`] for browsers.
const NO_ANSWER_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\
    <meta http-equiv=\"refresh\" content=\"3\"><title>No answer</title>\
    <h1>This preview does not answer at the moment</h1><p>The page loads again by itself.</p></html>";

/// Response if the app exceeds the `timeout` of its route.
const SLOW: &str = "The app did not respond in time.";

/// Number of times that a subrequest is sent again, and the interval. Together they must be longer than a restart of
/// `innkeeper-pages`, and are the delay of [`NO_ANSWER`] without it.
const RETRIES: u32 = 16;
const RETRY_INTERVAL: &str = "250ms";

/// Prefix of the paths of subrequests, which `innkeeper-pages` removes.
const SUBREQUEST: &str = "/.innkeeper-hold";

/// The variable that [`held`] sets for the paths of `innkeeper-pages` itself, in place of the name of a rule.
const OWN_PATH: &str = "own";

/// Maximum length of a name in the table, in bytes.
const MAX_NAME: usize = 255;

/// Returns the name in the table for an app: `<slug>,<address>,<port>,<port>`. Ports that do not fit are left out: no
/// request waits for them.
pub(super) fn app_name(slug: &str, address: &str, ports: impl IntoIterator<Item = u16>) -> String {
    let mut name = format!("{slug},{address}");
    for port in ports {
        let port = format!(",{port}");
        if name.len() + port.len() <= MAX_NAME {
            name.push_str(&port);
        }
    }
    name
}

/// Renders the removal of the visitor's own headers of these names from all requests that are looked up in the rules.
pub(super) fn removed_headers() -> String {
    removed(2)
}

/// Renders the wait for an app that is being restarted or is asleep, for requests that have a rule. The request goes on to the
/// following handlers afterwards.
pub(super) fn held(config: &CaddyConfig) -> String {
    format!(
        "\
	@own vars_regexp {{http.request.uri}} ^{own}
	vars @own innkeeper_rule {OWN_PATH}
	@ruled vars_regexp ruled innkeeper_rule ^(?:/|{OWN_PATH}$)
	route @ruled {{
{matcher}		route @held {{
			reverse_proxy unix/{socket} {{
				{subrequest}
				lb_retries {RETRIES}
				lb_try_interval {RETRY_INTERVAL}
				transport http {{
					keepalive off
				}}
				header_up {HOLD} {{http.matchers.file.relative}}
				header_up X-Forwarded-Method {{http.request.method}}
{forwarding}				@ready status 204
				handle_response @ready {{
					vars innkeeper_ready yes
				}}
			}}
		}}
	}}
",
        own = RESERVED.replace('.', r"\."),
        matcher = file_matcher(config, "held", &part(HELD_DIR), "/*"),
        subrequest = subrequest(),
        socket = config.pages.display(),
        forwarding = forwarding(config, "\t\t\t\t"),
    )
}

/// Renders the error handling of a site.
pub(super) fn errors(config: &CaddyConfig) -> String {
    let lookup = config.lookup;
    let forwarding = forwarding(config, "\t\t\t\t");
    let proxy = |options: &str| {
        format!(
            "\
{{
				{options}header_up {UNAVAILABLE} yes
{forwarding}				header_down -{CONFIG_HEADER}
				transport http {{
					keepalive off
				}}
			}}
"
        )
    };
    format!(
        "\
	handle_errors {{
{closed}		@unavailable expression {{http.error.status_code}} in [502, 503, 504]
		route @unavailable {{
			@slow expression {{http.error.status_code}} == 504 && {{http.error.message}}.contains(\"awaiting response\")
			respond @slow \"{SLOW}\" 504
{removed}{matcher}			route @app {{
				@once {{
					expression {{http.error.status_code}} == 502 && {{http.error.message}}.startsWith(\"dial\")
					method GET HEAD
					not header_regexp Content-Length [1-9]
				}}
				route @once {{
					request_header {HOLD} {{http.matchers.file.relative}}
					request_header {AGAIN} {{http.reverse_proxy.upstream.hostport}}
					@named vars_regexp named {{http.reverse_proxy.upstream.hostport}} {named}
					request_header @named {AGAIN} {{http.regexp.named.1}}.{{http.regexp.named.2}}.{{http.regexp.named.3}}.{{http.regexp.named.4}}:{{http.regexp.named.5}}
					@strip vars innkeeper_action {STRIP}
					uri @strip strip_prefix {{http.vars.innkeeper_base}}
				}}
				@unresolved expression {{http.error.status_code}} == 503 && {{http.error.message}}.contains(\"no upstreams\")
				route @unresolved {{
					request_header {HOLD} {{http.matchers.file.relative}}
{live}					request_header @live {AGAIN} {{http.matchers.file.relative}}
				}}
				@again header {AGAIN} *
				reverse_proxy @again {lookup} {again}
				request_header {PREVIEW} {{http.matchers.file.relative}}
				reverse_proxy {lookup} {page}
			}}
			header Retry-After {RETRY_SECONDS}
			header X-Innkeeper-Page unavailable
			@person header Accept *text/html*
			header @person Content-Type \"text/html; charset=utf-8\"
			header @person Content-Security-Policy \"default-src 'none'; frame-ancestors 'none'\"
			respond @person `{NO_ANSWER_PAGE}` 503
			respond \"{NO_ANSWER}\" 503
		}}
	}}
",
        closed = access::errors(),
        removed = removed(3),
        matcher = file_matcher(config, "app", &part(APP_DIR), "/*"),
        named = settled::pattern(),
        // The address follows a `/`, as in the lookup.
        live = file_matcher(config, "live", LIVE_DIR, "/*"),
        again = proxy("").trim_end(),
        // Caddy sends no body with a method that it has changed: the visitor's is lost.
        page = proxy("method GET\n				header_up -Content-Length\n				").trim_end(),
    )
}

/// Renders the handler of the internal site that [`errors`] sends requests to.
pub(super) fn internal(config: &CaddyConfig) -> String {
    let forwarded: String = ["For", "Proto", "Host"]
        .iter()
        .map(|name| {
            format!(
                "\t\t\t\theader_up X-Forwarded-{name} {{http.request.header.X-Forwarded-{name}}}\n"
            )
        })
        .collect();
    let unknown: String = HEADERS
        .iter()
        .map(|name| format!("\t\t\t\theader_up -{name}\n"))
        .collect();
    format!(
        "\
	@unavailable header {UNAVAILABLE} yes
	handle @unavailable {{
		route {{
			reverse_proxy unix/{socket} {{
				{subrequest}
				transport http {{
					keepalive off
				}}
{forwarded}				@ready status 204
				handle_response @ready {{
					vars innkeeper_ready yes
				}}
			}}
			@again header_regexp {AGAIN} ^/?[0-9.]+:[0-9]+$
			reverse_proxy @again {{http.request.header.{AGAIN}}} {{
{forwarded}{unknown}				import {app}
				transport http {{
{dial}				}}
			}}
			error 502
		}}
	}}
	handle_errors {{
		header Retry-After {RETRY_SECONDS}
		respond \"{NO_ANSWER}\" 503
	}}
",
        subrequest = subrequest(),
        socket = config.pages.display(),
        app = proxy::APP,
        dial = proxy::dial_timeout("\t\t\t\t\t"),
    )
}

/// Renders the options of a proxy that sends a request without its body, which is left for the app. Caddy omits the body only if
/// the options change the request, and a request with a body may be a GET. So the path changes always.
fn subrequest() -> String {
    format!("method GET\n				rewrite {SUBREQUEST}{{http.request.uri}}")
}

/// Renders the removal of the visitor's own headers of these names.
fn removed(depth: usize) -> String {
    let line = |name| format!("{}request_header -{name}\n", "\t".repeat(depth));
    HEADERS.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_apps_fit_into_the_table() {
        assert_eq!(
            app_name("web-7", "10.100.0.3", [3000, 4000]),
            "web-7,10.100.0.3,3000,4000"
        );
        let long = app_name(&"x".repeat(63), "10.100.255.255", 60000..61000);
        assert!(long.len() <= MAX_NAME && long.ends_with(",60028"), "{long}");
    }
}
