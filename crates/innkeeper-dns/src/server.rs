//! Sockets, and limits of guests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use innkeeper_model::SlotRange;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::config::Config;
use crate::error::DnsError;
use crate::handle::{Client, Decision, decide};
use crate::hosts::Hosts;
use crate::message::Query;
use crate::rate::TcpRate;
use crate::share::Share;
use crate::upstream::{Transport, Upstream, read_message, write_message};

/// The maximum number of all guests' queries that wait for name servers at a time. Each has a socket, or two.
const MAX_QUERIES: usize = 4096;

/// The maximum number of connections of one guest, and of all.
const CONNECTIONS_PER_GUEST: usize = 16;
const MAX_CONNECTIONS: usize = 1024;

/// The time that a connection may be idle, or take for one query.
const IDLE: Duration = Duration::from_secs(10);

/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The program's sockets, on the same port.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Arc<UdpSocket>,
    /// For the host itself: its queue is not that of guests, who could fill it.
    own: Option<Arc<UdpSocket>>,
    tcp: TcpListener,
}

/// Listens on an address with UDP and TCP.
///
/// In service, it is the unspecified one, since a guest's gateway address exists only while the guest runs. The kernel then
/// sends responses from the address of the guest's interface, which is the gateway. The firewall lets only guests, and the
/// host itself, reach the port.
///
/// # Errors
/// [`DnsError::Listen`].
pub(crate) async fn listen(address: SocketAddr) -> Result<Sockets, DnsError> {
    let failed = |source| DnsError::Listen { address, source };
    let own = match address {
        SocketAddr::V4(all) if all.ip().is_unspecified() => {
            Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, all.port()))
        }
        _ => None,
    };
    let (own, udp) = match own {
        Some(own) => {
            let [own, udp] = bind_both(own.into(), address).map_err(failed)?;
            (Some(Arc::new(own)), udp)
        }
        None => (None, UdpSocket::bind(address).await.map_err(failed)?),
    };
    let address = udp.local_addr().map_err(failed)?;
    Ok(Sockets {
        udp: Arc::new(udp),
        own,
        tcp: TcpListener::bind(address).await.map_err(failed)?,
    })
}

/// Binds a socket to one address, and one to all others on the same port.
///
/// The kernel permits that to sockets with `SO_REUSEPORT`, and passes a packet to that of the address itself. Only processes of the
/// same user can bind to the port as well: nobody else can take over its queries.
fn bind_both(one: SocketAddr, all: SocketAddr) -> io::Result<[UdpSocket; 2]> {
    let bind = |address| -> io::Result<UdpSocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        UdpSocket::from_std(socket.into())
    };
    Ok([bind(one)?, bind(all)?])
}

impl Sockets {
    /// Returns the port.
    #[cfg(test)]
    pub(crate) fn port(&self) -> u16 {
        self.tcp.local_addr().map_or(0, |address| address.port())
    }
}

/// The resolver behind both sockets.
#[derive(Debug)]
pub(crate) struct Resolver {
    subnet: SlotRange,
    hosts: Hosts,
    upstream: Upstream,
    queries: Share,
    connections: Share,
    tcp_rate: TcpRate,
}

impl Resolver {
    pub(crate) fn new(config: &Config, upstream: Upstream) -> Arc<Self> {
        Arc::new(Self {
            subnet: config.network.subnet,
            hosts: Hosts::new(&config.caddy.table),
            upstream,
            queries: Share::new(MAX_QUERIES, config.dns.max_queries_per_guest),
            connections: Share::new(MAX_CONNECTIONS, CONNECTIONS_PER_GUEST),
            tcp_rate: TcpRate::default(),
        })
    }

    /// Serves until it is dropped. Returns if a part of it ends, which only a defect causes.
    pub(crate) async fn serve(self: Arc<Self>, sockets: &Sockets) {
        // A task of its own: guests' queries do not delay the host's.
        let mut own = sockets.own.as_ref().map(|socket| {
            let (this, socket) = (Arc::clone(&self), Arc::clone(socket));
            AbortOnDrop(tokio::spawn(async move { this.serve_udp(&socket).await }))
        });
        let own_ends = async {
            match &mut own {
                Some(AbortOnDrop(task)) => drop(task.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = own_ends => {}
            () = self.serve_udp(&sockets.udp) => {}
            () = self.serve_tcp(&sockets.tcp) => {}
        }
    }

    fn decide(&self, peer: SocketAddr, packet: &[u8]) -> Decision {
        let client = Client::of(peer.ip(), self.subnet);
        decide(client, packet, &self.hosts, self.subnet)
    }

    async fn forward(&self, query: &Query, transport: Transport) -> Vec<u8> {
        match self.upstream.resolve(query, transport).await {
            None => query.failure(),
            Some(response)
                if transport == Transport::Udp && response.len() > query.max_payload() =>
            {
                query.truncated()
            }
            Some(response) => response,
        }
    }

    async fn serve_udp(self: &Arc<Self>, socket: &Arc<UdpSocket>) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Such as a guest's ICMP message that its port is closed.
                    debug!(%error, "cannot receive a packet");
                    continue;
                }
            };
            let packet = buffer.get(..length).unwrap_or_default();
            match self.decide(peer, packet) {
                Decision::Ignore => {}
                Decision::Respond(response) => send(socket, &response, peer),
                Decision::Forward(query) => match self.queries.acquire(peer.ip()) {
                    None => send(socket, &query.failure(), peer),
                    Some(place) => {
                        let (this, socket) = (Arc::clone(self), Arc::clone(socket));
                        tokio::spawn(async move {
                            let response = this.forward(&query, Transport::Udp).await;
                            send(&socket, &response, peer);
                            drop(place);
                        });
                    }
                },
            }
        }
    }

    async fn serve_tcp(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Further connections are closed.
            let Some(place) = self.connections.acquire(peer.ip()) else {
                continue;
            };
            let this = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = this.serve_connection(stream, peer).await {
                    debug!(%error, "a connection ended early");
                }
                drop(place);
            });
        }
    }

    /// Answers the queries of a connection one after the other, until it is closed or idle.
    async fn serve_connection(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        loop {
            let packet = match timeout(IDLE, read_message(&mut stream)).await {
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read??,
            };
            let response = match self.decide(peer, &packet) {
                Decision::Ignore => return Ok(()),
                Decision::Respond(response) => response,
                Decision::Forward(query) if !self.tcp_rate.admit(peer.ip(), Instant::now()) => {
                    query.failure()
                }
                Decision::Forward(query) => match self.queries.acquire(peer.ip()) {
                    None => query.failure(),
                    Some(_place) => self.forward(&query, Transport::Tcp).await,
                },
            };
            timeout(IDLE, write_message(&mut stream, &response)).await??;
        }
    }
}

/// Ends a task with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a response. Drops it when the socket's buffer is full: a guest that does not accept packets must not delay others, and
/// clients repeat a query without a response.
fn send(socket: &UdpSocket, response: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.try_send_to(response, peer) {
        debug!(%error, "cannot send a response");
    }
}

#[cfg(test)]
mod tests;
