//! Tests on the real kernel: a host, two guests and a network behind the host, each in its own namespace.

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

mod asleep;
mod filter;
mod first_packets;
mod limits;
mod resolver;
mod table;
mod traffic;
mod uplink;

fn config() -> FirewallConfig {
    FirewallConfig {
        subnet: "10.100.0.0/16".parse().expect("net"),
        table: "innkeeper".to_owned(),
        allow_dns: true,
        resolver: None,
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
        web: Some(WebPorts {
            public: 443,
            url: 443,
            guests: 3443,
        }),
        extra_private: vec!["203.0.113.0/24".parse().expect("net")],
        connections_per_guest: 20,
        log_group: 26_987,
        parking: crate::network::parking_interface(Identity::of('a').daemon()),
    }
}

/// A driver with a table for builds, if this machine has users for them.
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

/// A host with two guests, and a network behind the host that responds to every packet.
struct Scene {
    firewall: NftFirewall,
    /// The namespaces of the two guests and of the network behind the host.
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
/// Addresses of the network behind the host in addition to its own.
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
            identity: Identity::of('a'),
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

    /// Tries a connection to a listening port. Returns the source address at the listener, if the connection arrives.
    fn try_tcp(&self, (from, to, address, port): Row) -> Option<IpAddr> {
        let target = SocketAddr::new(address.parse().expect("address"), port);
        let listener = self.at(to, move || TcpListener::bind(target).expect("listen"));
        self.connect(from, target, &listener)
    }

    /// Tries a connection to an address. Returns the source address at the listener, if the connection arrives there.
    fn connect(&self, from: Place, target: SocketAddr, listener: &TcpListener) -> Option<IpAddr> {
        // A refusal is immediate. Only a dropped packet, which is a fault, would reach the timeout.
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
                assert!(listener.accept().is_err(), "{from:?} to {target} arrived");
                listener.set_nonblocking(false).expect("blocking");
                None
            }
        }
    }

    fn udp(&self, place: Place, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("address");
        self.at(place, move || UdpSocket::bind(address).expect("bind"))
    }
}

/// Source, destination, and its address and port.
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
