//! A visitor's request, as Caddy describes it to the gateway.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use innkeeper_model::GuestName;
use innkeeper_model::access::ACCESS_HEADER;
use percent_encoding::percent_decode_str;

/// The header with the preview of the request: `/<slug>`, from the table of routes.
const PREVIEW: &str = ACCESS_HEADER;

/// The header with the method.
const METHOD: &str = "x-forwarded-method";

/// The header with the path and the query.
const TARGET: &str = "x-forwarded-uri";

/// The header with the host, and the port where the browser has one.
const HOST: &str = "x-forwarded-host";

/// The header with the scheme.
const SCHEME: &str = "x-forwarded-proto";

/// The header of browsers with the purpose of a request.
const FETCH_MODE: &str = "sec-fetch-mode";

/// A visitor's request.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// The preview.
    pub(crate) slug: GuestName,
    /// Its place on the internet.
    pub(crate) site: Site,
    /// The method.
    pub(crate) method: Method,
    /// The path and the query, as they were sent.
    pub(crate) target: Target,
    /// True if a browser wants to show the response as a page.
    pub(crate) is_navigation: bool,
    /// True if the connection is to switch to another protocol.
    pub(crate) is_upgrade: bool,
}

/// A host, as a browser reached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// The host's name, in lower case.
    pub(crate) host: String,
    /// The port, where it is not that of the scheme.
    pub(crate) port: Option<u16>,
    is_plain: bool,
}

/// A path with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target(String);

impl Visit {
    /// Reads the headers that Caddy sets. `None` when one is missing or occurs twice: no such request is allowed to pass.
    pub(crate) fn parse(headers: &HeaderMap) -> Option<Self> {
        let slug = single(headers, PREVIEW)?.strip_prefix('/')?;
        let method = Method::from_bytes(single(headers, METHOD)?.as_bytes()).ok()?;
        let accepts_pages = headers.get_all(header::ACCEPT).iter().any(is_for_pages);
        let mode = headers.get(FETCH_MODE);
        let is_navigation =
            method == Method::GET && accepts_pages && mode.is_none_or(|mode| mode == "navigate");
        Some(Self {
            slug: GuestName::parse(slug).ok()?,
            site: Site::parse(single(headers, HOST)?, single(headers, SCHEME))?,
            is_navigation,
            is_upgrade: headers.contains_key(header::UPGRADE),
            method,
            target: Target::parse(single(headers, TARGET)?)?,
        })
    }
}

fn is_for_pages(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| text.contains("text/html"))
}

/// Returns the value of a header that occurs once.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    let mut values = headers.get_all(HeaderName::from_static(name)).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

impl Site {
    /// The top-level domain of hosts on the visitor's own machine: browsers accept cookies for HTTPS from them in any case.
    const LOCAL: &str = "localhost";

    /// Parses `<host>` or `<host>:<port>`. `scheme` is that of the connection to Caddy; a server in front of it may have another
    /// one with the browser, so HTTP is assumed on the visitor's own machine only.
    pub(crate) fn parse(authority: &str, scheme: Option<&str>) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (authority, None),
        };
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(is_valid) {
            return None;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let is_local = host.rsplit('.').next() == Some(Self::LOCAL);
        Some(Self {
            is_plain: is_local && scheme == Some("http"),
            host,
            port,
        })
    }

    /// Returns the URL of a path that begins with `/`, on this host.
    pub(crate) fn url(&self, path: &str) -> String {
        self.url_of(&self.host, path)
    }

    /// Returns the URL of a path that begins with `/`, on another host that this one's web server serves on the same port.
    pub(crate) fn url_of(&self, host: &str, path: &str) -> String {
        let scheme = if self.is_plain { "http" } else { "https" };
        match self.port {
            Some(port) => format!("{scheme}://{host}:{port}{path}"),
            None => format!("{scheme}://{host}{path}"),
        }
    }
}

impl Target {
    /// The maximum length, in bytes.
    const MAX_LENGTH: usize = 16 * 1024;

    /// Parses a path with its query: visible ASCII characters, the first one `/`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_visible = text.bytes().all(|b| b.is_ascii_graphic());
        let is_target = text.starts_with('/') && text.len() <= Self::MAX_LENGTH && is_visible;
        let uri: Uri = is_target.then(|| text.parse().ok()).flatten()?;
        Some(Self(uri.path_and_query()?.as_str().to_owned()))
    }

    /// Returns the path of the host's first page.
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path without the query.
    pub(crate) fn path(&self) -> &str {
        self.0.split_once('?').map_or(&self.0, |(path, _)| path)
    }

    /// Returns the query.
    pub(crate) fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    /// Returns the decoded value of the first parameter with a name.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.values(name).next()
    }

    /// Returns the decoded values of the parameters with a name.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = String> {
        let pairs = self.query().into_iter().flat_map(|query| query.split('&'));
        pairs.filter_map(move |pair| {
            let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = is_named(found, name).then_some(value)?;
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some(value.into_owned())
        })
    }

    /// Returns the target without all parameters of some names. The others stay as they were sent.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        let Some((path, query)) = self.0.split_once('?') else {
            return self.clone();
        };
        let is_kept = |pair: &&str| {
            let found = pair.split_once('=').map_or(*pair, |(found, _)| found);
            !names.iter().any(|name| is_named(found, name))
        };
        let kept: Vec<_> = query.split('&').filter(is_kept).collect();
        match kept.as_slice() {
            [] => Self(path.to_owned()),
            kept => Self(format!("{path}?{}", kept.join("&"))),
        }
    }
}

/// Reports whether the encoded name of a parameter is `name`.
fn is_named(encoded: &str, name: &str) -> bool {
    percent_decode_str(encoded).eq(name.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(changes: &[(&'static str, Option<&str>)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (PREVIEW, "/web-7"),
            (METHOD, "GET"),
            (TARGET, "/a?b=c"),
            (HOST, "web-7.example.org"),
            (SCHEME, "https"),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        for (name, value) in changes {
            match value {
                Some(value) => drop(headers.append(*name, value.parse().expect("a header"))),
                None => drop(headers.remove(*name)),
            }
        }
        headers
    }

    #[test]
    fn each_header_is_required_once() {
        assert!(Visit::parse(&headers(&[])).is_some());
        for name in [PREVIEW, METHOD, TARGET, HOST] {
            assert!(Visit::parse(&headers(&[(name, None)])).is_none(), "{name}");
            let twice = headers(&[(name, Some("/x"))]);
            assert!(Visit::parse(&twice).is_none(), "{name}");
        }
        for (name, value) in [
            (PREVIEW, "web-7"),
            (PREVIEW, "/"),
            (PREVIEW, "/../x"),
            (PREVIEW, "/{http.vars}"),
            (METHOD, "G T"),
            (TARGET, "https://evil.example/"),
            (TARGET, "//evil.example:x y/"),
            (TARGET, ""),
            (HOST, ""),
            (HOST, "a b"),
            (HOST, "evil.example/web-7.example.org"),
            (HOST, "user@web-7.example.org"),
            (HOST, "web-7.example.org:x"),
            (HOST, "[::1]"),
        ] {
            let mut changed = headers(&[(name, None)]);
            changed.insert(name, value.parse().expect("a header"));
            assert!(Visit::parse(&changed).is_none(), "{name}: {value}");
        }
    }

    #[test]
    fn navigation_is_told_from_other_requests() {
        let is_navigation = |changes: &[(&'static str, Option<&str>)]| {
            let visit = Visit::parse(&headers(changes)).expect("valid");
            visit.is_navigation
        };
        let page = ("accept", Some("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(is_navigation(&[page]));
        assert!(is_navigation(&[page, (FETCH_MODE, Some("navigate"))]));
        assert!(!is_navigation(&[page, (FETCH_MODE, Some("cors"))]));
        assert!(!is_navigation(&[("accept", Some("*/*"))]));
        assert!(!is_navigation(&[]));
        assert!(!is_navigation(&[
            page,
            (METHOD, None),
            (METHOD, Some("POST"))
        ]));
    }

    #[test]
    fn urls_lead_to_the_host_alone() {
        let site = |authority, scheme| Site::parse(authority, Some(scheme)).expect("valid");
        let one = site("Web-7.Example.org", "https");
        assert_eq!(
            one.url("//evil.example"),
            "https://web-7.example.org//evil.example"
        );
        assert_eq!(
            site("web-7.example.org", "http").url("/"),
            "https://web-7.example.org/"
        );
        let local = site("web-7.localhost:8089", "http");
        assert_eq!(local.url("/a"), "http://web-7.localhost:8089/a");
        assert_eq!(
            local.url_of("api.localhost", "/b"),
            "http://api.localhost:8089/b"
        );
        assert_eq!(
            site("notlocalhost", "http").url("/"),
            "https://notlocalhost/"
        );
    }

    #[test]
    fn parameters_of_ours_are_removed_and_others_kept() {
        let target = |text| Target::parse(text).expect("valid");
        let names = ["innkeeper_share", "sandbox_preview"];
        for (text, rest) in [
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?innkeeper_share=x", "/a"),
            ("/a?b&innkeeper_share=x&c=%20+", "/a?b&c=%20+"),
            (
                "/a?innkeeper%5Fshare=x&innkeeper_share&sandbox_preview=1&d=?&",
                "/a?d=?&",
            ),
            (
                "/innkeeper_share=x?innkeeper_shared=1",
                "/innkeeper_share=x?innkeeper_shared=1",
            ),
        ] {
            assert_eq!(target(text).without(&names).as_str(), rest);
        }
        let many = format!("/?{}innkeeper_share=%61b", "innkeeper_shar=1&".repeat(400));
        assert_eq!(
            target(&many).parameter("innkeeper_share").as_deref(),
            Some("ab")
        );
        assert_eq!(target("/?x=1").parameter("innkeeper_share"), None);
        assert_eq!(Target::parse(&"/a".repeat(1 << 20)), None);
    }
}
