//! On the real kernel: a host, two guests and a world behind the host, each a namespace of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use innkeeper_facilities::Network;
use innkeeper_model::Guest;
use rustix::net::sockopt::set_socket_linger;

use super::*;
use crate::identity::Identity;
use crate::network::testing::{Leader, enter_own_namespace, guest, ip};
use crate::network::{NetworkConfig, VethNetwork};

fn config() -> FirewallConfig {
    FirewallConfig {
        subnet: "10.100.0.0/16".parse().expect("net"),
        table: "innkeeper".to_owned(),
        allow_dns: true,
        log_refusals: true,
        nameservers: vec!["192.168.77.1".parse().expect("address")],
        allowed_host_ports: vec![
            HostPort {
                proto: Protocol::Tcp,
                port: 5432,
            },
            HostPort {
                proto: Protocol::Udp,
                port: 9999,
            },
        ],
        extra_private: vec!["203.0.113.0/24".parse().expect("net")],
        connections_per_guest: 20,
    }
}

/// With a table for builds, where this machine has users for them.
fn driver(config: FirewallConfig) -> NftFirewall {
    driver_of(Identity::of('a'), config)
}

fn driver_of(identity: Identity, config: FirewallConfig) -> NftFirewall {
    let builds = BuildFilterConfig {
        table: config.table.clone(),
        subnet: config.subnet,
        extra_private: Vec::new(),
        allowed: Vec::new(),
    };
    let builds = BuildFilter::new(builds, identity.clone());
    NftFirewall::new(config, identity, Arc::new(builds))
}

async fn run_nft(arguments: &[&str]) -> Vec<u8> {
    command::run("nft", arguments.iter().copied(), b"")
        .await
        .expect("nft")
}

/// A host with two guests and a world behind it that would answer whatever reaches it.
struct Scene {
    firewall: NftFirewall,
    /// Who is asked; [`Scene::HOST`] for the test's own namespace.
    places: [Leader; 3],
    _network: VethNetwork,
    _guests: [Guest; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Host,
    Web,
    Shop,
    World,
}
use Place::{Host, Shop, Web, World};

const GATEWAY: &str = "10.100.0.2";
const WEB: &str = "10.100.0.3";
const SHOPS_GATEWAY: &str = "10.100.0.4";
const SHOP: &str = "10.100.0.5";
const HOSTS_PUBLIC: &str = "198.51.100.1";
const WORLD: &str = "198.51.100.2";
/// What the world answers to besides its own address.
const TRAPS: [&str; 5] = [
    "192.168.77.1",
    "10.9.8.7",
    "169.254.169.254",
    "100.64.1.1",
    "203.0.113.9",
];

impl Scene {
    async fn build() -> Self {
        let network = VethNetwork::new(NetworkConfig {
            range: "10.100.0.0/16".parse().expect("range"),
            identity: crate::identity::Identity::of('a'),
        });
        let places = [
            Leader::start().await,
            Leader::start().await,
            Leader::start().await,
        ];
        let guests = [guest("web", 1), guest("shop", 2)];
        for (guest, leader) in guests.iter().zip(&places) {
            network.ensure(guest, leader.pid).await.expect("network");
        }
        let world = &places[2];
        let pid = world.pid.to_string();
        let peer = ["peer", "name", "eth0", "netns", &pid];
        ip(&[&["link", "add", "name", "wan", "type", "veth"][..], &peer].concat()).await;
        ip(&["addr", "add", "198.51.100.1/24", "dev", "wan"]).await;
        ip(&["link", "set", "wan", "up"]).await;
        world.ip(&["link", "set", "eth0", "up"]).await;
        world
            .ip(&["addr", "add", "198.51.100.2/24", "dev", "eth0"])
            .await;
        world
            .ip(&["route", "add", "10.100.0.0/16", "via", HOSTS_PUBLIC])
            .await;
        for trap in TRAPS {
            world.ip(&["addr", "add", trap, "dev", "eth0"]).await;
            ip(&["route", "add", trap, "via", WORLD]).await;
        }
        forward().expect("forwarding");
        Self {
            firewall: driver(config()),
            places,
            _network: network,
            _guests: guests,
        }
    }

    async fn ensure(&self) {
        self.firewall.ensure().await.expect("ensure");
    }

    fn at<T: Send + 'static>(&self, place: Place, job: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = match place {
            Host => return job(),
            Web => self.places[0].inside(job),
            Shop => self.places[1].inside(job),
            World => self.places[2].inside(job),
        };
        thread.join().expect("thread")
    }

    /// Tries a connection to a port where somebody listens. Returns whom the listener sees, if anybody.
    fn try_tcp(&self, (from, to, address, port): Row) -> Option<IpAddr> {
        let target = SocketAddr::new(address.parse().expect("address"), port);
        let listener = self.at(to, move || TcpListener::bind(target).expect("listen"));
        // A refusal comes at once. Only a packet that vanishes where it must not would use up the time.
        let connected = self.at(from, move || {
            TcpStream::connect_timeout(&target, Duration::from_secs(10))
        });
        match connected {
            Ok(_open) => Some(listener.accept().expect("accept").1.ip()),
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionRefused,
                    "{from:?} to {target}"
                );
                listener.set_nonblocking(true).expect("nonblocking");
                assert!(
                    listener.accept().is_err(),
                    "{from:?} to {target} arrived all the same"
                );
                None
            }
        }
    }

    fn udp(&self, place: Place, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("address");
        self.at(place, move || UdpSocket::bind(address).expect("bind"))
    }
}

/// From, to, at which address and port.
type Row = (Place, Place, &'static str, u16);

const PASSES: [Row; 5] = [
    (Web, World, WORLD, 80),
    (Web, Host, GATEWAY, 5432),
    (Web, Host, GATEWAY, 53),
    // The configured name server lies in a private network.
    (Web, World, TRAPS[0], 53),
    (Host, Web, WEB, 80),
];

const REFUSED: [Row; 13] = [
    (Web, Shop, SHOP, 80),
    (Web, Host, GATEWAY, 80),
    (Web, Host, HOSTS_PUBLIC, 80),
    // The port is allowed, on the guest's own gateway address only.
    (Web, Host, HOSTS_PUBLIC, 5432),
    (Web, Host, SHOPS_GATEWAY, 5432),
    (Web, World, WORLD, 25),
    (Shop, World, TRAPS[0], 80),
    (Shop, World, TRAPS[1], 53),
    (Shop, World, TRAPS[1], 80),
    (Shop, World, TRAPS[2], 80),
    (Shop, World, TRAPS[3], 80),
    (Shop, World, TRAPS[4], 80),
    (Shop, Web, WEB, 22),
];

#[tokio::test]
async fn each_connection_passes_or_is_refused_as_the_table_says() {
    if !enter_own_namespace("each_connection_passes_or_is_refused_as_the_table_says") {
        return;
    }
    let scene = Scene::build().await;
    // Without our rules everything would pass, so it is they that refuse.
    for row in PASSES.into_iter().chain(REFUSED) {
        assert!(scene.try_tcp(row).is_some(), "{row:?} cannot work");
    }
    scene.ensure().await;
    for row in PASSES {
        let seen = scene.try_tcp(row);
        let as_whom = match row {
            (Host, ..) => GATEWAY,
            (_, World, ..) => HOSTS_PUBLIC,
            _ => WEB,
        };
        assert_eq!(seen, Some(as_whom.parse().expect("address")), "{row:?}");
    }
    for row in REFUSED {
        assert_eq!(scene.try_tcp(row), None, "{row:?}");
    }
}

/// Opens TCP connections until one is refused, and returns how many were accepted.
fn open_many(target: SocketAddr, most: usize) -> Vec<TcpStream> {
    let timeout = Duration::from_secs(10);
    let open = || TcpStream::connect_timeout(&target, timeout).ok();
    std::iter::from_fn(open).take(most).collect()
}

/// Closes a connection at once, at both ends.
fn reset(connection: TcpStream) {
    set_socket_linger(&connection, Some(Duration::ZERO)).expect("linger");
    drop(connection);
}

#[tokio::test]
async fn a_guest_at_its_limit_of_connections_leaves_the_host_and_others_theirs() {
    let test = "a_guest_at_its_limit_of_connections_leaves_the_host_and_others_theirs";
    if !enter_own_namespace(test) {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let accept_all = |listener: TcpListener| {
        std::thread::spawn(move || {
            let accepted: Vec<_> = listener.incoming().map_while(Result::ok).collect();
            drop(accepted);
        })
    };
    let world: SocketAddr = "198.51.100.2:80".parse().expect("address");
    let gateway: SocketAddr = "10.100.0.2:5432".parse().expect("address");
    for (place, address) in [(World, world), (Host, gateway)] {
        accept_all(scene.at(place, move || TcpListener::bind(address).expect("listen")));
    }

    // Both ways count: to the world and to the gateway.
    let mut open = scene.at(Web, move || open_many(gateway, 5));
    assert_eq!(open.len(), 5);
    open.extend(scene.at(Web, move || open_many(world, 1000)));
    assert_eq!(open.len(), 20);
    // The round of the daemon does not begin a new count, and its rules are as they were.
    scene.ensure().await;
    assert_eq!(scene.firewall.table.difference().await.expect("nft"), None);
    assert_eq!(scene.at(Web, move || open_many(world, 1000)).len(), 0);
    // Connections that are open go on, those of the neighbour and of the host too.
    open[0].write_all(b"still here").expect("write");
    assert_eq!(scene.at(Shop, move || open_many(world, 20)).len(), 20);
    assert_eq!(scene.at(Host, move || open_many(world, 1000)).len(), 1000);
    // A guest may open as many again as it has closed.
    for connection in open {
        reset(connection);
    }
    let mut again = Vec::new();
    for _ in 0..1000 {
        again.extend(scene.at(Web, move || open_many(world, 1)));
        if !again.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(again.len(), 1);
}

#[tokio::test]
async fn a_guest_that_opens_and_closes_at_once_is_held_back() {
    if !enter_own_namespace("a_guest_that_opens_and_closes_at_once_is_held_back") {
        return;
    }
    let scene = Scene::build().await;
    scene.ensure().await;
    let world: SocketAddr = "198.51.100.2:80".parse().expect("address");
    let listener = scene.at(World, move || TcpListener::bind(world).expect("listen"));
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
    // Each is reset before the next begins, so that none counts as open.
    let accepted = scene.at(Web, move || {
        let open = || {
            let timeout = Duration::from_secs(10);
            TcpStream::connect_timeout(&world, timeout).map(reset)
        };
        (0..1000).take_while(|_| open().is_ok()).count()
    });
    assert!((20..1000).contains(&accepted), "{accepted} connections");
}

#[tokio::test]
async fn the_table_of_another_daemon_or_of_nobody_is_not_replaced() {
    if !enter_own_namespace("the_table_of_another_daemon_or_of_nobody_is_not_replaced") {
        return;
    }
    let (ours, theirs) = (driver(config()), driver_of(Identity::of('b'), config()));
    let rules = async || run_nft(&["list", "ruleset"]).await;
    theirs.ensure().await.expect("alone");
    theirs.ensure().await.expect("their own");
    let before = rules().await;
    let adopting = driver_of(Identity::of('a').adopting(), config());
    for ours in [&ours, &adopting] {
        let refused = ours.ensure().await.expect_err("another daemon's");
        assert_eq!(refused.code(), Code::DaemonConflict);
        ours.remove().await.expect_err("another daemon's");
        assert!(
            ours.check()
                .await
                .iter()
                .any(|one| one.verdict == Verdict::Broken)
        );
    }
    assert_eq!(rules().await, before);

    // A former release's table has no mark: it is taken over once.
    theirs.remove().await.expect("their own");
    run_nft(&["add", "table", "inet", "innkeeper"]).await;
    let refused = ours.ensure().await.expect_err("nobody's");
    assert_eq!(refused.code(), Code::InvalidConfig);
    adopting.ensure().await.expect("adopts");
    ours.ensure().await.expect("ours by now");
    assert!(String::from_utf8_lossy(&rules().await).contains(&"a".repeat(32)));
}

/// Each daemon's rules are about its own guests: what one opens is open to its guests, whatever the other says.
#[tokio::test]
async fn rules_of_two_daemons_do_not_act_on_each_others_guests() {
    if !enter_own_namespace("rules_of_two_daemons_do_not_act_on_each_others_guests") {
        return;
    }
    let scene = Scene::build().await;
    let closed = FirewallConfig {
        subnet: "10.101.0.0/16".parse().expect("net"),
        table: "innkeeper_2".to_owned(),
        allow_dns: false,
        allowed_host_ports: Vec::new(),
        nameservers: Vec::new(),
        ..config()
    };
    let other = driver_of(Identity::of('b'), closed);
    let theirs = VethNetwork::new(NetworkConfig {
        range: "10.101.0.0/16".parse().expect("range"),
        identity: Identity::of('b'),
    });
    let leader = Leader::start().await;
    theirs
        .ensure(&guest("web", 9), leader.pid)
        .await
        .expect("network");
    scene.ensure().await;
    other.ensure().await.expect("ensure");
    for row in PASSES {
        assert!(scene.try_tcp(row).is_some(), "{row:?}");
    }
    for row in REFUSED {
        assert_eq!(scene.try_tcp(row), None, "{row:?}");
    }
    let connect = |from: &Leader, address: &'static str| {
        let target: SocketAddr = address.parse().expect("address");
        let job = move || TcpStream::connect_timeout(&target, Duration::from_secs(10));
        from.inside(job).join().expect("thread").is_ok()
    };
    // The other daemon's guest: its own gateway's port is closed, guests of ours are refused to it and it to them.
    let _database = TcpListener::bind("10.101.0.18:5432").expect("listen");
    let _theirs = leader.inside(|| TcpListener::bind("10.101.0.19:80").expect("listen"));
    let _ours = scene.at(Web, || TcpListener::bind("10.100.0.3:80").expect("listen"));
    assert!(!connect(&leader, "10.101.0.18:5432"));
    assert!(!connect(&leader, "10.100.0.3:80"));
    assert!(!connect(&scene.places[0], "10.101.0.19:80"));
    other.remove().await.expect("remove");
    scene.firewall.remove().await.expect("remove");
    assert!(
        connect(&leader, "10.101.0.18:5432"),
        "nothing else refuses it"
    );
}

#[tokio::test]
async fn guests_may_ask_the_hosts_name_servers_of_the_moment() {
    if !enter_own_namespace("guests_may_ask_the_hosts_name_servers_of_the_moment") {
        return;
    }
    let mut scene = Scene::build().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("resolv.conf");
    let [first, second, ..] = TRAPS;
    let write = |server: &str| std::fs::write(&file, format!("nameserver {server}\n"));
    write(first).expect("written");
    let source = NameServers::in_files(vec![file.clone()]);
    scene.firewall = scene.firewall.following(source);
    let asks = |scene: &Scene, server| scene.try_tcp((Web, World, server, 53)).is_some();
    scene.ensure().await;
    assert!(asks(&scene, first) && !asks(&scene, second));
    write(second).expect("written");
    scene.ensure().await;
    assert!(!asks(&scene, first) && asks(&scene, second));
    let healthy = scene.firewall.check().await;
    assert_eq!(healthy[0].verdict, Verdict::Ok, "{healthy:?}");

    // While it cannot be read, the former ones stay; a new daemon does not begin without.
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir(&file).expect("made");
    scene.ensure().await;
    assert!(asks(&scene, second));
    let source = NameServers::in_files(vec![file.clone()]);
    let error = driver(config()).following(source).ensure().await;
    assert!(error.expect_err("a folder").remedy().is_some());
}

/// What the transfers of [`transfers_survive_an_uplink_with_a_small_mtu_whose_router_drops_icmp`] carry.
const LOAD: usize = 64 << 10;

#[tokio::test]
async fn transfers_survive_an_uplink_with_a_small_mtu_whose_router_drops_icmp() {
    let test = "transfers_survive_an_uplink_with_a_small_mtu_whose_router_drops_icmp";
    if !enter_own_namespace(test) {
        return;
    }
    // Behind the host's uplink of 1280 bytes is a router, and behind that a server whose own network has 1500.
    let scene = Scene::build().await;
    let (router, server) = (&scene.places[2], Leader::start().await);
    let pid = server.pid.to_string();
    let peer = ["peer", "name", "eth0", "netns", &pid];
    router
        .ip(&[&["link", "add", "lan", "type", "veth"][..], &peer].concat())
        .await;
    router
        .ip(&["addr", "add", "192.0.2.1/24", "dev", "lan"])
        .await;
    router.ip(&["link", "set", "lan", "up"]).await;
    router.ip(&["link", "set", "eth0", "mtu", "1280"]).await;
    server
        .ip(&["addr", "add", "192.0.2.2/24", "dev", "eth0"])
        .await;
    server.ip(&["link", "set", "eth0", "up"]).await;
    server
        .ip(&["route", "add", "default", "via", "192.0.2.1"])
        .await;
    ip(&["link", "set", "wan", "mtu", "1280"]).await;
    ip(&["route", "add", "192.0.2.0/24", "via", WORLD]).await;
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    router.run(&["sh", "-c", forward]).await;
    let silent = "add table ip router; \
        add chain ip router out { type filter hook output priority 0; }; \
        add rule ip router out icmp type destination-unreachable counter drop";
    router.run(&["nft", silent]).await;
    let refused = async || {
        let shown = router
            .run(&["nft", "--json", "list", "table", "ip", "router"])
            .await;
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        let rules = shown["nftables"].as_array().expect("a list").clone();
        let count = |rule: &serde_json::Value| {
            let parts = rule["rule"]["expr"].as_array()?.clone();
            parts
                .iter()
                .find_map(|part| part["counter"]["packets"].as_u64())
        };
        rules.iter().find_map(count).expect("a counter")
    };
    // The guest itself does not know of the small MTU.
    assert_eq!(
        scene.places[0].ip(&["link", "show", "eth0"]).await[0]["mtu"],
        1500
    );

    let address: SocketAddr = "192.0.2.2:80".parse().expect("address");
    let listener = server.inside(move || TcpListener::bind(address).expect("listen"));
    let listener = listener.join().expect("thread");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that has gone away is none that is served.
            connection.and_then(serve).ok();
        }
    });
    let connect = || scene.at(Web, move || TcpStream::connect(address).expect("connect"));

    // Without the rule, what the server sends is too long for the uplink, and nobody tells it.
    let unclamped: Vec<_> = ruleset(&config())
        .lines()
        .filter(|line| !line.contains("maxseg"))
        .map(|line| format!("{line}\n"))
        .collect();
    nft("write", &["--file", "-"], &unclamped.concat())
        .await
        .expect("rules");
    let mut stuck = connect();
    while refused().await < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stuck.set_nonblocking(true).expect("nonblocking");
    let nothing = stuck.read(&mut [0; 1]).expect_err("nothing arrived");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    drop(stuck);

    // It has no daemon's mark.
    run_nft(&["delete table inet innkeeper"]).await;
    scene.ensure().await;
    let mut guest = connect();
    guest
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("timeout");
    let mut received = vec![0; LOAD];
    guest.read_exact(&mut received).expect("a download");
    guest.write_all(&received).expect("an upload");
    let mut answer = [0];
    guest.read_exact(&mut answer).expect("all of it arrived");
}

/// Sends the load, receives as much, and confirms that.
fn serve(mut client: TcpStream) -> io::Result<()> {
    client.write_all(&vec![7; LOAD])?;
    client.read_exact(&mut vec![0; LOAD])?;
    client.write_all(&[1])
}

#[tokio::test]
async fn a_guest_sends_with_its_own_address_or_not_at_all() {
    if !enter_own_namespace("a_guest_sends_with_its_own_address_or_not_at_all") {
        return;
    }
    let scene = Scene::build().await;
    let receiver = scene.udp(World, "198.51.100.2:7");
    let sources = [SHOP, "8.8.8.8", HOSTS_PUBLIC, WEB];
    for source in &sources[..3] {
        scene.places[0]
            .ip(&["addr", "add", source, "dev", "lo"])
            .await;
    }
    let received = |scene: &Scene| {
        for source in sources {
            let socket = scene.udp(Web, &format!("{source}:0"));
            socket
                .send_to(source.as_bytes(), "198.51.100.2:7")
                .expect("send");
        }
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        // The last one sent is the guest's own, and always arrives.
        while received.last().is_none_or(|last| last != WEB) {
            let length = receiver.recv(&mut buffer).expect("receive");
            received.push(String::from_utf8(buffer[..length].to_vec()).expect("text"));
        }
        received
    };
    assert!(
        received(&scene).len() > 1,
        "spoofing does not work in this scene anyway"
    );
    scene.ensure().await;
    assert_eq!(received(&scene), [WEB]);
}

#[tokio::test]
async fn nobody_outside_opens_a_connection_to_a_guest_but_answers_arrive() {
    if !enter_own_namespace("nobody_outside_opens_a_connection_to_a_guest_but_answers_arrive") {
        return;
    }
    let scene = Scene::build().await;
    let received = |scene: &Scene| {
        let asked = scene.udp(World, "198.51.100.2:0");
        let intruder = scene.udp(World, "198.51.100.2:0");
        let guest = scene.udp(Web, "10.100.0.3:0");
        guest
            .send_to(b"question", asked.local_addr().expect("address"))
            .expect("send");
        let mut buffer = [0; 64];
        let (_, asker) = asked.recv_from(&mut buffer).expect("question");
        intruder
            .send_to(b"intrusion", guest.local_addr().expect("address"))
            .expect("send");
        asked.send_to(b"answer", asker).expect("send");
        let length = guest.recv(&mut buffer).expect("receive");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    };
    assert_eq!(received(&scene), "intrusion");
    scene.ensure().await;
    assert_eq!(received(&scene), "answer");
}

#[tokio::test]
async fn guests_have_no_ipv6() {
    if !enter_own_namespace("guests_have_no_ipv6") {
        return;
    }
    if !Path::new("/proc/sys/net/ipv6").exists() {
        eprintln!("INNKEEPER-NOT-RUN: guests_have_no_ipv6: the kernel has no IPv6");
        return;
    }
    let scene = Scene::build().await;
    ip(&["addr", "add", "fd00::1/64", "dev", "ve-1", "nodad"]).await;
    scene.places[0]
        .ip(&["addr", "add", "fd00::2/64", "dev", "eth0", "nodad"])
        .await;
    let receiver = scene.udp(Host, "[::]:9999");
    let received = |scene: &Scene| {
        let old = scene.udp(Web, "10.100.0.3:0");
        let new = scene.udp(Web, "[fd00::2]:0");
        new.send_to(b"IPv6", "[fd00::1]:9999").expect("send");
        old.send_to(b"IPv4", "10.100.0.2:9999").expect("send");
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        while received.last().is_none_or(|last| last != "IPv4") {
            let length = receiver.recv(&mut buffer).expect("receive");
            received.push(String::from_utf8(buffer[..length].to_vec()).expect("text"));
        }
        received
    };
    // The neighbour is known, so that nothing but our rules holds the packet up.
    let mac = ip(&["link", "show", "ve-1"]).await[0]["address"]
        .as_str()
        .expect("mac")
        .to_owned();
    scene.places[0]
        .ip(&["neigh", "add", "fd00::1", "lladdr", &mac, "dev", "eth0"])
        .await;
    // The kernel puts a new address of this kind to use when it comes to it.
    for _ in 0..1000 {
        if received(&scene).len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(received(&scene), ["IPv6", "IPv4"]);
    scene.ensure().await;
    assert_eq!(received(&scene), ["IPv4"]);
}

#[tokio::test]
async fn open_connections_survive_new_rules_and_other_tables_are_left_alone() {
    if !enter_own_namespace("open_connections_survive_new_rules_and_other_tables_are_left_alone") {
        return;
    }
    let scene = Scene::build().await;
    run_nft(&["add table ip neighbour; add chain ip neighbour c { type filter hook forward priority 5; }; add rule ip neighbour c ip ttl 1 drop"]).await;
    let foreign = run_nft(&["list", "table", "ip", "neighbour"]).await;
    scene.ensure().await;
    let ours = scene
        .firewall
        .table
        .fingerprint()
        .await
        .expect("fingerprint");

    let listener = scene.at(World, || {
        TcpListener::bind("198.51.100.2:80").expect("listen")
    });
    let mut guest = scene.at(Web, || {
        TcpStream::connect("198.51.100.2:80").expect("connect")
    });
    let (mut world, _) = listener.accept().expect("accept");
    for round in 0..3u8 {
        scene.ensure().await;
        guest.write_all(&[round]).expect("write");
        let mut byte = [99];
        world.read_exact(&mut byte).expect("read");
        world.write_all(&byte).expect("write");
        guest.read_exact(&mut byte).expect("read");
        assert_eq!(byte, [round]);
    }
    assert_eq!(
        scene
            .firewall
            .table
            .fingerprint()
            .await
            .expect("fingerprint"),
        ours
    );
    assert_eq!(
        run_nft(&["list", "table", "ip", "neighbour"]).await,
        foreign
    );

    scene.firewall.remove().await.expect("remove");
    scene
        .firewall
        .remove()
        .await
        .expect("remove what is absent");
    let left = run_nft(&["list", "ruleset"]).await;
    assert_eq!(left, foreign, "{}", String::from_utf8_lossy(&left));
}

#[tokio::test]
async fn doctor_sees_rules_that_are_missing_changed_or_in_the_way() {
    if !enter_own_namespace("doctor_sees_rules_that_are_missing_changed_or_in_the_way") {
        return;
    }
    let firewall = driver(config());
    let verdicts = async || {
        let checks = firewall.check().await;
        checks
            .into_iter()
            .filter(|check| check.subject == SUBJECT)
            .map(|c| (c.verdict, c.finding))
            .collect::<Vec<_>>()
    };
    let has = |checks: &[(Verdict, String)], verdict, word: &str| {
        checks
            .iter()
            .any(|(v, finding)| *v == verdict && finding.contains(word))
    };
    std::fs::write(FORWARDING, "0").expect("forwarding");
    let seen = verdicts().await;
    assert!(has(&seen, Verdict::Broken, "is missing"), "{seen:?}");
    assert!(has(&seen, Verdict::Broken, "forwarding is off"), "{seen:?}");

    firewall.ensure().await.expect("ensure");
    let healthy = [(
        Verdict::Ok,
        "the table inet innkeeper is in force".to_owned(),
    )];
    assert_eq!(verdicts().await, healthy);

    run_nft(&["insert rule inet innkeeper forward accept"]).await;
    let seen = verdicts().await;
    assert!(has(&seen, Verdict::Broken, "was changed"), "{seen:?}");
    firewall.ensure().await.expect("ensure");
    assert_eq!(verdicts().await, healthy);

    // As Docker leaves it.
    run_nft(&["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"]).await;
    let seen = verdicts().await;
    assert!(
        has(&seen, Verdict::Warning, "ip filter FORWARD"),
        "{seen:?}"
    );

    let restarted = driver(config());
    let seen = restarted.check().await;
    assert!(
        seen[0].finding.contains("not written by this daemon"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn a_table_that_somebody_removes_is_noticed_and_what_we_write_is_not() {
    if !enter_own_namespace("a_table_that_somebody_removes_is_noticed_and_what_we_write_is_not") {
        return;
    }
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    for removal in ["flush ruleset", "delete table inet innkeeper"] {
        let ours_and_others = async {
            firewall.ensure().await.expect("ensure");
            run_nft(&["add table ip other; delete table ip other"]).await;
            firewall.ensure().await.expect("ensure");
        };
        tokio::select! {
            biased;
            () = firewall.disturbed() => panic!("nobody removed our table"),
            () = ours_and_others => {}
        }
        let somebody = async {
            run_nft(&[removal]).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = firewall.disturbed() => {}
            () = somebody => {}
        }
        assert_eq!(
            firewall.table.difference().await.expect("nft"),
            Some("is missing")
        );
        firewall.ensure().await.expect("ensure");
    }
}

#[tokio::test]
async fn refused_rules_leave_the_former_ones_in_force() {
    if !enter_own_namespace("refused_rules_leave_the_former_ones_in_force") {
        return;
    }
    let firewall = driver(config());
    firewall.ensure().await.expect("ensure");
    let before = run_nft(&["list", "ruleset"]).await;
    let bad = ruleset(&config()).replace("accept\n\t}", "accept\n\t\tjump nowhere\n\t}");
    assert_ne!(bad, ruleset(&config()));
    nft("write", &["--file", "-"], &bad)
        .await
        .expect_err("a chain that does not exist");
    assert_eq!(run_nft(&["list", "ruleset"]).await, before);
}

#[tokio::test]
async fn a_table_name_cannot_smuggle_in_commands() {
    for table in ["", "1up", "a b", "x; flush ruleset", "a{", &"a".repeat(33)] {
        let config = FirewallConfig {
            table: table.to_owned(),
            ..config()
        };
        let error = driver(config).ensure().await.expect_err(table);
        assert_eq!(error.code(), Code::InvalidConfig, "{table:?}");
    }
}

#[test]
fn the_rules_read_as_documented() {
    insta::assert_snapshot!(ruleset(&config()));
}

#[test]
fn networks_that_overlap_are_named_once() {
    let config = FirewallConfig {
        subnet: "100.100.0.0/16".parse().expect("net"),
        extra_private: [
            "10.1.0.0/16",
            "10.0.0.0/8",
            "198.51.100.0/24",
            "198.51.100.7/24",
        ]
        .map(|net| net.parse().expect("net"))
        .to_vec(),
        allowed_host_ports: Vec::new(),
        allow_dns: false,
        log_refusals: false,
        ..config()
    };
    insta::assert_snapshot!(ruleset(&config));
}
