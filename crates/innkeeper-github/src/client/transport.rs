//! HTTP to one server: retries, timeouts, rate limits, redirects.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use innkeeper_model::{Backoff, Secret};
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::RootCertStore;
use tracing::debug;

use super::call::{ApiCall, ApiResponse, Retry};
use super::limit::{Limit, RateLimit, WritePace, limit};
use super::{GithubError, Settings};

/// The version of the API ("API versions").
const API_VERSION: &str = "2022-11-28";
const USER_AGENT: &str = concat!("innkeeper/", env!("CARGO_PKG_VERSION"));
/// The address of GitHub's public API.
const PUBLIC: &str = "https://api.github.com";
/// Renamed repositories redirect once; more redirects are a loop.
const MAX_REDIRECTS: usize = 3;

/// Sends calls to exactly one server.
#[derive(Debug)]
pub(crate) struct Transport {
    base: Base,
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    rate_limit: RateLimit,
    /// `None` for an Enterprise server, which has no secondary limits by default.
    write_pace: Option<WritePace>,
    settings: Settings,
}

/// The API's address, without a slash at the end.
#[derive(Debug)]
struct Base {
    origin: String,
    prefix: String,
}

/// An attempt without a response.
enum AttemptError {
    /// The request was certainly not carried out.
    NotSent(Box<dyn Error + Send + Sync>),
    /// The connection was lost: the request may have been carried out.
    ConnectionLost(Box<dyn Error + Send + Sync>),
    TimedOut,
    /// The response is too long.
    TooLong,
}

impl Transport {
    pub(crate) fn new(settings: Settings) -> Result<Self, GithubError> {
        let base = Base::parse(&settings.base_url)?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&settings)?)
            .https_or_http()
            .enable_http1()
            .build();
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        let is_public = base.origin.eq_ignore_ascii_case(PUBLIC);
        Ok(Self {
            base,
            http,
            rate_limit: RateLimit::default(),
            write_pace: is_public.then(WritePace::default),
            settings,
        })
    }

    /// Sends a call, and retries it after transient failures and rate limits. `None` for a call without authorization.
    pub(crate) async fn send(
        &self,
        call: &ApiCall,
        token: Option<&Secret>,
    ) -> Result<ApiResponse, GithubError> {
        let mut attempt = 1;
        self.wait_for_write_pace(call).await?;
        loop {
            self.wait_for_rate_limit(call).await?;
            let result = self.follow(call, token).await;
            let may_retry = attempt < self.settings.attempts;
            match result {
                Ok(response) => match limit(&response) {
                    Limit::Reached(wait) => {
                        self.rate_limit.block(wait);
                        if !may_retry {
                            return Err(rate_limited(call, wait));
                        }
                    }
                    _ if response.status.is_server_error()
                        && may_retry
                        && call.retry == Retry::Always =>
                    {
                        self.back_off(call, attempt, response.status.as_str()).await;
                    }
                    Limit::Last(wait) => {
                        self.rate_limit.block(wait);
                        return Ok(response);
                    }
                    Limit::None => return Ok(response),
                },
                Err(failed) => {
                    if !may_retry || !failed.may_retry(call.retry) {
                        return Err(failed.into_error(call, self.settings.timeout));
                    }
                    self.back_off(call, attempt, failed.label()).await;
                }
            }
            attempt += 1;
        }
    }

    /// Returns the path and query of a link, relative to the API's base URL. `None` if the link is to another server, which
    /// must not receive the token.
    pub(crate) fn own_path(&self, link: &str) -> Option<String> {
        let path = match link.strip_prefix(&self.base.origin) {
            Some(path) => path,
            None => link,
        };
        let path = path.strip_prefix(&self.base.prefix)?;
        (path.starts_with('/') && !path.starts_with("//")).then(|| path.to_owned())
    }

    /// Waits for a rate limit to reset.
    ///
    /// # Errors
    /// [`GithubError::RateLimited`] if that takes longer than [`Settings::patience`].
    async fn wait_for_rate_limit(&self, call: &ApiCall) -> Result<(), GithubError> {
        while let Some(wait) = self.rate_limit.remaining() {
            if wait > self.settings.patience {
                return Err(rate_limited(call, wait));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Spaces calls that write, except those that only authenticate.
    ///
    /// # Errors
    /// [`GithubError::RateLimited`] if the wait is longer than [`Settings::patience`].
    async fn wait_for_write_pace(&self, call: &ApiCall) -> Result<(), GithubError> {
        let writes = call.method != Method::GET && !call.path.starts_with("/app/");
        let Some(pace) = self.write_pace.as_ref().filter(|_| writes) else {
            return Ok(());
        };
        match pace.reserve(Instant::now(), self.settings.patience) {
            Ok(wait) => tokio::time::sleep(wait).await,
            Err(wait) => return Err(rate_limited(call, wait)),
        }
        Ok(())
    }

    async fn back_off(&self, call: &ApiCall, attempt: u32, reason: &str) {
        let first = self.settings.first_wait;
        let max_wait = Backoff::new(first, first.saturating_mul(1 << 10)).delay(attempt + 1);
        // Half of it is random, so that clients do not retry simultaneously.
        let wait = max_wait / 2 + max_wait.mul_f64(random_fraction() / 2.0);
        debug!(call = %call.name, attempt, reason, ?wait, "retrying a call of GitHub's API");
        tokio::time::sleep(wait).await;
    }

    /// Makes one attempt and follows its redirects. Beyond the maximum, the redirect itself is the response.
    async fn follow(
        &self,
        call: &ApiCall,
        token: Option<&Secret>,
    ) -> Result<ApiResponse, AttemptError> {
        let mut path = call.path.clone();
        let mut redirects = 0;
        loop {
            let exchange = self.exchange(call, &path, token);
            let response = tokio::time::timeout(self.settings.timeout, exchange)
                .await
                .map_err(|_| AttemptError::TimedOut)??;
            match self.redirect(call, &response) {
                Some(target) if redirects < MAX_REDIRECTS => path = target,
                _ => return Ok(response),
            }
            redirects += 1;
        }
    }

    /// Returns the target of a redirect, if it is on this server. Only 307 and 308 preserve methods other than GET (RFC 9110,
    /// section 15.4).
    fn redirect(&self, call: &ApiCall, response: &ApiResponse) -> Option<String> {
        let keeps = matches!(
            response.status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let follows = response.status.is_redirection() && (keeps || call.method == Method::GET);
        let target = response.header(header::LOCATION).filter(|_| follows)?;
        self.own_path(target)
    }

    async fn exchange(
        &self,
        call: &ApiCall,
        path: &str,
        token: Option<&Secret>,
    ) -> Result<ApiResponse, AttemptError> {
        let request = self.request(call, path, token)?;
        let response = self.http.request(request).await.map_err(|error| {
            if error.is_connect() {
                AttemptError::NotSent(error.into())
            } else {
                AttemptError::ConnectionLost(error.into())
            }
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, call.limit).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                AttemptError::TooLong
            } else {
                AttemptError::ConnectionLost(error)
            }
        })?;
        Ok(ApiResponse {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    fn request(
        &self,
        call: &ApiCall,
        path: &str,
        token: Option<&Secret>,
    ) -> Result<Request<Full<Bytes>>, AttemptError> {
        let not_sent = |error: hyper::http::Error| AttemptError::NotSent(error.into());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}{path}", self.base.origin, self.base.prefix))
            .header(header::ACCEPT, call.accept)
            .header(header::USER_AGENT, USER_AGENT)
            .header("x-github-api-version", API_VERSION);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, bearer(token)?);
        }
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(call.body.clone())).map_err(not_sent)
    }
}

/// Returns the header of a token.
fn bearer(token: &Secret) -> Result<HeaderValue, AttemptError> {
    let bearer = Secret::new(format!("Bearer {}", token.expose()));
    let mut bearer = HeaderValue::from_str(bearer.expose())
        .map_err(|_| AttemptError::NotSent("the token has an invalid character".into()))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

impl AttemptError {
    fn may_retry(&self, retry: Retry) -> bool {
        match self {
            Self::NotSent(_) => true,
            Self::ConnectionLost(_) | Self::TimedOut => retry == Retry::Always,
            Self::TooLong => false,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not sent",
            Self::ConnectionLost(_) => "connection lost",
            Self::TimedOut => "timed out",
            Self::TooLong => "too long",
        }
    }

    fn into_error(self, call: &ApiCall, timeout: Duration) -> GithubError {
        let name = call.name.clone();
        match self {
            Self::NotSent(source) | Self::ConnectionLost(source) => {
                GithubError::Unreachable { call: name, source }
            }
            Self::TimedOut => GithubError::TimedOut {
                call: name,
                limit: timeout,
            },
            Self::TooLong => GithubError::TooLong {
                call: name,
                limit: call.limit,
            },
        }
    }
}

impl Base {
    fn parse(text: &str) -> Result<Self, GithubError> {
        let refuse = |reason| {
            // The part before an `@` may be a password.
            let shown = match text.rsplit_once('@') {
                Some((_, rest)) => format!("…@{rest}"),
                None => text.to_owned(),
            };
            Err(GithubError::Address { url: shown, reason })
        };
        let Ok(uri) = text.trim_end_matches('/').parse::<Uri>() else {
            return refuse("it is not a URL");
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refuse("it does not start with https://");
        };
        if authority.as_str().contains('@') {
            return refuse("it contains a user name");
        }
        if uri.query().is_some() {
            return refuse("it has a query");
        }
        match scheme {
            "https" => {}
            // Tokens are sent encrypted, except on the loopback.
            "http" if is_loopback(authority.host()) => {}
            "http" => return refuse("http:// is only allowed for this machine"),
            _ => return refuse("it does not start with https://"),
        }
        Ok(Self {
            origin: format!("{scheme}://{authority}"),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn rate_limited(call: &ApiCall, wait: Duration) -> GithubError {
    let now = Timestamp::now();
    GithubError::RateLimited {
        call: call.name.clone(),
        retry_at: now.checked_add(wait).unwrap_or(now),
    }
}

/// Returns a random number from 0 to 1; 0.5 if the kernel has no randomness.
fn random_fraction() -> f64 {
    let mut bytes = [0; 2];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}

/// Configures TLS with the system's certificate authorities and those of the settings.
fn tls(settings: &Settings) -> Result<rustls::ClientConfig, GithubError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = &settings.extra_certificates {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let failed = |error: rustls::pki_types::pem::Error| {
            GithubError::Certificates(format!("{}: {error}", path.display()).into())
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            let certificate = certificate.map_err(failed)?;
            roots
                .add(certificate)
                .map_err(|error| GithubError::Certificates(error.into()))?;
        }
    }
    // Required only for TLS: the demo runs on machines without any.
    if roots.is_empty() && settings.base_url.starts_with("https") {
        let error = found.errors.into_iter().next();
        return Err(GithubError::Certificates(error.map_or_else(
            || "the system has no certificates".into(),
            Into::into,
        )));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| GithubError::Certificates(error.into()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_is_https_or_on_this_machine() {
        for good in [
            "https://api.github.com",
            "https://ghe.example.org/api/v3/",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "http://localhost:1/",
        ] {
            assert!(Base::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.github.com",
            "http://api.github.com",
            "http://127.0.0.1.example.org",
            "ftp://api.github.com",
            "https://api.github.com?x=1",
            "https://user:hunter2@api.github.com",
        ] {
            let error = Base::parse(bad).expect_err(bad).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn own_path_rejects_links_to_other_servers() {
        let transport = |base: &str| {
            let settings = Settings {
                base_url: base.to_owned(),
                ..Settings::default()
            };
            Transport::new(settings).expect("valid")
        };
        let local = transport("http://127.0.0.1:9/api/v3/");
        for (link, path) in [
            (
                "http://127.0.0.1:9/api/v3/repos?page=2",
                Some("/repos?page=2"),
            ),
            ("/api/v3/repos", Some("/repos")),
            ("http://127.0.0.1:99/api/v3/repos", None),
            ("http://127.0.0.1:9@evil.example/api/v3/repos", None),
            ("https://127.0.0.1:9/api/v3/repos", None),
            ("//evil.example/api/v3/repos", None),
            ("/api/v3//evil.example", None),
            ("/api/v3", None),
            ("http://127.0.0.1:9/other", None),
        ] {
            assert_eq!(local.own_path(link).as_deref(), path, "{link}");
        }
    }
}
