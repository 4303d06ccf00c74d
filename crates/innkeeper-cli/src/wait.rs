//! Waiting for a guest to answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long one attempt may take. A guest that is not there yet swallows the first packet, and the kernel
/// sends it again only after a second, so giving up earlier is quicker.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Between an attempt that was refused and the next one.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns whether the address accepts a TCP connection within the limit.
pub(crate) async fn answers(address: SocketAddr, limit: Duration) -> bool {
    let answer = async {
        while !matches!(
            timeout(ATTEMPT, TcpStream::connect(address)).await,
            Ok(Ok(_))
        ) {
            sleep(PAUSE).await;
        }
    };
    timeout(limit, answer).await.is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_answers_once_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        assert!(answers(address, Duration::from_secs(10)).await);
        drop(listener);
        assert!(!answers(address, Duration::from_millis(20)).await);
    }
}
