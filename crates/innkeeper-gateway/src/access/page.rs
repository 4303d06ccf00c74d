//! Pages of the gateway for visitors of previews. No text of a stranger is on them.

use std::sync::LazyLock;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::headers::protect;

/// The style of all pages.
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem}h1{font-size:1.25rem}";

/// The rule for browsers: these pages load nothing, and no other page embeds them.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// The visitor has no access, and cannot log in here.
    Unauthorized,
    /// A share link, a bypass token or a code is not valid.
    Expired,
    /// A person may not see the preview, or it does not exist.
    Refused,
    /// The rights of visitors are not known.
    Unavailable,
}

impl Page {
    const fn status(self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Expired | Self::Refused => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Unauthorized => "This preview is not public",
            Self::Expired => "This link is not valid any more",
            Self::Refused => "No access to this preview",
            Self::Unavailable => "This preview cannot be checked now",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Unauthorized => {
                "Open it with a share link. Members of its team create one with `preview share`."
            }
            Self::Expired => "The link has expired, was revoked, or was opened in another browser.",
            Self::Refused => {
                "It does not exist, or your account at GitHub cannot read its repository. A right that you received a moment ago applies within a minute."
            }
            Self::Unavailable => {
                "Innkeeper does not respond on this host. Try again in a moment: it may be restarting."
            }
        }
    }

    /// Reports whether the start page of the host is worth another try.
    const fn has_start(self) -> bool {
        matches!(self, Self::Expired)
    }

    fn markup(self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="robots" content="noindex";
                    title { (self.title()) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (self.title()) }
                    p { (self.text()) }
                    @if self.has_start() {
                        p { a href="/" { "Open the preview" } }
                    }
                }
            }
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let text = self.markup().into_string();
        let mut response = (self.status(), text).into_response();
        let headers = response.headers_mut();
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, html);
        if let Ok(policy) = HeaderValue::try_from(POLICY.as_str()) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        let referrer = HeaderValue::from_static("no-referrer");
        headers.insert(header::REFERRER_POLICY, referrer);
        if self == Self::Unavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        protect(headers);
        response
    }
}
