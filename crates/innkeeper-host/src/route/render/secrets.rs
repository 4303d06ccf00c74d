//! Our secrets in the requests of visitors: their names and forms, and their removal from requests to apps.

use innkeeper_model::access::{
    BYPASS_HEADER, BYPASS_PARAMETER, COOKIE_PREFIX, SHARE_PARAMETER, WIRE_COOKIE,
};

/// Matches the start of a header `Authorization` with a token of ours.
pub(super) const TOKEN: &str = r"(?i)^\s*bearer\s+i[kg]_";

/// Renders the options of a proxy that remove our secrets from a request to an app. A replacement without a group is empty.
pub(super) fn removed() -> String {
    format!(
        "\
	header_up Cookie `(?i)(^\\s*|;\\s*)(?:{ours}\\s*=[^;]*(?:;\\s*|$))+` $1
	header_up Cookie `^(.*?)[;\\s]+$` $1
	header_up Authorization `{TOKEN}.*$` $1
	header_up -{BYPASS_HEADER}
",
        ours = cookies(),
    )
}

/// Returns a regular expression for the names of our cookies.
pub(super) fn cookies() -> String {
    format!("(?:{COOKIE_PREFIX}[^=;]*|{WIRE_COOKIE})")
}

/// Returns a regular expression for the names of our parameters.
pub(super) fn parameters() -> String {
    [SHARE_PARAMETER, BYPASS_PARAMETER, WIRE_COOKIE].join("|")
}
