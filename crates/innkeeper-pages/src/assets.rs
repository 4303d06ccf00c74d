//! Files that pages refer to. Their URLs contain a hash, so browsers may keep them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

/// Prefix of the paths that belong to this program while a preview is not live.
pub(crate) const RESERVED: &str = "/.innkeeper/";

const STYLE: &str = include_str!("../assets/page.css");
const SCRIPT: &str = include_str!("../assets/page.js");
const ICON: &str = include_str!("../assets/icon.svg");

/// Hash over all files.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for file in [STYLE, SCRIPT, ICON] {
        hash.update(file);
        hash.update([0]);
    }
    let mut version = String::new();
    for byte in &hash.finalize()[..6] {
        // Writing into a String cannot fail.
        write!(version, "{byte:02x}").ok();
    }
    version
});

/// Returns the URL of a file.
pub(crate) fn url(name: &str) -> String {
    format!("{RESERVED}{name}?{}", *VERSION)
}

/// Returns the response with a file, by the rest of its path after [`RESERVED`].
pub(crate) fn response(name: &str) -> Option<Response> {
    let (kind, contents) = match name {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return None,
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "public, max-age=604800"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Some((headers, contents).into_response())
}
