//! Addresses of gateways.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// The URL of a gateway, such as `https://api.example.org`. Tokens are sent to it, so it is `https://`, or on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    pub(crate) is_tls: bool,
    /// Host name or IP address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Host and port as in the URL, for the `Host` header.
    pub(crate) authority: String,
    /// Path before `/v1`, without a slash at the end; empty in most cases.
    pub(crate) prefix: String,
}

/// A text that is not a [`ServerUrl`]. The text itself is not part of the message: it may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidServerUrl {
    #[error("it is not a URL")]
    Syntax,
    #[error("it does not start with https://")]
    Scheme,
    #[error("it contains a user name or a password")]
    UserInfo,
    #[error("it has a query or a fragment")]
    Query,
    #[error(
        "http:// is only for this machine (127.0.0.1, [::1] or localhost): a token would be sent unencrypted"
    )]
    Unencrypted,
}

impl ServerUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidServerUrl> {
        if text.contains('@') {
            return Err(InvalidServerUrl::UserInfo);
        }
        if text.contains(['?', '#']) {
            return Err(InvalidServerUrl::Query);
        }
        let uri: Uri = text.parse().map_err(|_| InvalidServerUrl::Syntax)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidServerUrl::Scheme);
        };
        let host = authority.host();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(InvalidServerUrl::Syntax);
        }
        let is_tls = match scheme {
            "https" => true,
            "http" if is_loopback(&host) => false,
            "http" => return Err(InvalidServerUrl::Unencrypted),
            _ => return Err(InvalidServerUrl::Scheme),
        };
        Ok(Self {
            is_tls,
            host,
            port: (authority.port_u16()).unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url_are_found() {
        let url = ServerUrl::parse("https://API.example.org/").expect("a URL");
        assert_eq!(
            (url.host.as_str(), url.port, url.prefix.as_str()),
            ("API.example.org", 443, "")
        );
        let url = ServerUrl::parse("http://[::1]:8080/innkeeper/").expect("a URL");
        assert_eq!(
            (url.host.as_str(), url.port, url.authority.as_str()),
            ("::1", 8080, "[::1]:8080")
        );
        assert_eq!(url.to_string(), "http://[::1]:8080/innkeeper");
    }

    #[test]
    fn tokens_are_sent_encrypted_or_to_this_machine() {
        for good in [
            "http://localhost:1",
            "http://127.0.0.1",
            "http://127.9.9.9:80",
        ] {
            ServerUrl::parse(good).expect(good);
        }
        for (bad, error) in [
            ("http://api.example.org", InvalidServerUrl::Unencrypted),
            (
                "http://localhost.example.org",
                InvalidServerUrl::Unencrypted,
            ),
            ("http://10.0.0.1", InvalidServerUrl::Unencrypted),
            ("ftp://api.example.org", InvalidServerUrl::Scheme),
            ("api.example.org", InvalidServerUrl::Scheme),
            (
                "https://kim:secret@api.example.org",
                InvalidServerUrl::UserInfo,
            ),
            ("https://api.example.org/?token=x", InvalidServerUrl::Query),
            ("https://api.example.org/#x", InvalidServerUrl::Query),
            ("https://", InvalidServerUrl::Syntax),
            ("https://a b", InvalidServerUrl::Syntax),
        ] {
            let found = ServerUrl::parse(bad);
            assert_eq!(found.expect_err(bad), error, "{bad}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
