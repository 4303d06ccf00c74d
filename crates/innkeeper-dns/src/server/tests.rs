//! Tests with real sockets: guests, this program and a name server have addresses of the loopback interface.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use super::*;
use crate::handle::tests::write_route;
use crate::message::tests::query;

const GUEST: Ipv4Addr = Ipv4Addr::new(127, 100, 0, 3);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(127, 100, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(127, 100, 9, 9);

/// The resolver and its clients.
struct Scene {
    port: u16,
    _table: TempDir,
}

impl Scene {
    async fn with(upstream: Upstream, limit: usize) -> Self {
        let table = tempfile::tempdir().expect("a directory");
        write_route(table.path(), &GUEST.to_string(), "web", "web.example.org");
        let mut config = Config::default();
        config.network.subnet = "127.100.0.0/24".parse().expect("a subnet");
        config.caddy.table = table.path().to_owned();
        config.dns.max_queries_per_guest = limit;
        let resolver = Resolver::new(&config, upstream);
        let sockets = listen((GATEWAY, 0).into()).await.expect("listens");
        let port = sockets.port();
        tokio::spawn(async move { resolver.serve(&sockets).await });
        Self {
            port,
            _table: table,
        }
    }

    async fn client(&self) -> UdpSocket {
        let socket = UdpSocket::bind((GUEST, 0)).await.expect("bound");
        socket
            .connect((GATEWAY, self.port))
            .await
            .expect("connected");
        socket
    }

    /// Sends a query as a guest, over UDP, and returns the response as it is.
    async fn udp(&self, message: &Message) -> Vec<u8> {
        let socket = self.client().await;
        socket.send(&encoded(message)).await.expect("sent");
        receive(&socket).await
    }

    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((GUEST, 0).into()).expect("bound");
        let gateway = (GATEWAY, self.port).into();
        socket.connect(gateway).await.expect("connected")
    }
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let length = socket.recv(&mut buffer).await.expect("a response");
    buffer.truncate(length);
    buffer
}

fn encoded(message: &Message) -> Vec<u8> {
    message.to_vec().expect("encoded")
}

fn parsed(response: &[u8]) -> Message {
    Message::from_vec(response).expect("a message")
}

/// A name server that responds to every query with its own bytes as the answer: the query, marked as a response, with
/// `padding` bytes of an unknown option behind it.
struct NameServer {
    port: u16,
    queries: Arc<AtomicUsize>,
}

impl NameServer {
    /// Over UDP, the response is truncated if it is `large`.
    async fn start(padding: usize, large: bool) -> Self {
        let tcp = TcpListener::bind((SERVER, 0)).await.expect("bound");
        let address = tcp.local_addr().expect("an address");
        let udp = UdpSocket::bind(address).await.expect("bound");
        let queries = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.expect("a query");
                counted.fetch_add(1, Ordering::Relaxed);
                // A forged response, which must not be used.
                let mut forged = answer(&buffer[..length], 0);
                forged[0] ^= 1;
                udp.send_to(&forged, peer).await.expect("sent");
                let mut response = answer(&buffer[..length], if large { 0 } else { padding });
                if large {
                    response[2] |= 0x02;
                }
                udp.send_to(&response, peer).await.expect("sent");
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.expect("a connection");
                let query = read_message(&mut stream).await.expect("a query");
                let response = answer(&query, padding);
                write_message(&mut stream, &response).await.expect("sent");
            }
        });
        Self {
            port: address.port(),
            queries,
        }
    }

    fn upstream(&self) -> Upstream {
        Upstream::at(&[IpAddr::V4(SERVER)], self.port)
    }

    fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }
}

fn answer(query: &[u8], padding: usize) -> Vec<u8> {
    let mut response = query.to_vec();
    // QR, RA and AD: the authentic data bit must reach the guest.
    response[2] |= 0x80;
    response[3] |= 0xa0;
    response.resize(query.len() + padding, 7);
    response
}

fn large_query(name: &str, payload: u16) -> Message {
    let mut message = query(name, RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

#[tokio::test]
async fn own_hosts_are_resolved_without_a_name_server() {
    let server = NameServer::start(0, false).await;
    let scene = Scene::with(server.upstream(), 8).await;
    let message = query("web.example.org.", RecordType::A);
    let mut stream = scene.connect().await;
    // Two queries on one connection.
    for _ in 0..2 {
        let packet = encoded(&message);
        write_message(&mut stream, &packet).await.expect("sent");
        let over_tcp = read_message(&mut stream).await.expect("a response");
        for response in [over_tcp, scene.udp(&message).await] {
            let response = parsed(&response);
            assert_eq!(response.metadata.id, message.metadata.id);
            assert_eq!(response.answers[0].data, RData::from(GATEWAY));
        }
    }
    assert_eq!(server.queries(), 0);
}

#[tokio::test]
async fn other_names_are_forwarded_and_responses_are_unchanged() {
    let server = NameServer::start(700, false).await;
    let scene = Scene::with(server.upstream(), 8).await;
    let message = large_query("shop.example.org.", 1232);
    let expected = answer(&encoded(&message), 700);
    assert_eq!(scene.udp(&message).await, expected);
    let mut stream = scene.connect().await;
    let packet = encoded(&message);
    write_message(&mut stream, &packet).await.expect("sent");
    let over_tcp = read_message(&mut stream).await.expect("a response");
    assert_eq!(over_tcp, expected);
    assert_eq!(server.queries(), 2);

    // Larger than the guest's buffer: the guest has to use TCP.
    let small = large_query("shop.example.org.", 512);
    let response = parsed(&scene.udp(&small).await);
    assert!(response.metadata.truncation && response.answers.is_empty());
}

#[tokio::test]
async fn queries_of_a_guest_over_tcp_have_a_rate() {
    let server = NameServer::start(0, false).await;
    let scene = Scene::with(server.upstream(), 8).await;
    let packet = encoded(&query("shop.example.org.", RecordType::A));
    let mut stream = scene.connect().await;
    let mut is_refused = false;
    for _ in 0..20_000 {
        write_message(&mut stream, &packet).await.expect("sent");
        let response = read_message(&mut stream).await.expect("a response");
        is_refused = parsed(&response).metadata.response_code == ResponseCode::ServFail;
        if is_refused {
            break;
        }
    }
    assert!(is_refused, "all were forwarded");
    // Other transports and own hosts are not affected.
    let own = encoded(&query("web.example.org.", RecordType::A));
    write_message(&mut stream, &own).await.expect("sent");
    let response = parsed(&read_message(&mut stream).await.expect("a response"));
    assert_eq!(response.answers[0].data, RData::from(GATEWAY));
    let over_udp = parsed(&scene.udp(&query("shop.example.org.", RecordType::A)).await);
    assert_eq!(over_udp.metadata.response_code, ResponseCode::NoError);
}

#[tokio::test]
async fn truncated_responses_are_requested_over_tcp() {
    let server = NameServer::start(5000, true).await;
    let scene = Scene::with(server.upstream(), 8).await;
    let message = large_query("shop.example.org.", 4096);
    assert!(parsed(&scene.udp(&message).await).metadata.truncation);
    let mut stream = scene.connect().await;
    let packet = encoded(&message);
    write_message(&mut stream, &packet).await.expect("sent");
    let response = read_message(&mut stream).await.expect("a response");
    assert_eq!(response, answer(&packet, 5000));
}

#[tokio::test]
async fn names_fail_while_no_name_server_responds() {
    let closed = UdpSocket::bind((SERVER, 0)).await.expect("bound");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let message = query("example.org.", RecordType::A);
    for upstream in [
        Upstream::at(&[], port),
        Upstream::at(&[SERVER.into()], port),
    ] {
        let scene = Scene::with(upstream, 8).await;
        let response = parsed(&scene.udp(&message).await);
        assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(response.metadata.id, message.metadata.id);
    }
    // The next one responds.
    let server = NameServer::start(0, false).await;
    let dead = IpAddr::V4(Ipv4Addr::new(127, 100, 9, 8));
    let upstream = Upstream::at(&[dead, SERVER.into()], server.port);
    let scene = Scene::with(upstream, 8).await;
    assert_eq!(scene.udp(&message).await, answer(&encoded(&message), 0));
}

/// A guest whose queries wait for a silent name server affects neither its own hosts nor other guests.
#[tokio::test]
async fn waiting_queries_of_a_guest_are_limited() {
    let silent = UdpSocket::bind((SERVER, 0)).await.expect("bound");
    let port = silent.local_addr().expect("an address").port();
    let scene = Scene::with(Upstream::at(&[SERVER.into()], port), 2).await;
    let message = query("example.org.", RecordType::A);
    let waiting = [scene.client().await, scene.client().await];
    let mut buffer = [0; 512];
    for socket in &waiting {
        socket.send(&encoded(&message)).await.expect("sent");
        // It has reached the name server, so it is counted.
        silent.recv(&mut buffer).await.expect("a query");
    }
    let response = parsed(&scene.udp(&message).await);
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
    let own = query("web.example.org.", RecordType::A);
    let response = parsed(&scene.udp(&own).await);
    assert_eq!(response.answers.len(), 1);

    let other = UdpSocket::bind(("127.100.0.5", 0)).await.expect("bound");
    other
        .connect((GATEWAY, scene.port))
        .await
        .expect("connected");
    other.send(&encoded(&message)).await.expect("sent");
    silent.recv(&mut buffer).await.expect("another guest's");
    // The first ones fail when the name server's time is over, and make room.
    let response = parsed(&receive(&waiting[0]).await);
    assert_eq!(response.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn connections_of_a_guest_are_limited() {
    let scene = Scene::with(Upstream::at(&[], 1), 2).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_GUEST {
        let mut stream = scene.connect().await;
        let own = encoded(&query("web.example.org.", RecordType::A));
        write_message(&mut stream, &own).await.expect("sent");
        read_message(&mut stream).await.expect("a response");
        held.push(stream);
    }
    let mut further = scene.connect().await;
    let closed = read_message(&mut further).await.expect_err("closed");
    assert!(matches!(
        closed.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
    ));
}

/// As in service, where the program listens on all addresses.
/// The kernel lets only sockets of the same user with the same option share a port.
#[tokio::test]
async fn foreign_socket_on_the_port_prevents_the_start() {
    let foreign = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    sockopt::set_socket_reuseaddr(&foreign, true).expect("set");
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    rustix::net::bind(&foreign, &any).expect("bound");
    let foreign = std::net::UdpSocket::from(foreign);
    let port = foreign.local_addr().expect("address").port();
    let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let error = listen(all).await.expect_err("taken");
    assert!(matches!(error, DnsError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn the_hosts_queries_have_a_socket_of_their_own() {
    let all = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    // A free port; `listen` needs one, since it binds twice.
    let free = std::net::UdpSocket::bind(all).expect("bound");
    let port = free.local_addr().expect("address").port();
    drop(free);
    let sockets = listen((Ipv4Addr::UNSPECIFIED, port).into())
        .await
        .expect("listens");
    let own = sockets.own.as_ref().expect("a socket");
    for (from, to, socket) in [
        (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, own),
        (GUEST, GATEWAY, &sockets.udp),
    ] {
        let client = UdpSocket::bind((from, 0)).await.expect("bound");
        client.send_to(b"x", (to, port)).await.expect("sent");
        let (_, peer) = socket.recv_from(&mut [0; 8]).await.expect("received");
        assert_eq!(peer.ip(), IpAddr::from(from));
    }
    // The port is taken.
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
        let socket = socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("set");
        let address = SocketAddr::from((address, port));
        let error = rustix::net::bind(&socket, &address).expect_err("taken");
        assert_eq!(error, rustix::io::Errno::ADDRINUSE);
    }
}
