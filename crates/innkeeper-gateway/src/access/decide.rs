//! The decision about a visitor's request: it passes, or the visitor gets another response.
//!
//! | the request has | it passes if |
//! | --- | --- |
//! | `Authorization: Bearer ig_…` or `X-Innkeeper-Bypass` | that is a bypass token of this preview |
//! | `Authorization: Bearer ik_…` | never: that is a token of the API |
//! | `innkeeper_share` or `innkeeper_bypass` in its query | it is exchanged for a pass first |
//! | a pass | its session or grant is still valid, and the person may still see the preview |
//! | `sandbox_preview` | another program signed it for this host |
//!
//! A cookie does not count in a request that a page of another host caused, unless a browser opens a page: previews share a
//! domain, so a hostile one could use the passes of its visitors otherwise, such as for a WebSocket to another preview.
//!
//! A browser without any of these is sent to log in; other clients get 401.

use std::net::IpAddr;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use innkeeper_model::access::{
    BYPASS_HEADER, BYPASS_PARAMETER, GrantKind, GrantText, SHARE_PARAMETER,
};
use innkeeper_model::preview::Visibility;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::codes::{self, Challenge};
use super::cookies;
use super::grants::{Preview, Table};
use super::pass::{self, Holder, SandboxVisitor};
use super::relay::{self, Origin, RelayProblem};
use super::visit::{Target, Visit};
use super::{Access, ENTRANCE, EXCHANGE, Undecided};
use crate::credentials::bearer_of;
use crate::metrics::Visited;
use crate::session;

/// The header with a bypass token, for programs whose `Authorization` is the app's.
const BYPASS: HeaderName = HeaderName::from_static(BYPASS_HEADER);

/// The headers of browsers with the relation of a request to the page that caused it, and its purpose.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The prefix of tokens of the API.
const API_PREFIX: &str = "ik_";

/// The maximum length of a page's path and query that a browser returns to after a login.
const MAX_RETURN: usize = 2048;

/// The lifetime of the cookie from before a login, in seconds.
const NONCE_LIFETIME: u64 = 600;

/// The response to a visitor's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request passes, with the name of another program's visitor.
    Pass(Option<HeaderValue>),
    /// The browser goes elsewhere, with a cookie.
    Go {
        location: String,
        cookie: Option<HeaderValue>,
        /// True if it is sent to log in.
        is_login: bool,
    },
    /// The request has nothing that lets it pass.
    Unauthorized,
    /// Its share link, bypass token or code is not valid (any longer). A browser gets a page.
    Expired,
    /// A login at another provider cannot begin.
    NoRelay(RelayProblem),
    /// It is not what Caddy sends.
    Invalid,
    /// The rights of visitors are not known.
    Unavailable,
}

impl Verdict {
    /// Returns the name of its metric.
    pub(crate) const fn metric(&self) -> Visited {
        match self {
            Self::Pass(_) => Visited::Passed,
            Self::Go { is_login: true, .. } => Visited::Login,
            Self::Go { .. } => Visited::Redirected,
            Self::Unauthorized | Self::Expired | Self::Invalid | Self::NoRelay(_) => {
                Visited::Refused
            }
            Self::Unavailable => Visited::Unavailable,
        }
    }
}

impl From<Undecided> for Verdict {
    fn from(_: Undecided) -> Self {
        Self::Unavailable
    }
}

/// A request with what is known about its preview.
struct Case<'a> {
    access: &'a Access,
    table: &'a Table,
    preview: &'a Preview,
    visit: &'a Visit,
    headers: &'a HeaderMap,
    source: IpAddr,
}

/// Decides about a request, as Caddy describes it in headers. `source` is the visitor's address.
pub(crate) async fn decide(access: &Access, headers: &HeaderMap, source: IpAddr) -> Verdict {
    let Some(visit) = Visit::parse(headers) else {
        return Verdict::Invalid;
    };
    let Some(table) = access.grants.current() else {
        return Verdict::Unavailable;
    };
    let Some(preview) = table.preview(&visit.slug, &visit.site.host) else {
        return Verdict::Unavailable;
    };
    if preview.visibility == Visibility::Public {
        return Verdict::Pass(None);
    }
    let case = Case {
        access,
        table: &table,
        preview,
        visit: &visit,
        headers,
        source,
    };
    match case.decide().await {
        Ok(Verdict::Pass(_)) if visit.target.path() == relay::START => case.begin_login(),
        Ok(verdict) => verdict,
        Err(undecided) => undecided.into(),
    }
}

impl Case<'_> {
    async fn decide(&self) -> Result<Verdict, Undecided> {
        if let Some(verdict) = self.by_token() {
            return Ok(verdict);
        }
        if self.visit.target.path() == EXCHANGE {
            return self.exchange().await;
        }
        if let Some(verdict) = self.by_parameter().await? {
            return Ok(verdict);
        }
        if let Some(visitor) = self.sandbox_cookie() {
            return Ok(Verdict::Pass(HeaderValue::try_from(visitor.subject).ok()));
        }
        match self.has_pass().await? {
            true => Ok(Verdict::Pass(None)),
            false => Ok(self.login().unwrap_or(Verdict::Unauthorized)),
        }
    }

    /// Decides about a program's request. `None` for one without a token of ours.
    fn by_token(&self) -> Option<Verdict> {
        let mut tokens = Vec::new();
        for value in self.headers.get_all(header::AUTHORIZATION) {
            let text = bearer_of(value);
            let is_own = |text: &&str| {
                [API_PREFIX, GrantText::PREFIX]
                    .iter()
                    .any(|own| text.starts_with(own))
            };
            tokens.extend(text.filter(is_own));
        }
        let fields = self.headers.get_all(BYPASS).iter();
        tokens.extend(fields.map(|value| value.to_str().unwrap_or_default().trim()));
        match tokens.as_slice() {
            [] => None,
            [token] if self.headers.get_all(header::AUTHORIZATION).iter().count() <= 1 => {
                let grant = self.table.find(token, GrantKind::Bypass, &self.visit.slug);
                let passed = grant.map(|_| Verdict::Pass(None));
                Some(passed.unwrap_or(Verdict::Unauthorized))
            }
            _ => Some(Verdict::Unauthorized),
        }
    }

    /// Exchanges a parameter for a cookie. `None` for a request without one, or that cannot be repeated.
    async fn by_parameter(&self) -> Result<Option<Verdict>, Undecided> {
        let Visit { target, method, .. } = self.visit;
        let is_safe = *method == Method::GET || *method == Method::HEAD;
        if !is_safe || self.visit.is_upgrade {
            return Ok(None);
        }
        let mut names = vec![SHARE_PARAMETER, BYPASS_PARAMETER];
        names.extend(self.access.sandbox_key().map(|_| cookies::SANDBOX));
        let rest = target.without(&names);
        if rest == *target {
            return Ok(None);
        }
        let location = self.visit.site.url(rest.as_str());
        let cookie = self
            .grant_of_parameter()
            .or_else(|| self.sandbox_of_parameter());
        if cookie.is_none() && self.sandbox_cookie().is_none() && !self.has_pass().await? {
            return Ok(Some(Verdict::Expired));
        }
        Ok(Some(Verdict::Go {
            location,
            cookie,
            is_login: false,
        }))
    }

    /// Returns the pass for a share link or a bypass token in the query.
    fn grant_of_parameter(&self) -> Option<HeaderValue> {
        let find = |name, kind| {
            let text = self.visit.target.parameter(name)?;
            self.table.find(&text, kind, &self.visit.slug)
        };
        let grant = find(SHARE_PARAMETER, GrantKind::Share)
            .or_else(|| find(BYPASS_PARAMETER, GrantKind::Bypass))?;
        self.pass(Holder::Grant(grant))
    }

    fn sandbox_of_parameter(&self) -> Option<HeaderValue> {
        let text = self.visit.target.parameter(cookies::SANDBOX)?;
        let SandboxVisitor { seconds, .. } = self.sandbox_visitor(&text)?;
        cookies::embedded(cookies::SANDBOX, &text, seconds)
    }

    /// Reports whether a page of another host caused the request, which is not to open a page.
    fn is_foreign(&self) -> bool {
        let field = |name: HeaderName| self.headers.get(name);
        let is = |text: &str, own: &str| text == own || text.starts_with(&format!("{own}/"));
        let is_own = |value: &HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            let mut hosts = self.preview.hosts.iter();
            hosts.any(|host| is(text, &self.visit.site.url_of(host, "")))
        };
        if let Some(origin) = field(header::ORIGIN) {
            return !is_own(origin);
        }
        let is_elsewhere = |value: &HeaderValue| value == "same-site" || value == "cross-site";
        let is_opened = field(FETCH_MODE).is_some_and(|mode| mode == "navigate");
        field(FETCH_SITE).is_some_and(is_elsewhere)
            && !is_opened
            && !field(header::REFERER).is_some_and(is_own)
    }

    fn sandbox_cookie(&self) -> Option<SandboxVisitor> {
        if self.is_foreign() {
            return None;
        }
        let mut values = cookies::values(self.headers, cookies::SANDBOX);
        values.find_map(|text| self.sandbox_visitor(text))
    }

    fn sandbox_visitor(&self, text: &str) -> Option<SandboxVisitor> {
        let key = self.access.sandbox_key()?;
        pass::sandbox_visitor(&key, &self.visit.site.host, text)
    }

    /// Exchanges a one-time code for a pass.
    async fn exchange(&self) -> Result<Verdict, Undecided> {
        let Visit { target, site, .. } = self.visit;
        let code = target
            .parameter("code")
            .filter(|_| self.visit.method == Method::GET);
        let nonces = cookies::values(self.headers, cookies::NONCE);
        let ticket = code.and_then(|code| {
            let codes = &self.access.codes;
            codes.redeem(&code, &site.host, nonces, Instant::now())
        });
        let ticket = ticket.filter(|ticket| ticket.slug == self.visit.slug);
        if let Some(ticket) = ticket
            && self.is_valid(Holder::Session(ticket.session)).await?
        {
            let cookie = self.pass(Holder::Session(ticket.session));
            let location = site.url(ticket.target.as_str());
            return Ok(Verdict::Go {
                location,
                cookie,
                is_login: false,
            });
        }
        // A visitor who goes back in the browser's history has a pass already.
        match self.has_pass().await? {
            true => Ok(Verdict::Go {
                location: site.url("/"),
                cookie: None,
                is_login: false,
            }),
            false => Ok(Verdict::Expired),
        }
    }

    /// Reports whether the request has a valid pass.
    async fn has_pass(&self) -> Result<bool, Undecided> {
        if self.is_foreign() {
            return Ok(false);
        }
        for text in cookies::values(self.headers, cookies::PASS) {
            let Visit { slug, site, .. } = self.visit;
            if let Some(holder) = pass::holder(&self.access.key, slug, &site.host, text)
                && self.is_valid(holder).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn is_valid(&self, holder: Holder) -> Result<bool, Undecided> {
        let slug = &self.visit.slug;
        match holder {
            Holder::Grant(id) => Ok(self.table.is_current(id, slug)),
            Holder::Session(id) => {
                let visibility = self.preview.visibility;
                self.access.may_see(id, slug, visibility, self.source).await
            }
        }
    }

    fn pass(&self, holder: Holder) -> Option<HeaderValue> {
        let Visit { slug, site, .. } = self.visit;
        let text = pass::issue(&self.access.key, slug, &site.host, holder)?;
        session::set_cookie(cookies::PASS, &text, pass::LIFETIME)
    }

    /// Sends the browser of a visitor to the page of an OAuth provider.
    fn begin_login(&self) -> Verdict {
        let origin = Origin {
            slug: &self.visit.slug,
            repo: &self.preview.repo,
            is_fork: self.preview.fork,
            site: &self.visit.site,
        };
        let relay = &self.access.relay;
        match relay.begin(&origin, &self.visit.target, Instant::now()) {
            Ok(location) if self.visit.method == Method::GET => Verdict::Go {
                location,
                cookie: None,
                is_login: false,
            },
            Ok(_) => Verdict::Invalid,
            Err(problem) => Verdict::NoRelay(problem),
        }
    }

    /// Sends a browser to the gateway's host. `None` for other clients.
    fn login(&self) -> Option<Verdict> {
        let Visit { site, target, .. } = self.visit;
        let gateway = self.access.host.as_ref();
        let gateway = gateway.filter(|_| self.visit.is_navigation)?;
        let mut known = cookies::values(self.headers, cookies::NONCE);
        let nonce = known
            .find(|nonce| codes::is_nonce(nonce))
            .map(str::to_owned);
        // Other tabs of the browser wait for theirs with the same one.
        let nonce = nonce.map_or_else(|| codes::nonce().ok(), Some)?;
        let root = Target::root();
        let target = match target.as_str().len() {
            ..=MAX_RETURN => target,
            _ => &root,
        };
        let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let path = format!(
            "{ENTRANCE}?host={}&return={}&nonce={}",
            encode(&site.host),
            encode(target.as_str()),
            Challenge::of(&nonce).as_str()
        );
        Some(Verdict::Go {
            location: site.url_of(gateway, &path),
            cookie: session::set_cookie(cookies::NONCE, &nonce, NONCE_LIFETIME),
            is_login: true,
        })
    }
}
