//! From a request to its response.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

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
use ipnet::IpNet;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::assets::{self, RESERVED};
use crate::config::Config;
use crate::hold::{Held, Holds};
use crate::status::Statuses;
use crate::visitors::{Visitors, visitor};
use crate::{events, page, text};

/// Header with the preview's slug, after a `/`, which Caddy adds.
const PREVIEW: &str = "x-innkeeper-preview";

/// Header with the app that a request waits for, which Caddy adds instead: `/<slug>,<address>,<port>,<port>`.
const HOLD: &str = "x-innkeeper-hold";

/// Header of all responses of this program, by which the page's script tells them from the app's.
const PAGE: HeaderName = HeaderName::from_static("x-innkeeper-page");

/// Retry interval for programs, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("3");

/// Only this program's own files, no inline code, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// State that all requests share.
#[derive(Clone)]
pub(crate) struct Context {
    statuses: Statuses,
    visitors: Visitors,
    holds: Holds,
    /// The servers in front of Caddy.
    proxies: Arc<[IpNet]>,
    closing: Arc<watch::Sender<bool>>,
}

impl Context {
    pub(crate) fn new(config: &Config) -> Self {
        let settings = &config.pages;
        Self {
            statuses: Statuses::new(&settings.directory),
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
        Some(Ok((slug, ports))) => respond_for(&context, &slug, &ports, &request).await,
        Some(Err((slug, _))) => respond_for(&context, &slug, &[], &request).await,
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
async fn respond_for(
    context: &Context,
    slug: &GuestName,
    ports: &[SocketAddrV4],
    request: &Parts,
) -> Response {
    let headers = &request.headers;
    let visitor = visitor(headers, &context.proxies);
    match request.uri.path().strip_prefix(RESERVED) {
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
    // 204 means for Caddy that the app accepts connections. No other response has this status.
    if !ports.is_empty() && context.holds.wait(ports, visitor).await == Held::Ready {
        return StatusCode::NO_CONTENT.into_response();
    }
    let status = context.statuses.read(slug).await;
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
    response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
    response
}

/// Parses an app: its preview and its ports. The preview alone is valid, too.
fn parse_app(value: &HeaderValue) -> Option<(GuestName, Vec<SocketAddrV4>)> {
    let mut parts = value.to_str().ok()?.trim_start_matches('/').split(',');
    let slug = GuestName::parse(parts.next()?).ok()?;
    let Some(address) = parts.next() else {
        return Some((slug, Vec::new()));
    };
    let address: Ipv4Addr = address.parse().ok()?;
    let ports: Result<Vec<u16>, _> = parts.map(str::parse).collect();
    let ports = ports.ok()?.into_iter();
    let ports = ports.map(|port| SocketAddrV4::new(address, port));
    Some((slug, ports.collect()))
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
