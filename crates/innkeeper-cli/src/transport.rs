//! Connections to the daemon: over its Unix socket, or over TCP and TLS to a gateway.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use innkeeper_http::Connection;
use innkeeper_model::Failure;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::failure::unreachable;
use crate::gateway_failure as failure;
use crate::server_url::ServerUrl;
use crate::target::{Gateway, Target};

/// Limit for a connection to a gateway: its name, TCP and TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// Head start of an address before the next one is tried too (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Maximum number of addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Idle time before the kernel checks whether the gateway still has the connection, then the interval and number of checks.
/// Without them, a stream would never notice that the laptop changed its network.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 4);

/// Opens a connection for one request.
pub(crate) async fn connect(target: &Target) -> Result<Connection, Failure> {
    match target {
        Target::Socket(path) => {
            let connected = innkeeper_http::connect_unix(path).await;
            connected.map_err(|error| unreachable(path, &error))
        }
        Target::Gateway(gateway) => connect_within(gateway, CONNECT_LIMIT).await,
    }
}

async fn connect_within(gateway: &Gateway, limit: Duration) -> Result<Connection, Failure> {
    timeout(limit, connect_gateway(gateway))
        .await
        .unwrap_or_else(|_| Err(failure::timed_out(&gateway.url, limit)))
}

async fn connect_gateway(gateway: &Gateway) -> Result<Connection, Failure> {
    let url = &gateway.url;
    let stream = dial(url).await?;
    let opened = match gateway.trust.connector() {
        None => innkeeper_http::open(stream).await,
        Some(connector) => {
            let name = ServerName::try_from(url.host.clone())
                .map_err(|_| failure::unknown_name(url, &io::ErrorKind::InvalidInput.into()))?;
            let secured = connector.connect(name, stream).await;
            let secured = secured.map_err(|error| failure::tls(gateway, &error))?;
            innkeeper_http::open(secured).await
        }
    };
    opened.map_err(|error| failure::lost(url, &error))
}

/// Opens a TCP connection to the first of the name's addresses that accepts one.
async fn dial(url: &ServerUrl) -> Result<TcpStream, Failure> {
    let found = lookup_host((url.host.as_str(), url.port)).await;
    let found = found.map_err(|error| failure::unknown_name(url, &error))?;
    let mut attempts = JoinSet::new();
    let mut start = Duration::ZERO;
    // Without TLS, a token stays on this machine whatever the name means.
    let allowed = |address: &SocketAddr| url.is_tls || address.ip().is_loopback();
    for address in found.filter(allowed).take(MAX_ADDRESSES) {
        attempts.spawn(async move {
            sleep(start).await;
            TcpStream::connect(address).await
        });
        start += HEAD_START;
    }
    let mut last = None;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => {
                tune(&stream).map_err(|error| failure::lost(url, &error))?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            // Attempts are neither canceled nor do they panic.
            Err(_) => {}
        }
    }
    Err(match last {
        Some(error) => failure::not_connected(url, &error),
        None => failure::unknown_name(url, &io::Error::other("it has no usable address")),
    })
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new()
        .with_time(time)
        .with_interval(interval)
        .with_retries(retries);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::clock::Clock;
    use crate::tls::Trust;
    use crate::token::{Token, TokenSource};

    /// The kernel accepts the connection, and no TLS follows.
    #[tokio::test]
    async fn hanging_server_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let gateway = Gateway {
            url: ServerUrl::parse(&format!("https://{address}")).expect("a URL"),
            token: Some(Token::parse("hunter2", TokenSource::Variable).expect("a token")),
            trust: Trust::none(),
            clock: Clock::default(),
        };
        let failure = connect_within(&gateway, Duration::from_millis(50)).await;
        let failure = failure.expect_err("it hangs");
        assert!(failure.message.contains("no response within"), "{failure}");
        assert!(!format!("{gateway:?}").contains("hunter2"));
    }
}
