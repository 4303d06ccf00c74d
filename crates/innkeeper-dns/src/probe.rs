//! The program's query to itself: evidence that it still answers Caddy, for systemd's watchdog.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use innkeeper_model::settled::ZONE;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// The longest time for a response: Caddy waits as long for a name.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// A query with the ID 0, for the SRV record (33) of a name in the zone that no host has.
fn packet() -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["watchdog"].into_iter().chain(ZONE.split('.')) {
        packet.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 33, 0, 1]);
    packet
}

/// Reports whether a query of the host is answered in time.
pub(crate) async fn responds(port: u16, limit: Duration) -> bool {
    let query = async || -> io::Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.connect((Ipv4Addr::LOCALHOST, port)).await?;
        socket.send(&packet()).await?;
        let mut response = [0; 12];
        let length = socket.recv(&mut response).await?;
        // A response has the highest bit of its flags.
        Ok(length == response.len() && response[2] & 0x80 != 0)
    };
    matches!(timeout(limit, query()).await, Ok(Ok(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn program_that_does_not_answer_is_noticed() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("binds");
        let port = silent.local_addr().expect("an address").port();
        assert!(!responds(port, Duration::from_millis(1)).await);
        let answering = tokio::spawn(async move {
            let mut packet = [0; 512];
            let (length, peer) = silent
                .recv_from(&mut packet)
                .await
                .expect("the first query");
            let _ = (length, peer);
            let (length, peer) = silent.recv_from(&mut packet).await.expect("a query");
            packet[2] |= 0x80;
            silent.send_to(&packet[..length], peer).await.expect("sent");
        });
        assert!(responds(port, LIMIT).await);
        answering.await.expect("ends");
    }
}
