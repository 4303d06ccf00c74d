//! The pages on which a person lets a machine log in.

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use innkeeper_service::subscriber;
use maud::{Markup, html};

use super::PATH;
use super::code::UserCode;
use super::requests::Shown;
use crate::login::page::document;

/// A page.
pub(super) enum DevicePage {
    /// The form for the code that the machine shows.
    Enter {
        csrf: String,
        /// The code of the URL.
        code: Option<UserCode>,
        /// The code that the person entered is not valid.
        is_wrong: bool,
    },
    /// The request, with buttons for the decision.
    Decide {
        csrf: String,
        code: UserCode,
        request: Shown,
        login: String,
        role: &'static str,
        /// The address of the browser.
        source: IpAddr,
    },
    /// The person allowed the request.
    Allowed { request: Shown },
    /// The person refused the request.
    Refused,
}

impl DevicePage {
    fn title(&self) -> &'static str {
        match self {
            Self::Enter { .. } => "Log in a machine",
            Self::Decide { .. } => "Let this machine log in?",
            Self::Allowed { .. } => "The machine may log in",
            Self::Refused => "The machine may not log in",
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Enter { is_wrong: true, .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        }
    }

    fn content(&self) -> Markup {
        match self {
            Self::Enter {
                csrf,
                code,
                is_wrong,
            } => enter(csrf, *code, *is_wrong),
            Self::Decide {
                csrf,
                code,
                request,
                login,
                role,
                source,
            } => html! {
                p { "A machine requests to use this host as " strong { (login) } ", with the role " (role) "." }
                (facts(*code, request, *source))
                p {
                    "Allow it only if you have just run " code { "innkeeper login" }
                    " on that machine, and it shows this code. Otherwise somebody else could use this host in your name."
                }
                form method="post" action=(PATH) {
                    input type="hidden" name="csrf" value=(csrf);
                    input type="hidden" name="user_code" value=(code);
                    button name="decision" value="allow" { "Allow" }
                    " "
                    button name="decision" value="refuse" { "Refuse" }
                }
            },
            Self::Allowed { request } => html! {
                p {
                    strong { (request.machine.as_str()) }
                    " gets a session within some seconds. " code { "innkeeper logout" } " on that machine ends it."
                }
                p { "You can close this page." }
            },
            Self::Refused => html! {
                p { "It gets no session. You can close this page." }
            },
        }
    }
}

fn enter(csrf: &str, code: Option<UserCode>, is_wrong: bool) -> Markup {
    html! {
        @if is_wrong {
            p #problem role="alert" {
                "No machine waits with this code. Codes are valid for ten minutes, and once. Compare it with the one on the machine, or run "
                code { "innkeeper login" } " there again."
            }
        }
        form method="post" action=(PATH) {
            input type="hidden" name="csrf" value=(csrf);
            p {
                label for="code" { "The code that " code { "innkeeper login" } " shows:" }
            }
            p {
                input #code .code name="user_code" value=[code] required autofocus maxlength="20" size="10"
                    autocomplete="off" autocapitalize="characters" spellcheck="false"
                    aria-describedby=[is_wrong.then_some("problem")];
                " "
                button { "Continue" }
            }
        }
    }
}

/// Returns what is known of a machine: its own statements, and the address that the gateway saw.
fn facts(code: UserCode, request: &Shown, source: IpAddr) -> Markup {
    let is_same = subscriber(request.source) == subscriber(source);
    html! {
        dl {
            dt { "Code" }
            dd .code { (code) }
            dt { "Machine" }
            dd { (request.machine.as_str()) }
            dt { "Address" }
            dd {
                (request.source.to_canonical()) ", "
                @if is_same { "which is this browser's too" } @else { "which is not this browser's" }
            }
        }
    }
}

impl IntoResponse for DevicePage {
    fn into_response(self) -> Response {
        document(self.status(), self.title(), &self.content())
    }
}
