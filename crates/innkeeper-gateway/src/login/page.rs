//! The pages of logins. They load nothing, and no other page embeds them.

use std::sync::LazyLock;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use innkeeper_model::Failure;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

/// The style of all pages.
const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1.5rem}h1{font-size:1.25rem}button,input{font:inherit;padding:.4rem 1rem}dt{font-size:.875rem}dd{margin:0 0 .75rem;font-weight:600;overflow-wrap:anywhere}.code{font-family:ui-monospace,monospace;font-size:1.25rem}";

/// The rule for browsers.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
});

/// A page.
pub(super) enum Page {
    /// Who has logged in, with a button to log out.
    LoggedIn {
        login: String,
        role: &'static str,
        csrf: String,
    },
    /// The session has ended.
    LoggedOut,
    /// A login failed.
    Failed {
        status: StatusCode,
        message: String,
        remedy: String,
    },
}

impl Page {
    /// Returns the page of a failure.
    pub(super) fn of(failure: &Failure) -> Self {
        let status = StatusCode::from_u16(failure.code.http_status());
        Self::Failed {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message: failure.message.clone(),
            remedy: failure.remedy.clone().unwrap_or_default(),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::LoggedIn { .. } => "You are logged in",
            Self::LoggedOut => "You are logged out",
            Self::Failed { .. } => "Login",
        }
    }

    fn content(&self) -> Markup {
        match self {
            Self::LoggedIn { login, role, csrf } => html! {
                p { "As " strong { (login) } ", with the role " (role) "." }
                form method="post" action="/logout" {
                    input type="hidden" name="csrf" value=(csrf);
                    button { "Log out" }
                }
                p { a href="/device" { "Let a machine log in" } }
            },
            Self::LoggedOut => html! {
                p { "This browser has no session any more. " a href="/login" { "Log in" } }
            },
            Self::Failed {
                message, remedy, ..
            } => html! {
                p role="alert" { (message) "." }
                p { (remedy) }
                p { a href="/login" { "Log in" } }
            },
        }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Failed { status, .. } => *status,
            _ => StatusCode::OK,
        };
        document(status, self.title(), &self.content())
    }
}

/// Returns the response with a page.
pub(super) fn document(status: StatusCode, title: &str, content: &Markup) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                (content)
            }
        }
    };
    let mut response = (status, markup.into_string()).into_response();
    let headers = response.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, html);
    if let Ok(policy) = HeaderValue::try_from(POLICY.as_str()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    // With `no-referrer`, browsers send `Origin: null` with the forms of these pages (Fetch, section 3.2).
    let referrer = HeaderValue::from_static("same-origin");
    headers.insert(header::REFERRER_POLICY, referrer);
    response
}
