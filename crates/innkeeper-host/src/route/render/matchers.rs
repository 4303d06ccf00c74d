//! Renders matchers of requests by the files of their host.

use crate::route::config::CaddyConfig;

/// Renders a matcher for the first file in directories of the request's host. What `dir` does not have of its path is then in
/// `{http.matchers.file.relative}`, after a `/`.
pub(super) fn file_matcher(config: &CaddyConfig, name: &str, dir: &str, files: &str) -> String {
    let separator = if dir.is_empty() { "" } else { "/" };
    format!(
        "\
	@{name} file {{
		root {table}/hosts/{host}{separator}{dir}
		try_files {files}
	}}
",
        table = config.table.display(),
        host = host(config),
    )
}

/// Returns the request's host, without a port, as a part of a file's path.
pub(super) fn host(config: &CaddyConfig) -> String {
    let domain = config.domain.to_ascii_lowercase();
    let labels = domain.split('.').count();
    format!("{{http.request.host.labels.{labels}}}.{domain}")
}

/// Renders the matcher of hosts that may be a part of a file's path: a name of small letters, digits and `-` below the domain.
pub(super) fn usual_host(config: &CaddyConfig) -> String {
    let domain = config.domain.to_ascii_lowercase().replace('.', r"\.");
    format!(r"header_regexp Host ^[a-z0-9-]+\.{domain}(?::[0-9]+)?$")
}

/// Renders the replacement of a request header's letters by small ones, as Caddy has no placeholder for that.
pub(super) fn lower_case(header: &str) -> String {
    let replace = |c: char| {
        format!(
            "\t\trequest_header {header} {c} {}\n",
            c.to_ascii_lowercase()
        )
    };
    ('A'..='Z').map(replace).collect()
}
