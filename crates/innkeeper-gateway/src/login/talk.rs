//! The calls of innkeeperd that logins and sessions need.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use innkeeper_model::Failure;
use innkeeper_model::access::{
    Actor, BeginLogin, CreateDeviceSession, CreatedSession, FinishLogin, LoginPage, SessionView,
    TokenRecord, TokenText,
};
use innkeeper_service::server::client_address;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::seed::Seed;
use super::unavailable;
use crate::headers;
use crate::receive::Context;
use crate::refuse::Refusal;

/// The maximum length of innkeeperd's response, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

impl Context {
    /// Returns the address of a request's client. Only Caddy and root can connect, so a request without it is root's.
    pub(crate) fn source(&self, headers: &HeaderMap) -> IpAddr {
        client_address(headers, &self.proxies).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Refuses a login from an address with too many failures.
    pub(super) fn admit_login(&self, source: IpAddr) -> Result<(), Refusal> {
        match self.credentials.wait(source, Instant::now()) {
            Some(wait) => Err(Refusal::TooManyFailures(wait)),
            None => Ok(()),
        }
    }

    /// Counts a login that failed, as a request without a valid token.
    pub(super) fn count_failed_login(&self, source: IpAddr) {
        self.deny(source);
    }

    pub(super) async fn begin_login(
        &self,
        seed: &Seed,
        source: IpAddr,
    ) -> Result<LoginPage, Failure> {
        let request = BeginLogin {
            state: seed.state(),
            challenge: seed.challenge(),
        };
        let headers = headers::of_gateway(source);
        self.call(Method::POST, "/v1/logins", headers, Some(&request))
            .await
    }

    pub(super) async fn finish_login(
        &self,
        seed: &Seed,
        code: String,
        source: IpAddr,
    ) -> Result<CreatedSession, Failure> {
        let request = FinishLogin {
            code,
            verifier: seed.verifier(),
        };
        let headers = headers::of_gateway(source);
        self.call(Method::POST, "/v1/sessions", headers, Some(&request))
            .await
    }

    pub(super) async fn session_view(
        &self,
        session: &TokenText,
        source: IpAddr,
    ) -> Result<SessionView, Failure> {
        let actor = Actor::Token(session.id());
        let headers = headers::of_request(HeaderMap::new(), &actor, source);
        self.call(Method::GET, "/v1/session", headers, None::<&()>)
            .await
    }

    pub(super) async fn end_session(
        &self,
        actor: &Actor,
        source: IpAddr,
    ) -> Result<TokenRecord, Failure> {
        let headers = headers::of_request(HeaderMap::new(), actor, source);
        self.call(Method::DELETE, "/v1/session", headers, None::<&()>)
            .await
    }

    /// Creates the session of a machine on behalf of a person's session in a browser.
    pub(super) async fn device_session(
        &self,
        machine: &str,
        actor: &Actor,
        source: IpAddr,
    ) -> Result<CreatedSession, Failure> {
        let request = CreateDeviceSession {
            machine: machine.to_owned(),
        };
        let headers = headers::of_request(HeaderMap::new(), actor, source);
        let path = "/v1/sessions/device";
        self.call(Method::POST, path, headers, Some(&request)).await
    }

    /// Makes a call, within the limits of its client's address, and parses its response.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &'static str,
        headers: HeaderMap,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let source = headers.get(innkeeper_model::access::SOURCE_HEADER);
        let source = source.and_then(|value| value.to_str().ok()?.parse().ok());
        let _slot = source
            .and_then(|source| self.slot(source))
            .ok_or_else(unavailable)?;
        let body = match body {
            Some(body) => Body::from(serde_json::to_vec(body).map_err(|_| unavailable())?),
            None => Body::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = axum::http::Uri::from_static(path);
        *request.headers_mut() = headers;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let response = self.daemon.request(request).await;
        let response = response.map_err(|_| unavailable())?;
        let is_success = response.status().is_success();
        let body = Limited::new(response.into_body(), MAX_LENGTH).collect();
        let body = body.await.map_err(|_| unavailable())?.to_bytes();
        match is_success {
            true => serde_json::from_slice(&body).map_err(|_| unavailable()),
            false => {
                let failure = serde_json::from_slice(&body);
                Err(failure.unwrap_or_else(|_| unavailable()))
            }
        }
    }
}
