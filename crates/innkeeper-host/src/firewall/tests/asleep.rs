//! Packets to guests that are asleep, and refusals by guests that start.

use innkeeper_facilities::{FirstPackets, PROBE_MARK};
use innkeeper_model::PROBE_DSCP;

use super::super::log_group::LogGroup;
use super::first_packets::{Reached, TIMEOUT, following, next, send};
use super::*;

/// The addresses of two guests without an interface.
const SLEEPER: &str = "10.100.0.7";
const OTHER: &str = "10.100.0.9";

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("address")
}

/// Returns a scene with two parked addresses, its driver, and the guests that it reports.
async fn asleep() -> (Scene, Arc<NftFirewall>, Reached) {
    let scene = Scene::build().await;
    for sleeper in [SLEEPER, OTHER] {
        scene._network.park(address(sleeper)).await.expect("park");
    }
    let (firewall, reached) = following().await;
    (scene, firewall, reached)
}

/// Starts a connection, and leaves it.
fn connect(guest: &str, with: impl FnOnce(&socket2::Socket)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("socket");
    with(&socket);
    socket.set_nonblocking(true).expect("set");
    let target = SocketAddr::from((address(guest), 80));
    socket.connect(&target.into()).expect_err("in progress");
}

/// Sends an echo request (RFC 792).
fn ping(guest: &str) {
    let protocol = Some(socket2::Protocol::ICMPV4);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, protocol);
    let target = SocketAddr::from((address(guest), 0));
    let request = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let sent = socket.expect("socket").send_to(&request, &target.into());
    sent.expect("send");
}

#[tokio::test]
async fn first_packet_to_a_sleeping_guest_is_reported_until_the_next_is_expected() {
    let test = "first_packet_to_a_sleeping_guest_is_reported_until_the_next_is_expected";
    if !enter_own_namespace(test) {
        return;
    }
    let (_scene, firewall, mut reached) = asleep().await;
    for round in 0..3 {
        // Probes, and an echo request.
        connect(SLEEPER, |probe| probe.set_mark(PROBE_MARK).expect("mark"));
        connect(SLEEPER, |probe| {
            let tos = u32::from(PROBE_DSCP) << 2;
            probe.set_tos_v4(tos).expect("set");
        });
        ping(SLEEPER);
        connect(OTHER, |_| {});
        assert_eq!(next(&mut reached).await, [OTHER], "{round}");
        for _ in 0..5 {
            send(SLEEPER);
            connect(SLEEPER, |_| {});
        }
        assert_eq!(next(&mut reached).await, [SLEEPER], "{round}");
        for sleeper in [SLEEPER, OTHER] {
            let expected = firewall.expect(address(sleeper)).await;
            expected.expect("expected");
        }
    }
}

#[tokio::test]
async fn packet_to_a_sleeping_guest_is_noticed_late_but_not_lost() {
    if !enter_own_namespace("packet_to_a_sleeping_guest_is_noticed_late_but_not_lost") {
        return;
    }
    // Another program has the group.
    let _other = LogGroup::bind(config().log_group).expect("bind");
    let (_scene, firewall, mut reached) = asleep().await;
    send(SLEEPER);
    assert_eq!(next(&mut reached).await, [SLEEPER]);
    firewall.expect(address(SLEEPER)).await.expect("expected");
    // The next daemon replaces the table, and finds what arrived before.
    reached.close();
    connect(SLEEPER, |_| {});
    let (next_firewall, mut reached) = following().await;
    assert_eq!(next(&mut reached).await, [SLEEPER]);
    next_firewall
        .expect(address(SLEEPER))
        .await
        .expect("expected");
    // Without the table, none is noticed, and no guest is woken for that.
    run_nft(&["flush", "ruleset"]).await;
    send(SLEEPER);
    next_firewall.ensure().await.expect("ensure");
    send(OTHER);
    assert_eq!(next(&mut reached).await, [OTHER]);
}

/// Packets of others than the host to a sleeping guest are refused as those to a running one.
#[tokio::test]
async fn strangers_wake_no_guest() {
    if !enter_own_namespace("strangers_wake_no_guest") {
        return;
    }
    let (scene, _firewall, mut reached) = asleep().await;
    let target = SocketAddr::from((address(SLEEPER), 80));
    let from_guest = scene.at(Web, move || TcpStream::connect_timeout(&target, TIMEOUT));
    assert_eq!(
        from_guest.expect_err("refused").kind(),
        ErrorKind::ConnectionRefused
    );
    scene.at(World, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.send_to(b"x", target).expect("send");
    });
    send(OTHER);
    assert_eq!(next(&mut reached).await, [OTHER]);
}

#[tokio::test]
async fn guest_that_starts_refuses_no_connection() {
    if !enter_own_namespace("guest_that_starts_refuses_no_connection") {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let target = SocketAddr::from((address(WEB), 80));
    let connect = move || TcpStream::connect_timeout(&target, TIMEOUT);
    assert_eq!(
        connect().expect_err("closed").kind(),
        ErrorKind::ConnectionRefused
    );
    scene
        .firewall
        .hold_refusals(address(WEB))
        .await
        .expect("held");
    // Another table follows, as after a restart of the daemon.
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    let datagram = UdpSocket::bind("0.0.0.0:0").expect("bind");
    datagram.connect(target).expect("connect");
    datagram.send(b"x").expect("send");
    let client = std::thread::spawn(connect);
    let dropped = async || {
        let table = run_nft(&["list", "chain", "inet", "innkeeper", "hold_refusals"]).await;
        let table = String::from_utf8(table).expect("text");
        let dropped = |line: &&str| line.contains("drop") && !line.contains("packets 0 ");
        table.lines().filter(dropped).count()
    };
    while dropped().await < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The refusal of the datagram would be the error of the next one.
    datagram.send(b"x").expect("not refused");
    // A probe is refused.
    let probe = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let probe = probe.expect("socket");
    probe.set_mark(PROBE_MARK).expect("mark");
    let refused = probe.connect(&target.into()).expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let _listener = scene.at(Web, move || TcpListener::bind(target).expect("listen"));
    client
        .join()
        .expect("a thread")
        .expect("it tries until the server listens");
}

/// The kernel has no module for rules that log.
#[tokio::test]
async fn firewall_works_on_a_kernel_that_cannot_log() {
    if !enter_own_namespace("firewall_works_on_a_kernel_that_cannot_log") {
        return;
    }
    let write = async |rules: String| {
        let refused = rules.contains("log group ") || rules.contains("log prefix ");
        let rules = if refused { "no rules" } else { &rules };
        nft("write rules", &["--file", "-"], rules).await
    };
    let logs = with_log_or_without(&ruleset(&config()), write).await;
    assert!(!logs.expect("the rest of the rules is in force"));
    let broken = async |_| nft("write rules", &["--file", "-"], "no rules").await;
    let failed = with_log_or_without(&ruleset(&config()), broken).await;
    assert_eq!(failed.expect_err("refused").code(), Code::NetworkFailed);
    let check = no_log();
    assert_eq!(check.verdict, Verdict::Warning);
}
