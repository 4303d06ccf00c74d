//! From a request to its response.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use innkeeper_model::GuestName;
use innkeeper_model::preview::PreviewState;
use innkeeper_service::server::client_address;
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::assets::{self, RESERVED};
use crate::bots::is_bot;
use crate::config::Config;
use crate::hold::{App, Held, Holds};
use crate::status::{Latest, Statuses};
use crate::visitors::Visitors;
use crate::wake::{self, Wakes};
use crate::{events, page, text};

/// Header with the preview's slug, after a `/`, which Caddy adds.
const PREVIEW: &str = "x-innkeeper-preview";

/// Header with the app that a request waits for, which Caddy adds instead: `/<slug>,<address>,<port>,<port>`.
const HOLD: &str = "x-innkeeper-hold";

/// Prefix of the paths of subrequests, which Caddy adds.
const SUBREQUEST: &str = "/.innkeeper-hold";

/// Header with the method of a request that waits: Caddy sends GET in its place.
const METHOD: &str = "x-forwarded-method";

/// Header of all responses of this program, by which the page's script tells them from the app's.
const PAGE: HeaderName = HeaderName::from_static("x-innkeeper-page");

/// Retry interval for programs, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("3");

/// The same for crawlers, which wake nothing.
const RETRY_SECONDS_OF_BOTS: HeaderValue = HeaderValue::from_static("3600");

/// Only this program's own files, no inline code, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// State that all requests share.
#[derive(Clone)]
pub(crate) struct Context {
    statuses: Statuses,
    visitors: Visitors,
    holds: Holds,
    wakes: Wakes,
    /// The time after which a person gets the page of a preview that is being woken.
    page_after: Duration,
    /// The time after which a program gets no response from a preview that is being woken.
    wake_timeout: Duration,
    wakes_for_bots: bool,
    /// The servers in front of Caddy.
    proxies: Arc<[IpNet]>,
    closing: Arc<watch::Sender<bool>>,
}

impl Context {
    pub(crate) fn new(config: &Config) -> Self {
        let settings = &config.pages;
        let statuses = Statuses::new(&settings.directory);
        let daemon = settings.wake_socket(&config.runtime_dir);
        Self {
            wakes: Wakes::new(settings, daemon, statuses.clone()),
            page_after: Duration::from_secs(settings.wake_page_seconds),
            wake_timeout: Duration::from_secs(settings.wake_timeout_seconds),
            wakes_for_bots: settings.wake_for_bots,
            statuses,
            visitors: Visitors::new(settings),
            holds: Holds::new(settings, config.network.subnet),
            proxies: config.caddy.trusted_proxies.as_slice().into(),
            closing: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Returns the flag that ends live logs.
    pub(crate) fn closing(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.closing)
    }
}

/// Returns the service for all requests.
pub(crate) fn router(context: Context) -> Router {
    Router::new().fallback(respond).with_state(context)
}

async fn respond(State(context): State<Context>, request: Request) -> Response {
    let (request, _) = request.into_parts();
    let header = |name| request.headers.get(name).and_then(parse_app);
    let mut response = match header(HOLD).map(Ok).or_else(|| header(PREVIEW).map(Err)) {
        None => refuse(
            StatusCode::BAD_REQUEST,
            "the header X-Innkeeper-Preview is missing\n",
        ),
        Some(Ok(app)) => respond_for(&context, &app, &request).await,
        Some(Err(app)) => {
            let ports = Vec::new();
            respond_for(&context, &App { ports, ..app }, &request).await
        }
    };
    let headers = response.headers_mut();
    headers.insert(PAGE, HeaderValue::from_static("1"));
    headers
        .entry(X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    response
}

/// Responds with a file or the page. With ports, waits for these first.
async fn respond_for(context: &Context, app: &App, request: &Parts) -> Response {
    let slug = &app.slug;
    let headers = &request.headers;
    let visitor = client_address(headers, &context.proxies);
    match path(request).strip_prefix(RESERVED) {
        Some("events") => {
            let Some(slot) = context.visitors.stream_slot(visitor) else {
                let mut refused = refuse(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many live logs; poll the page instead\n",
                );
                refused
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from_static("15"));
                return refused;
            };
            let watched = context.statuses.watch(slug).await;
            let start = events::Start::of(request);
            return events::response(start, watched, context.closing.subscribe(), slot);
        }
        Some(name) => {
            return assets::response(name)
                .unwrap_or_else(|| refuse(StatusCode::NOT_FOUND, "no such file\n"));
        }
        None => {}
    }
    let is_ignored = !context.wakes_for_bots && is_bot(headers, path(request));
    // 204 means for Caddy that the app accepts connections. No other response has this status.
    if wait(context, app, request, visitor, is_ignored).await == Held::Ready {
        return StatusCode::NO_CONTENT.into_response();
    }
    let status = context.statuses.read(slug).await;
    let retry = match is_ignored && wake::concerns(&status) {
        true => RETRY_SECONDS_OF_BOTS,
        false => RETRY_SECONDS,
    };
    let mut response = if accepts_html(headers) {
        let html = page::render(slug, &status, Timestamp::now()).into_string();
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
        ];
        (StatusCode::SERVICE_UNAVAILABLE, headers, html).into_response()
    } else {
        refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            &text::render(slug, &status),
        )
    };
    response.headers_mut().insert(RETRY_AFTER, retry);
    response
}

/// Returns the path that the visitor requests.
fn path(request: &Parts) -> &str {
    let path = request.uri.path();
    let visitors = path.strip_prefix(SUBREQUEST);
    visitors
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

/// Waits until the app of a request accepts connections. Wakes a preview that is asleep.
async fn wait(
    context: &Context,
    app: &App,
    request: &Parts,
    visitor: Option<IpAddr>,
    is_ignored: bool,
) -> Held {
    let status = context.statuses.read(&app.slug).await;
    if is_expired(&status) && !is_ignored {
        context.wakes.request_once(&app.slug);
    }
    if !context.holds.may_wait_for(app) {
        return Held::GivenUp;
    }
    if !wake::concerns(&status) {
        if !is_ignored {
            // After a reboot of the host, a preview that is requested does not wait for its turn.
            context.wakes.request_once(&app.slug);
        }
        return context.holds.wait(app, visitor).await;
    }
    if is_ignored {
        return Held::GivenUp;
    }
    let Some(place) = context.holds.place(visitor) else {
        return Held::GivenUp;
    };
    let limit = match loses_nothing_by_a_page(&request.headers) {
        true => context.page_after,
        false => context.wake_timeout,
    };
    context.wakes.wait(app, limit, place).await
}

/// Reports whether a preview was stopped since nobody used it.
fn is_expired(status: &Latest) -> bool {
    let state = status.as_ref().map(|status| status.state);
    state == Some(PreviewState::Expired)
}

/// Reports whether a request can have a page for its response: a browser opens a URL. The contents of a form would be lost.
fn loses_nothing_by_a_page(headers: &HeaderMap) -> bool {
    let method = headers.get(METHOD).map(HeaderValue::as_bytes);
    accepts_html(headers) && matches!(method, None | Some(b"GET" | b"HEAD"))
}

/// Parses an app: its preview and its ports. The preview alone is valid, too.
fn parse_app(value: &HeaderValue) -> Option<App> {
    let mut parts = value.to_str().ok()?.trim_start_matches('/').split(',');
    let slug = GuestName::parse(parts.next()?).ok()?;
    let Some(address) = parts.next() else {
        let ports = Vec::new();
        return Some(App { slug, ports });
    };
    let address: Ipv4Addr = address.parse().ok()?;
    let ports: Result<Vec<u16>, _> = parts.map(str::parse).collect();
    let ports = ports.ok()?.into_iter();
    let ports = ports.map(|port| SocketAddrV4::new(address, port));
    Some(App {
        slug,
        ports: ports.collect(),
    })
}

fn refuse(status: StatusCode, text: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, headers, text.to_owned()).into_response()
}

/// Reports whether a request comes from a browser that shows a page.
fn accepts_html(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(ACCEPT).iter();
    values.any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}
