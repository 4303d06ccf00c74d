//! Tests on the real kernel, each in its own namespaces.

mod parking;
mod rename;

use std::collections::BTreeSet;
use std::net::UdpSocket;

use innkeeper_facilities::FacilityError;
use innkeeper_model::api::Verdict;
use innkeeper_model::{Code, Explain};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};

use super::testing::{Leader, enter_own_namespace, guest, ip};
use super::*;
use crate::identity::Identity;

fn network() -> VethNetwork {
    network_of(Identity::of('a'))
}

fn network_of(identity: Identity) -> VethNetwork {
    VethNetwork::new(NetworkConfig {
        range: "10.100.0.0/16".parse().expect("range"),
        identity,
    })
}

async fn interfaces() -> BTreeSet<String> {
    let links = ip(&["link"]).await;
    let names = links.as_array().expect("list").iter();
    names
        .map(|link| link["ifname"].as_str().expect("name").to_owned())
        .collect()
}

fn only_lo() -> BTreeSet<String> {
    BTreeSet::from(["lo".to_owned()])
}

fn code(error: &FacilityError) -> Code {
    error.code()
}

/// Returns each namespace's addresses and routes from `ip`, without values that differ between runs.
async fn both_ends(leader: &Leader) -> String {
    let mut text = String::new();
    for (end, addresses, routes, links) in [
        (
            "host",
            ip(&["addr"]).await,
            ip(&["route"]).await,
            ip(&["link"]).await,
        ),
        (
            "guest",
            leader.ip(&["addr"]).await,
            leader.ip(&["route"]).await,
            leader.ip(&["link"]).await,
        ),
    ] {
        for link in links.as_array().expect("links") {
            let (name, state) = (&link["ifname"], &link["operstate"]);
            let (mac, alias, group) = (&link["address"], &link["ifalias"], &link["group"]);
            text += &format!("{end}: {name} {state} {mac} alias {alias} group {group}\n");
        }
        for link in addresses.as_array().expect("addresses") {
            for address in link["addr_info"].as_array().expect("list") {
                let (local, length) = (&address["local"], &address["prefixlen"]);
                text += &format!("{end}: {} {local}/{length}\n", link["ifname"]);
            }
        }
        for route in routes.as_array().expect("routes") {
            let (to, via) = (&route["dst"], &route["gateway"]);
            let (dev, scope) = (&route["dev"], &route["scope"]);
            text += &format!("{end}: route {to} via {via} dev {dev} scope {scope}\n");
        }
    }
    text.replace('"', "")
}

#[tokio::test]
async fn ensure_returns_a_complete_network() {
    if !enter_own_namespace("ensure_returns_a_complete_network") {
        return;
    }
    let (network, guest) = (network(), guest("web-1", 7));
    for leader in [
        Leader::start().await,
        Leader::start_in_user_namespace().await,
    ] {
        network.ensure(&guest, leader.pid).await.expect("ensure");
        insta::assert_snapshot!("both_ends", both_ends(&leader).await);
        assert!(network.is_complete(&guest).await.expect("is_complete"));
        network.remove(&guest.name).await.expect("remove");
        leader.stop().await;
    }
}

/// Returns the kernel's count of ARP requests for a guest's neighbors. It starts at the number of unicast probes, whose
/// default is 3 (arp(7)).
async fn questions(network: &VethNetwork, leader: &Leader) -> Vec<u32> {
    let runtime = network.netlink.runtime().expect("runtime");
    let inside = Namespace::of(leader.pid)
        .expect("namespace")
        .connect(runtime)
        .await;
    let mut query = NeighbourMessage::default();
    query.header.family = AddressFamily::Inet;
    let query = RouteNetlinkMessage::GetNeighbour(query);
    let neighbours = inside.expect("connect").list(query).await.expect("list");
    let probes = |message| match message {
        RouteNetlinkMessage::NewNeighbour(neighbour) => neighbour.attributes,
        other => panic!("{other:?}"),
    };
    let attributes = neighbours.into_iter().flat_map(probes);
    attributes
        .filter_map(|attribute| match attribute {
            NeighbourAttribute::Probes(count) => Some(count - 3),
            _ => None,
        })
        .collect()
}

/// A packet that is lost right after the creation of the network is retried a second later, so only a count shows the loss.
#[tokio::test]
async fn first_packets_arrive_in_both_directions() {
    if !enter_own_namespace("first_packets_arrive_in_both_directions") {
        return;
    }
    let network = network();
    // The teardown of each namespace keeps the kernel busy during the next creation, and a busy kernel detects the carrier
    // late.
    for slot in 1..=30 {
        let guest = guest("web-1", slot);
        let leader = Leader::start().await;
        network.ensure(&guest, leader.pid).await.expect("ensure");
        let addresses = network.addresses(guest.slot).expect("addresses");
        let on_host = UdpSocket::bind((addresses.host, 0)).expect("bind");
        let to = on_host.local_addr().expect("address");
        let received = leader.inside(move || {
            let in_guest = UdpSocket::bind((addresses.guest, 0)).expect("bind");
            in_guest.send_to(b"hello", to).expect("send");
            in_guest.recv_from(&mut [0; 16]).expect("a packet").1
        });
        let (_, from) = on_host.recv_from(&mut [0; 16]).expect("a packet");
        on_host.send_to(b"welcome", from).expect("send");
        assert_eq!(from.ip(), addresses.guest);
        assert_eq!(received.join().expect("thread"), to);
        assert_eq!(
            questions(&network, &leader).await,
            [1],
            "the guest had to ask again"
        );
        network.remove(&guest.name).await.expect("remove");
    }
}

#[tokio::test]
async fn ensure_replaces_stale_and_refuses_foreign_interfaces() {
    if !enter_own_namespace("ensure_replaces_stale_and_refuses_foreign_interfaces") {
        return;
    }
    let (network, leader) = (network(), Leader::start().await);
    let old = Leader::start().await;
    network
        .ensure(&guest("old", 1), old.pid)
        .await
        .expect("ensure");
    network
        .ensure(&guest("new", 1), leader.pid)
        .await
        .expect("ensure over a stale one");
    let found = network.observe().await.expect("observe");
    let name = GuestName::parse("new").expect("name");
    assert_eq!(found, [Found::ours(Some(name), "ve-1".to_owned())]);

    // Unfinished: the daemon crashed before it set the alias.
    ip(&["link", "set", "ve-1", "alias", ""]).await;
    network
        .ensure(&guest("new", 1), leader.pid)
        .await
        .expect("ensure over a half-made one");

    ip(&[
        "link", "add", "ve-2", "type", "veth", "peer", "name", "other",
    ])
    .await;
    let before = ip(&["link", "show", "ve-2"]).await;
    let refused = network
        .ensure(&guest("web", 2), old.pid)
        .await
        .expect_err("taken");
    assert_eq!(code(&refused), Code::InterfaceTaken);
    assert_eq!(
        ip(&["link", "show", "ve-2"]).await,
        before,
        "a stranger's interface was changed"
    );
    assert!(
        !network
            .is_complete(&guest("web", 2))
            .await
            .expect("is_complete")
    );
    let checks = network.check().await;
    assert!(
        checks
            .iter()
            .any(|c| c.verdict == Verdict::Warning && c.finding.contains("ve-2")),
        "{checks:?}"
    );
}

#[tokio::test]
async fn interfaces_of_other_daemons_are_listed_but_never_changed() {
    if !enter_own_namespace("interfaces_of_other_daemons_are_listed_but_never_changed") {
        return;
    }
    let (ours, theirs) = (network(), network_of(Identity::of('b')));
    let (guest, leader) = (guest("web", 1), Leader::start().await);
    theirs.ensure(&guest, leader.pid).await.expect("ensure");
    let before = ip(&["addr", "show", "ve-1"]).await;

    let found = ours.observe().await.expect("observe");
    let expected = Found {
        guest: Some(guest.name.clone()),
        object: "ve-1".to_owned(),
        ownership: Ownership::Other,
    };
    assert_eq!(found, [expected]);
    assert!(!ours.is_complete(&guest).await.expect("is_complete"));
    for ours in [network(), network_of(Identity::of('a').adopting())] {
        ours.adopt(&guest).await.expect("adopt");
        ours.remove(&guest.name).await.expect("remove");
        ours.sweep(&found[0]).await.expect("sweep");
        let mistaken = Found::ours(Some(guest.name.clone()), "ve-1".to_owned());
        ours.sweep(&mistaken).await.expect("sweep");
        let other = Leader::start().await;
        let refused = ours.ensure(&guest, other.pid).await.expect_err("taken");
        assert_eq!(code(&refused), Code::InterfaceTaken);
        assert!(chain_of(&refused).contains("another Innkeeper daemon"));
    }
    assert_eq!(ip(&["addr", "show", "ve-1"]).await, before);
    assert!(theirs.is_complete(&guest).await.expect("is_complete"));
}

fn chain_of(error: &FacilityError) -> String {
    innkeeper_model::chain(error)
}

#[tokio::test]
async fn adopt_marks_only_the_recorded_guests_interface() {
    if !enter_own_namespace("adopt_marks_only_the_recorded_guests_interface") {
        return;
    }
    let network = network();
    let (web, leader) = (guest("web", 1), Leader::start().await);
    network.ensure(&web, leader.pid).await.expect("ensure");
    let alias = async || ip(&["link", "show", "ve-1"]).await[0]["ifalias"].clone();
    let marked = alias().await;
    let former = "innkeeper:web";
    ip(&["link", "set", "ve-1", "alias", former]).await;
    let found = network.observe().await.expect("observe");
    assert_eq!(found[0].ownership, Ownership::Unmarked);

    // Another name, another slot, no record.
    for other in [guest("db", 1), guest("web", 2)] {
        network.adopt(&other).await.expect("adopt");
    }
    network.remove(&web.name).await.expect("remove");
    assert_eq!(alias().await, former);
    let other = Leader::start().await;
    let refused = network.ensure(&web, other.pid).await.expect_err("taken");
    assert_eq!(code(&refused), Code::InterfaceTaken);

    network.adopt(&web).await.expect("adopt");
    assert_eq!(alias().await, marked);
    assert!(network.is_complete(&web).await.expect("is_complete"));

    ip(&["link", "set", "ve-1", "alias", former]).await;
    let adopting = network_of(Identity::of('a').adopting());
    adopting.remove(&web.name).await.expect("remove");
    assert_eq!(interfaces().await, only_lo());
}

#[tokio::test]
async fn ensure_works_again_for_a_guest_that_runs() {
    if !enter_own_namespace("ensure_works_again_for_a_guest_that_runs") {
        return;
    }
    let (network, guest) = (network(), guest("web", 3));
    let leader = Leader::start_in_user_namespace().await;
    for _ in 0..2 {
        network.ensure(&guest, leader.pid).await.expect("ensure");
        assert!(network.is_complete(&guest).await.expect("is_complete"));
    }
    let before = both_ends(&leader).await;
    // The host's end is gone, and the guest has created another interface of that name.
    ip(&["link", "del", "ve-3"]).await;
    assert!(!network.is_complete(&guest).await.expect("is_complete"));
    leader
        .ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "far"])
        .await;
    network.ensure(&guest, leader.pid).await.expect("ensure");
    assert_eq!(both_ends(&leader).await, before);
}

#[tokio::test]
async fn is_complete_detects_missing_parts_on_the_host() {
    if !enter_own_namespace("is_complete_detects_missing_parts_on_the_host") {
        return;
    }
    let (network, guest) = (network(), guest("web", 3));
    let leader = Leader::start().await;
    for damage in [
        &["link", "set", "ve-3", "down"][..],
        &["link", "set", "ve-3", "alias", "innkeeper:other"],
        &["link", "set", "ve-3", "group", "default"],
        &["link", "set", "ve-3", "name", "elsewhere"],
        &["addr", "flush", "dev", "ve-3"],
        &["route", "del", "10.100.0.7/32"],
        &["link", "del", "ve-3"],
    ] {
        network.ensure(&guest, leader.pid).await.expect("ensure");
        assert!(
            network.is_complete(&guest).await.expect("is_complete"),
            "before {damage:?}"
        );
        ip(damage).await;
        assert!(
            !network.is_complete(&guest).await.expect("is_complete"),
            "after {damage:?}"
        );
        network.remove(&guest.name).await.expect("remove");
        if interfaces().await != only_lo() {
            ip(&["link", "del", "ve-3"]).await;
        }
    }
}

#[tokio::test]
async fn a_removed_interface_is_not_listed_and_its_slot_is_free() {
    if !enter_own_namespace("a_removed_interface_is_not_listed_and_its_slot_is_free") {
        return;
    }
    let (network, web) = (network(), guest("web", 1));
    let leader = Leader::start().await;
    for _ in 0..20 {
        network.ensure(&web, leader.pid).await.expect("ensure");
        // The kernel may still work on the removal.
        network.remove(&web.name).await.expect("remove");
        assert_eq!(interfaces().await, only_lo());
        assert_eq!(ip(&["route"]).await, serde_json::json!([]));
    }
    leader.stop().await;
}

#[tokio::test]
async fn remove_is_complete_and_idempotent() {
    if !enter_own_namespace("remove_is_complete_and_idempotent") {
        return;
    }
    let network = network();
    let (one, two) = (guest("one", 1), guest("two", 2));
    let (leader, other) = (Leader::start().await, Leader::start().await);
    network.ensure(&one, leader.pid).await.expect("ensure");
    network.ensure(&two, other.pid).await.expect("ensure");
    // Found by its alias, not by its name.
    ip(&["link", "set", "ve-1", "name", "renamed"]).await;
    network.remove(&one.name).await.expect("remove");
    network
        .remove(&one.name)
        .await
        .expect("remove what is absent");
    assert_eq!(
        interfaces().await,
        BTreeSet::from(["lo".to_owned(), "ve-2".to_owned()])
    );

    // An interface of another program with that name, and one with another owner by now, stay.
    let [found] = <[_; 1]>::try_from(network.observe().await.expect("observe")).expect("one");
    let mistaken = Found::ours(Some(one.name), "ve-2".to_owned());
    network.sweep(&mistaken).await.expect("sweep");
    assert!(interfaces().await.contains("ve-2"));
    network.sweep(&found).await.expect("sweep");
    network.sweep(&found).await.expect("sweep what is absent");
    assert_eq!(interfaces().await, only_lo());

    // The kernel removes it with its namespace, and removing it meanwhile is success.
    network.ensure(&two, other.pid).await.expect("ensure");
    other.stop().await;
    network
        .remove(&two.name)
        .await
        .expect("remove while it goes");
    assert_eq!(interfaces().await, only_lo());
}

#[tokio::test]
async fn guests_namespace_is_not_kept_alive() {
    if !enter_own_namespace("guests_namespace_is_not_kept_alive") {
        return;
    }
    let network = network();
    let leader = Leader::start().await;
    network
        .ensure(&guest("web", 1), leader.pid)
        .await
        .expect("ensure");
    leader.stop().await;
    // The pair goes with the last user of the namespace; an open socket of the daemon would keep it forever.
    while interfaces().await != only_lo() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn ensure_refuses_the_hosts_namespace_and_dead_guests() {
    if !enter_own_namespace("ensure_refuses_the_hosts_namespace_and_dead_guests") {
        return;
    }
    let (network, guest) = (network(), guest("web", 1));
    let sibling = crate::command::command("cat")
        .stdin(std::process::Stdio::piped())
        .spawn();
    let sibling = sibling.expect("cat");
    let error = network
        .ensure(&guest, sibling.id().expect("running"))
        .await
        .expect_err("host's")
        .downcast();
    assert!(
        matches!(error, Ok(NetworkError::HostNamespace { .. })),
        "{error:?}"
    );
    let error = network
        .ensure(&guest, u32::MAX)
        .await
        .expect_err("no such process");
    assert_eq!(code(&error), Code::GuestDied);
    assert_eq!(interfaces().await, only_lo());
}

#[tokio::test]
async fn ensure_refuses_slots_outside_the_subnet() {
    let error = network()
        .ensure(&guest("web", 127), 1)
        .await
        .expect_err("no address");
    assert_eq!(code(&error), Code::InvalidConfig);
}

#[tokio::test]
async fn twenty_at_once_get_their_networks_and_lose_them() {
    if !enter_own_namespace("twenty_at_once_get_their_networks_and_lose_them") {
        return;
    }
    let network = network();
    let guests: Vec<_> = (1..=20)
        .map(|slot| guest(&format!("web-{slot}"), slot))
        .collect();
    let leaders = futures_util::future::join_all(guests.iter().map(|_| Leader::start())).await;
    let made = guests
        .iter()
        .zip(&leaders)
        .map(|(guest, leader)| network.ensure(guest, leader.pid));
    for result in futures_util::future::join_all(made).await {
        result.expect("ensure");
    }
    assert_eq!(network.observe().await.expect("observe").len(), 20);
    for guest in &guests {
        assert!(
            network.is_complete(guest).await.expect("is_complete"),
            "{}",
            guest.name
        );
    }
    let removed = guests.iter().map(|guest| network.remove(&guest.name));
    for result in futures_util::future::join_all(removed).await {
        result.expect("remove");
    }
    assert_eq!(interfaces().await, only_lo());
}

#[tokio::test]
async fn broken_connection_is_reopened() {
    if !enter_own_namespace("broken_connection_is_reopened") {
        return;
    }
    let network = network();
    network.observe().await.expect("observe");
    network.netlink.break_home();
    // A request in flight fails, and later ones succeed.
    while !network.netlink.is_home_broken() {
        tokio::task::yield_now().await;
    }
    assert_eq!(network.observe().await.expect("observe"), []);
}

/// Returns the MTU of an interface in the output of `ip link show`.
fn mtu_of(shown: &serde_json::Value) -> u64 {
    shown[0]["mtu"].as_u64().expect("mtu")
}

#[tokio::test]
async fn mtu_follows_the_default_route() {
    if !enter_own_namespace("mtu_follows_the_default_route") {
        return;
    }
    let (network, guest) = (network(), guest("web", 3));
    let leader = Leader::start_in_user_namespace().await;
    let both = async || {
        let outer = mtu_of(&ip(&["link", "show", "ve-3"]).await);
        (outer, mtu_of(&leader.ip(&["link", "show", "eth0"]).await))
    };
    ip(&["link", "add", "wan", "type", "veth", "peer", "name", "far"]).await;
    ip(&["link", "set", "wan", "mtu", "1280", "up"]).await;
    ip(&["link", "set", "far", "up"]).await;
    ip(&["addr", "add", "198.51.100.1/24", "dev", "wan"]).await;
    let via = ["default", "via", "198.51.100.2"];
    ip(&[&["route", "add"][..], &via].concat()).await;
    network.ensure(&guest, leader.pid).await.expect("ensure");
    assert_eq!(both().await, (1280, 1280));

    // The interface's MTU changes, and then that of the route alone.
    for (change, mtu) in [
        (&["link", "set", "wan", "mtu", "1400"][..], 1400),
        (
            &[&["route", "replace"], &via[..], &["mtu", "1300"]].concat(),
            1300,
        ),
    ] {
        ip(change).await;
        let checks = network.check().await;
        let reported = |check: &Check| check.finding.contains(&format!("one of {mtu}"));
        assert!(checks.iter().any(reported), "{checks:?}");
        network
            .follow_uplink(&guest, leader.pid)
            .await
            .expect("follow");
        assert_eq!(both().await, (mtu, mtu));
        assert_eq!(network.check().await[0].verdict, Verdict::Ok);
    }
}

#[tokio::test]
async fn addresses_that_others_use_are_reported() {
    if !enter_own_namespace("addresses_that_others_use_are_reported") {
        return;
    }
    let (network, leader) = (network(), Leader::start().await);
    network
        .ensure(&guest("web", 1), leader.pid)
        .await
        .expect("ensure");
    let verdicts = async || {
        let checks = network.check().await;
        checks.iter().map(|check| check.verdict).collect::<Vec<_>>()
    };
    assert_eq!(verdicts().await, [Verdict::Ok]);
    ip(&["link", "add", "lan", "type", "veth", "peer", "name", "far"]).await;
    ip(&["link", "set", "lan", "up"]).await;
    ip(&["addr", "add", "10.100.9.9/24", "dev", "lan"]).await;
    assert_eq!(verdicts().await, [Verdict::Broken]);
    ip(&["addr", "flush", "dev", "lan"]).await;
    ip(&["route", "add", "10.0.0.0/8", "dev", "lan"]).await;
    assert_eq!(verdicts().await, [Verdict::Warning]);
}

/// A measurement: prints the time of each verb. `cargo nextest run --run-ignored all
/// how_long_it_takes --no-capture`.
#[tokio::test(flavor = "current_thread")]
#[ignore = "a measurement"]
async fn how_long_it_takes() {
    assert!(enter_own_namespace("how_long_it_takes"));
    let network = network();
    let mut times = [const { Vec::new() }; 3];
    for slot in 1..=50 {
        let guest = guest("web", slot);
        let leader = Leader::start().await;
        let start = std::time::Instant::now();
        network.ensure(&guest, leader.pid).await.expect("ensure");
        times[0].push(start.elapsed());
        let start = std::time::Instant::now();
        assert!(network.is_complete(&guest).await.expect("is_complete"));
        times[1].push(start.elapsed());
        let start = std::time::Instant::now();
        network.remove(&guest.name).await.expect("remove");
        times[2].push(start.elapsed());
    }
    for (verb, mut times) in ["ensure", "is_complete", "remove"].into_iter().zip(times) {
        times.sort();
        println!(
            "{verb}: median {:?}, min {:?}, max {:?}",
            times[25], times[0], times[49]
        );
    }
}
