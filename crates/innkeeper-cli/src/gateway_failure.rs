//! Failures of requests to a gateway. Each names the URL, the problem and a remedy; none contains a token or bytes of a
//! response, which may come from anybody.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use innkeeper_model::{Code, Failure, chain};
use rustls::CertificateError;

use crate::server_url::ServerUrl;
use crate::target::Gateway;
use crate::token::TokenSource;

fn cannot_reach(url: &ServerUrl, problem: &str, remedy: impl Into<String>) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!("cannot reach {url}: {problem}"),
    )
    .with_remedy(remedy)
}

/// The name of the host cannot be resolved.
pub(crate) fn unknown_name(url: &ServerUrl, error: &io::Error) -> Failure {
    let problem = format!("cannot resolve the name '{}': {error}", url.host);
    cannot_reach(
        url,
        &problem,
        "Check the name in the URL, and this machine's network.",
    )
}

/// No address accepted a connection.
pub(crate) fn not_connected(url: &ServerUrl, error: &io::Error) -> Failure {
    let port = url.port;
    let remedy = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!(
                "Check the port in the URL, and on the host that the web server listens on port {port} (`systemctl status caddy`)."
            )
        }
        _ => "Check this machine's network, and the firewalls between it and the host.".to_owned(),
    };
    cannot_reach(url, &format!("port {port}: {error}"), remedy)
}

/// The connection took too long.
pub(crate) fn timed_out(url: &ServerUrl, limit: Duration) -> Failure {
    let problem = format!("no response within {} s", limit.as_secs());
    cannot_reach(
        url,
        &problem,
        "Check the URL, this machine's network, and the firewalls between it and the host.",
    )
}

/// The gateway accepted a request and sent no response.
pub(crate) fn no_response(url: &ServerUrl, limit: Duration) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!("{url} did not respond within {} s", limit.as_secs()),
    )
    .with_remedy("The request may have been carried out: check before you repeat it, for example with `innkeeper events`.")
}

/// The connection broke before the end of a response.
pub(crate) fn lost(url: &ServerUrl, error: &dyn Error) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!("lost the connection to {url}: {}", chain(error)),
    )
    .with_remedy(
        "Check this machine's network, and that the host is not restarting, then try again.",
    )
}

/// TLS failed.
pub(crate) fn tls(gateway: &Gateway, error: &io::Error) -> Failure {
    let url = &gateway.url;
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate(gateway, problem),
        Some(rustls::Error::InvalidMessage(_)) => cannot_reach(
            url,
            &format!("the server on port {} does not use TLS", url.port),
            "Check the port in the URL.",
        ),
        _ => cannot_reach(
            url,
            &format!("TLS failed: {error}"),
            "Check the URL. On the host, `journalctl -u caddy` may show why.",
        ),
    }
}

fn certificate(gateway: &Gateway, problem: &CertificateError) -> Failure {
    let url = &gateway.url;
    let (problem, remedy) = match problem {
        // An authority of the same name with another key is unknown, too.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            "no trusted authority issued its certificate".to_owned(),
            match &gateway.trust.ca_file {
                None => "If the gateway has an authority of its own, set INNKEEPER_CA_FILE to that authority's certificate.".to_owned(),
                Some(path) => format!("{} has another authority: ask the host's administrator for the right one.", path.display()),
            },
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "its certificate has expired".to_owned(),
            "Check this machine's clock. If it is right, the host must renew the certificate (`journalctl -u caddy`).".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "its certificate is not valid yet".to_owned(),
            "Check this machine's clock.".to_owned(),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("its certificate is for another name than '{}'", url.host),
            "Use the gateway's own name in the URL.".to_owned(),
        ),
        other => (
            format!("its certificate is not valid: {other}"),
            "Ask the host's administrator to repair it (`journalctl -u caddy`).".to_owned(),
        ),
    };
    cannot_reach(url, &problem, remedy)
}

/// The token is not accepted (401).
pub(crate) fn unauthorized(gateway: &Gateway) -> Failure {
    let url = &gateway.url;
    let source = gateway.token.as_ref().map(|token| &token.source);
    if let Some(TokenSource::Login(place)) = source {
        let message = format!("{url} does not accept the login at '{place}' any more");
        return Failure::new(Code::Unauthorized, message).with_remedy(
            "The session has expired or was ended: run `innkeeper login` again. `innkeeper context list` shows which context is used, and why.",
        );
    }
    let source = source.map_or_else(|| "no source".to_owned(), TokenSource::to_string);
    Failure::new(
        Code::Unauthorized,
        format!("{url} does not accept the token of {source}"),
    )
    .with_remedy(
        "It may be revoked, expired or incomplete, or of another host: ask the host's administrator for a new one (`innkeeper token create`). \
         `innkeeper context list` shows which URL and token are used, and why.",
    )
}

/// A response that is not from a gateway: a web page, a redirect, an unknown status.
pub(crate) fn not_a_gateway(url: &ServerUrl, status: StatusCode, problem: &str) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        format!("{url} is not the URL of a gateway: {problem} ({status})"),
    )
    .with_remedy(
        "Check the URL. If this network has a proxy or a login page of its own, open the URL in a browser first.",
    )
}

/// A response that this version of the programs cannot process.
pub(crate) fn unexpected(url: &ServerUrl, status: StatusCode) -> Failure {
    Failure::new(
        Code::Internal,
        format!("unexpected response of the gateway of {url} ({status})"),
    )
    .with_remedy("Use the same version of programs and gateway.")
}

/// A response of the web server in front of a gateway that is down.
pub(crate) fn unavailable(url: &ServerUrl, status: StatusCode) -> Failure {
    Failure::new(
        Code::DaemonUnavailable,
        format!("the gateway of {url} does not respond ({status})"),
    )
    .with_remedy(
        "Try again in a moment. If it lasts, the host's administrator has to look at the gateway.",
    )
}

/// Too many requests, from a web server in front of the gateway.
pub(crate) fn too_many(url: &ServerUrl) -> Failure {
    Failure::new(
        Code::TooManyFailures,
        format!("{url} refuses further requests from this address for now"),
    )
    .with_remedy("Wait some minutes, and check the token before you try again.")
}
