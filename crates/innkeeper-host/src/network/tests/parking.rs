//! Parked addresses.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::*;

const WEB: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 3);

/// The interface of parked addresses.
fn near() -> String {
    parking_interface(Identity::of('a').daemon())
}

/// The host has no other route, so that a packet to another address is refused at once.
#[tokio::test]
async fn connection_to_a_parked_address_reaches_the_guest_that_starts() {
    let test = "connection_to_a_parked_address_reaches_the_guest_that_starts";
    if !enter_own_namespace(test) {
        return;
    }
    let (network, web) = (network(), guest("web", 1));
    network.park(WEB).await.expect("park");
    let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
    let other = socket.send_to(b"x", (Ipv4Addr::new(10, 100, 0, 5), 9));
    other.expect_err("no route");
    for _ in 0..3 {
        socket.send_to(b"x", (WEB, 9)).expect("it is discarded");
    }
    let address = SocketAddr::from((WEB, 80));
    let client = std::thread::spawn(move || {
        let limit = Duration::from_secs(30);
        TcpStream::connect_timeout(&address, limit).expect("it is retried")
    });
    let sent = async || {
        let link = ip(&["-statistics", "link", "show", &near()]).await;
        link[0]["stats64"]["tx"]["packets"].as_u64()
    };
    while sent().await < Some(4) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let leader = Leader::start().await;
    network.ensure(&web, leader.pid).await.expect("ensure");
    let listener = leader.inside(move || TcpListener::bind(address).expect("listen"));
    let listener = listener.join().expect("a thread");
    network.unpark(WEB).await.expect("unpark");
    let (_connection, peer) = listener.accept().expect("a connection");
    assert_eq!(peer.ip(), Ipv4Addr::new(10, 100, 0, 1), "the parking's");
    client.join().expect("connected");
    assert!(network.is_complete(&web).await.expect("is_complete"));
}

#[tokio::test]
async fn addresses_are_parked_and_unparked_again_and_again() {
    if !enter_own_namespace("addresses_are_parked_and_unparked_again_and_again") {
        return;
    }
    let network = network();
    network.unpark(WEB).await.expect("nothing to do");
    assert!(!network.is_parked(WEB).await.expect("queried"));
    network.prepare_parking().await.expect("prepared");
    let before = ip(&["route", "show", "table", "all"]).await;
    let all: BTreeSet<_> = (1..=3)
        .map(|slot| Ipv4Addr::new(10, 100, 0, 2 * slot + 1))
        .collect();
    for _ in 0..2 {
        for address in &all {
            network.park(*address).await.expect("park");
            assert!(network.is_parked(*address).await.expect("queried"));
        }
        assert_eq!(network.parked().await.expect("listed"), all);
    }
    // It is no guest's, and no stranger's.
    assert_eq!(network.observe().await.expect("observe"), []);
    assert_eq!(network.check().await[0].verdict, Verdict::Ok);
    // A daemon that starts again finds them.
    let again = super::network();
    for _ in 0..2 {
        for address in &all {
            again.unpark(*address).await.expect("unpark");
            assert!(!again.is_parked(*address).await.expect("queried"));
        }
    }
    let after = ip(&["route", "show", "table", "all"]).await;
    assert_eq!(after, before);
    // Another program's interface is left alone.
    ip(&["link", "set", &near(), "alias", "another program's"]).await;
    let refused = again.park(WEB).await.expect_err("taken");
    assert_eq!(code(&refused), Code::InterfaceTaken);
}

/// A running guest is reached although its address is parked: a daemon may be killed between the two.
#[tokio::test]
async fn interface_of_a_guest_precedes_the_parking() {
    if !enter_own_namespace("interface_of_a_guest_precedes_the_parking") {
        return;
    }
    let (network, web, leader) = (network(), guest("web", 1), Leader::start().await);
    network.ensure(&web, leader.pid).await.expect("ensure");
    network.park(WEB).await.expect("park");
    assert!(!network.is_parked(WEB).await.expect("queried"));
    assert!(network.is_complete(&web).await.expect("is_complete"));
    // What the daemon has left when it is killed after the creation of the pair is completed.
    ip(&["link", "set", &near(), "down", "alias", ""]).await;
    network.park(WEB).await.expect("park");
    assert!(network.is_complete(&web).await.expect("is_complete"));
    network.remove(&web.name).await.expect("remove");
    assert!(network.is_parked(WEB).await.expect("queried"));
}
