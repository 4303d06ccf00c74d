//! Waiting for a TCP port of a guest.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Timeout of an attempt. Before the guest is up, the first packet is lost, and the kernel retransmits it after a second
/// only. A new attempt is faster.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Reports whether the address accepts a TCP connection within the limit.
pub(crate) async fn accepts_connections(address: SocketAddr, limit: Duration) -> bool {
    let connected = async {
        while !matches!(
            timeout(ATTEMPT, TcpStream::connect(address)).await,
            Ok(Ok(_))
        ) {
            sleep(PAUSE).await;
        }
    };
    timeout(limit, connected).await.is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn port_accepts_connections_while_it_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        assert!(accepts_connections(address, Duration::from_secs(10)).await);
        drop(listener);
        assert!(!accepts_connections(address, Duration::from_millis(20)).await);
    }
}
