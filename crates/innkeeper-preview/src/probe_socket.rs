//! Connections of probes to guests' ports.

use std::io;
use std::net::SocketAddr;

use innkeeper_facilities::PROBE_MARK;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// Connects to a guest's port for a probe, which is no use of the guest: the firewall does not count marked connections.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Needs CAP_NET_ADMIN, which a daemon that can create networks has. Without it, the probe counts.
    SockRef::from(&socket).set_mark(PROBE_MARK).ok();
    socket.connect(address).await
}
