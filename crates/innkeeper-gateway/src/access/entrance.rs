//! The page on the gateway's host to which browsers without a pass are sent: it gives people a one-time code for the host that
//! they came from.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use innkeeper_model::access::TokenId;
use innkeeper_model::preview::Visibility;
use innkeeper_service::server::client_address;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tracing::error;

use super::codes::{Challenge, Ticket};
use super::page::Page;
use super::respond::go;
use super::visit::{Site, Target};
use super::{Access, EXCHANGE, LOGIN, Undecided};
use crate::session;

/// The parameters of the URL.
#[derive(Debug, Deserialize)]
pub(crate) struct Parameters {
    /// The host of the preview.
    host: String,
    /// The page that the visitor wants to see there.
    r#return: String,
    /// The challenge of the browser's cookie there.
    nonce: String,
}

/// The visit that a browser was sent here for.
struct Wanted {
    site: Site,
    host: String,
    target: Target,
    challenge: Challenge,
}

/// Responds to a browser.
pub(crate) async fn enter(
    State(access): State<Arc<Access>>,
    uri: Uri,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Response {
    let wanted = parameters
        .ok()
        .and_then(|Query(sent)| Wanted::parse(&sent, &headers));
    let Some(wanted) = wanted else {
        return Page::Expired.into_response();
    };
    let person = session::of(&headers);
    let person = person.map_or(Ok(None), |token| {
        let accepted = access.credentials.accepts(&token)?;
        Ok(accepted.then_some(token.id()))
    });
    let entered = match person {
        Ok(Some(session)) => {
            access
                .enter(wanted, session, source(&access, &headers))
                .await
        }
        Ok(None) => return login(&uri),
        Err(undecided) => Err(undecided),
    };
    entered.unwrap_or_else(|Undecided| Page::Unavailable.into_response())
}

impl Wanted {
    fn parse(sent: &Parameters, headers: &HeaderMap) -> Option<Self> {
        Some(Self {
            site: site(headers)?,
            host: sent.host.to_ascii_lowercase(),
            target: Target::parse(&sent.r#return)?,
            challenge: Challenge::parse(&sent.nonce)?,
        })
    }
}

impl Access {
    /// Sends a person back with a code.
    async fn enter(
        &self,
        wanted: Wanted,
        session: TokenId,
        source: IpAddr,
    ) -> Result<Response, Undecided> {
        let Wanted {
            site,
            host,
            target,
            challenge,
        } = wanted;
        let table = self.grants.current().ok_or(Undecided)?;
        let Some((slug, preview)) = table.of_host(&host) else {
            return Ok(Page::Refused.into_response());
        };
        let visibility = preview.visibility;
        if visibility == Visibility::Public {
            return Ok(go(&site.url_of(&host, target.as_str()), None));
        }
        if !self.may_see(session, slug, visibility, source).await? {
            return Ok(Page::Refused.into_response());
        }
        let ticket = Ticket {
            slug: slug.clone(),
            host: host.clone(),
            session,
            target,
        };
        match self.codes.issue(ticket, challenge, Instant::now()) {
            Ok(Some(code)) => {
                let path = format!("{EXCHANGE}?code={code}");
                Ok(go(&site.url_of(&host, &path), None))
            }
            Ok(None) => Err(Undecided),
            Err(error) => {
                error!(%error, "cannot create a code");
                Err(Undecided)
            }
        }
    }
}

/// Sends a browser that comes from an OAuth provider back to the app that began the login.
pub(crate) async fn relay(
    State(access): State<Arc<Access>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(table) = access.grants.current() else {
        return Page::Unavailable.into_response();
    };
    let target = uri.path_and_query().map(PathAndQuery::as_str);
    let site = site(&headers).zip(target.and_then(Target::parse));
    let location = site.and_then(|(site, target)| {
        let now = Instant::now();
        access.relay.end(&site, &target, &table, now)
    });
    match location {
        Some(location) => go(&location, None),
        None => Page::Expired.into_response(),
    }
}

/// Returns the gateway's own host, as the browser reached it.
fn site(headers: &HeaderMap) -> Option<Site> {
    let own = headers.get(header::HOST)?.to_str().ok()?;
    let scheme = headers.get("x-forwarded-proto");
    Site::parse(own, scheme.and_then(|value| value.to_str().ok()))
}

/// Sends a browser to log in, and back here.
fn login(uri: &Uri) -> Response {
    let here = uri.path_and_query().map_or("/", |own| own.as_str());
    let here = utf8_percent_encode(here, NON_ALPHANUMERIC);
    go(&format!("{}?return={here}", LOGIN), None)
}

fn source(access: &Access, headers: &HeaderMap) -> IpAddr {
    client_address(headers, &access.proxies).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
