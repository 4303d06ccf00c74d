//! The check of the gateway, for `innkeeper doctor`.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::Full;
use hyper::{Request, StatusCode, header};
use innkeeper_http::{connect_unix, exchange};
use innkeeper_model::api::{Check, Verdict};
use innkeeper_service::Gateway;
use tokio::time::timeout;

use crate::config::Config;
use crate::socket;

/// Timeout for the gateway's response.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum length of the gateway's response, in bytes.
const MAX_LENGTH: usize = 1024;

/// The settings that the check needs, on a host whose gateway is enabled.
#[derive(Clone, Debug)]
pub(crate) struct GatewayCheck {
    gateway: Gateway,
    host: Option<String>,
}

impl GatewayCheck {
    /// Returns `None` on a host without a gateway.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let gateway = config.gateway.clone();
        let host =
            gateway.host(Some(config.previews.domain.as_str()).filter(|domain| !domain.is_empty()));
        gateway.enabled.then_some(Self { gateway, host })
    }

    /// Checks whether requests of other machines can reach the daemon. Caddy's site is not checked.
    pub(crate) async fn check(&self) -> Check {
        let Gateway {
            group,
            socket,
            access_socket,
            ..
        } = &self.gateway;
        let problem = if socket::group_id(group).is_none() {
            Some((
                format!("the group {group} of gateway.group does not exist, so the gateway cannot pass requests on"),
                "Install Innkeeper's users again (`systemd-sysusers`), then restart innkeeper.service.".to_owned(),
            ))
        } else if let Err(error) = respond(socket).await {
            let socket = socket.display();
            Some((
                format!("innkeeper-gateway does not respond on {socket}: {error}"),
                "Start it with `systemctl enable --now innkeeper-gateway.socket innkeeper-gateway.service`; `journalctl -u innkeeper-gateway` shows why it ended.".to_owned(),
            ))
        } else if let Err(error) = respond(access_socket).await {
            let socket = access_socket.display();
            Some((
                format!("innkeeper-gateway does not respond on {socket}: {error}; previews that are not public have no visitors"),
                "Open the socket with `systemctl restart innkeeper-gateway.socket innkeeper-gateway.service`; after an upgrade, the former unit has only two sockets.".to_owned(),
            ))
        } else {
            None
        };
        let (verdict, finding, remedy) = match (problem, &self.host) {
            (Some((finding, remedy)), _) => (Verdict::Broken, finding, Some(remedy)),
            (None, Some(host)) => (
                Verdict::Ok,
                format!("responds to requests of other machines, for {host}"),
                None,
            ),
            (None, None) => (
                Verdict::Ok,
                "responds to requests of other machines".to_owned(),
                None,
            ),
        };
        Check {
            subject: "gateway".to_owned(),
            verdict,
            finding,
            remedy,
        }
    }
}

/// Requests `/healthz` on a socket, as Caddy does.
async fn respond(socket: &Path) -> io::Result<()> {
    let exchanged = async {
        let mut connection = connect_unix(socket).await?;
        let request = Request::get("/healthz").header(header::HOST, "innkeeper");
        let request = request.body(Full::default()).map_err(io::Error::other)?;
        exchange(&mut connection, request, MAX_LENGTH).await
    };
    let response = timeout(TIMEOUT, exchanged).await;
    let response = response.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(io::Error::other(format!("its response is {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn gateway_is_checked_by_a_request() {
        let directory = tempfile::tempdir().expect("directory");
        let mut config = Config::default();
        assert!(GatewayCheck::new(&config).is_none());
        config.gateway.enabled = true;
        config.gateway.group = "root".to_owned();
        config.gateway.host = "api.example.org".to_owned();
        config.gateway.socket = directory.path().join("http.sock");
        config.gateway.access_socket = directory.path().join("access.sock");
        let check = GatewayCheck::new(&config).expect("enabled");
        let found = check.check().await;
        assert_eq!(found.verdict, Verdict::Broken, "{found:?}");
        assert!(found.finding.contains("does not respond"), "{found:?}");

        let listener = UnixListener::bind(&config.gateway.socket).expect("listens");
        let app = Router::new().route("/healthz", get(async || "ok"));
        let visitors = app.clone();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        let found = check.check().await;
        assert_eq!(found.verdict, Verdict::Broken, "{found:?}");
        assert!(found.finding.contains("access.sock"), "{found:?}");

        let listener = UnixListener::bind(&config.gateway.access_socket).expect("listens");
        let deciding = tokio::spawn(async move { axum::serve(listener, visitors).await });
        let found = check.check().await;
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
        assert!(found.finding.contains("api.example.org"), "{found:?}");
        serving.abort();
        deciding.abort();

        config.gateway.group = "no-such-group".to_owned();
        let check = GatewayCheck::new(&config).expect("enabled");
        let found = check.check().await;
        assert!(found.finding.contains("no-such-group"), "{found:?}");
    }
}
