//! Checks of the host's network, for `doctor`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{Explain, Slot, chain};
use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::error::NetworkError;
use super::link::{self, Link, Owner};
use super::netlink::Netlink;
use super::requests::links;
use super::setup::uplink_mtu;
use crate::identity::Identity;

const SUBJECT: &str = "network";

/// The check when netlink does not respond.
fn unreachable(error: &NetworkError) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Broken,
        finding: chain(error),
        remedy: error.remedy(),
    }
}

/// Checks for conflicts of the host with guests' interfaces and addresses.
pub(super) async fn check(netlink: &Netlink, subnet: Ipv4Net, own: &Identity) -> Vec<Check> {
    match HostNetwork::read(netlink, own).await {
        Ok(seen) => {
            let mut checks = seen.findings(subnet);
            checks.extend(seen.mtu_findings());
            if checks.is_empty() {
                checks.push(Check {
                    subject: SUBJECT.to_owned(),
                    verdict: Verdict::Ok,
                    finding: format!("netlink responds, and nothing else uses {subnet}"),
                    remedy: None,
                });
            }
            checks
        }
        Err(error) => vec![unreachable(&error)],
    }
}

/// Describes a network of the host that overlaps with the guests' subnet; `None` without one.
///
/// Single addresses and routes to single addresses are ignored: guests of a predecessor have them, and the import of slots
/// reserves theirs. Routes to larger networks are ignored too, since those to guests are more specific.
pub(super) async fn conflict(
    netlink: &Netlink,
    own: &Identity,
    subnet: Ipv4Net,
) -> Result<Option<String>, NetworkError> {
    let seen = HostNetwork::read(netlink, own).await?;
    Ok(seen.conflict(subnet))
}

/// The relevant parts of the host's network.
#[derive(Debug, Default)]
struct HostNetwork {
    links: Vec<Link>,
    /// The MTU of the route to the internet, if the host has one.
    uplink_mtu: Option<u32>,
    /// The index of the interface, and the address with its network's prefix.
    addresses: Vec<(u32, Ipv4Net)>,
    /// The index of the interface, and the destination; without default routes.
    routes: Vec<(u32, Ipv4Net)>,
}

impl HostNetwork {
    async fn read(netlink: &Netlink, own: &Identity) -> Result<Self, NetworkError> {
        let mut links = links(netlink, link::list()).await?;
        for link in &mut links {
            // Another daemon's guests do not belong in this subnet.
            if let Owner::Guest(_, Some(daemon)) | Owner::Parking(daemon) = &link.owner
                && daemon != own.daemon()
            {
                link.owner = Owner::Foreign;
            }
        }
        let mut get_addresses = AddressMessage::default();
        get_addresses.header.family = AddressFamily::Inet;
        let addresses = netlink
            .list(RouteNetlinkMessage::GetAddress(get_addresses))
            .await
            .map_err(|error| NetworkError::kernel("list the addresses", error))?;
        let mut get_routes = RouteMessage::default();
        get_routes.header.address_family = AddressFamily::Inet;
        let routes = netlink
            .list(RouteNetlinkMessage::GetRoute(get_routes))
            .await
            .map_err(|error| NetworkError::kernel("list the routes", error))?;
        let home = netlink.home().map_err(NetworkError::Netlink)?;
        Ok(Self {
            links,
            uplink_mtu: uplink_mtu(&home).await?,
            addresses: addresses.iter().filter_map(address).collect(),
            routes: routes.iter().filter_map(route).collect(),
        })
    }

    fn conflict(&self, subnet: Ipv4Net) -> Option<String> {
        let strangers = || {
            let links = self.links.iter();
            links.filter(|link| link.owner == Owner::Foreign)
        };
        let of =
            |link: &Link, networks: &[(u32, Ipv4Net)], conflicts: &dyn Fn(&Ipv4Net) -> bool| {
                let mut own = networks.iter().filter(|(index, _)| *index == link.index);
                own.find(|(_, network)| network.prefix_len() < 32 && conflicts(network))
                    .map(|(_, network)| *network)
            };
        strangers().find_map(|link| {
            let address = of(link, &self.addresses, &|network| {
                network.contains(&subnet) || subnet.contains(&network.trunc())
            });
            let route = || of(link, &self.routes, &|network| subnet.contains(network));
            match (address, address.is_none().then(route).flatten()) {
                (Some(address), _) => Some(format!(
                    "the interface {} has the address {address}, whose network overlaps with the guests' subnet {subnet}",
                    link.name
                )),
                (None, Some(route)) => Some(format!(
                    "the route to {route} through {} lies in the guests' subnet {subnet}",
                    link.name
                )),
                (None, None) => None,
            }
        })
    }

    /// Returns a finding for each guest's interface whose MTU differs from that of the route to the internet.
    fn mtu_findings(&self) -> Vec<Check> {
        let Some(uplink) = self.uplink_mtu else {
            return Vec::new();
        };
        let guests = self
            .links
            .iter()
            .filter(|link| matches!(link.owner, Owner::Guest(..)) && link.mtu != uplink);
        guests.map(|link| mtu_differs(link, uplink)).collect()
    }

    fn findings(&self, subnet: Ipv4Net) -> Vec<Check> {
        let names: HashMap<u32, &Link> = self.links.iter().map(|link| (link.index, link)).collect();
        let stranger = |index: &u32| {
            names
                .get(index)
                .filter(|link| link.owner == Owner::Foreign)
                .map(|link| &*link.name)
        };
        let mut checks = Vec::new();
        let mut reported = Vec::new();
        for (index, address) in &self.addresses {
            let address = address.addr();
            if let Some(name) = stranger(index).filter(|_| subnet.contains(&address)) {
                checks.push(address_inside(name, address, subnet));
                reported.push(index);
            }
        }
        for (index, destination) in &self.routes {
            let overlaps = subnet.contains(destination) || destination.contains(&subnet);
            // The route of an address is a duplicate of it.
            if let Some(name) = stranger(index).filter(|_| overlaps && !reported.contains(&index)) {
                checks.push(route_overlaps(name, *destination, subnet));
            }
        }
        let is_ours_by_name = |link: &&Link| Slot::from_interface(&link.name).is_some();
        let strangers = self
            .links
            .iter()
            .filter(|link| link.owner == Owner::Foreign);
        checks.extend(
            strangers
                .filter(is_ours_by_name)
                .map(|link| name_taken(&link.name)),
        );
        checks
    }
}

fn address(message: &RouteNetlinkMessage) -> Option<(u32, Ipv4Net)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })?;
    let address = Ipv4Net::new(local, message.header.prefix_len).ok()?;
    Some((message.header.index, address))
}

fn route(message: &RouteNetlinkMessage) -> Option<(u32, Ipv4Net)> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let (mut destination, mut index) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                destination = Ipv4Net::new(*address, header.destination_prefix_length).ok();
            }
            RouteAttribute::Oif(oif) => index = Some(*oif),
            _ => {}
        }
    }
    Some((index?, destination?))
}

fn mtu_differs(link: &Link, uplink: u32) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Warning,
        finding: format!(
            "the interface {} has an MTU of {}, and the host's default route one of {uplink}",
            link.name, link.mtu
        ),
        remedy: Some(
            "innkeeperd corrects it within `engine.interval_seconds`; if it does not, restart the guest."
                .to_owned(),
        ),
    }
}

fn address_inside(name: &str, address: Ipv4Addr, subnet: Ipv4Net) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Broken,
        finding: format!(
            "the interface {name} has the address {address}, which lies in the guests' subnet {subnet}"
        ),
        remedy: Some(
            "Set `network.subnet` to a network that nothing else on this host uses, or give the interface another address."
                .to_owned(),
        ),
    }
}

fn route_overlaps(name: &str, destination: Ipv4Net, subnet: Ipv4Net) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Warning,
        finding: format!(
            "the route to {destination} through {name} overlaps with the guests' subnet {subnet}: machines there that have a guest's address cannot be reached from this host"
        ),
        remedy: Some(
            "Set `network.subnet` to a network that this host has no route to, if that matters."
                .to_owned(),
        ),
    }
}

fn name_taken(name: &str) -> Check {
    Check {
        subject: SUBJECT.to_owned(),
        verdict: Verdict::Warning,
        finding: format!("the interface {name} has a name of Innkeeper's and is not managed by it"),
        remedy: Some(format!(
            "Rename or remove it before a guest gets that slot; `ip -d link show {name}` shows more."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, owner: Owner) -> Link {
        Link {
            index,
            name: name.to_owned(),
            peer: None,
            mtu: 1500,
            is_up: true,
            is_running: true,
            is_grouped: false,
            owner,
        }
    }

    #[test]
    fn check_reports_conflicts_in_the_subnet_once() {
        let seen = HostNetwork {
            uplink_mtu: None,
            links: vec![
                link(2, "eth0", Owner::Foreign),
                link(3, "wg0", Owner::Foreign),
                link(4, "ve-1", Owner::Unmarked),
                link(5, "ve-9", Owner::Foreign),
            ],
            addresses: vec![
                (2, "10.100.7.1/24".parse().expect("net")),
                (3, "192.168.0.1/24".parse().expect("net")),
                (4, "10.100.0.2/32".parse().expect("net")),
            ],
            routes: vec![
                (2, "10.100.7.0/24".parse().expect("net")),
                (3, "10.0.0.0/8".parse().expect("net")),
                (3, "192.168.0.0/24".parse().expect("net")),
                (4, "10.100.0.3/32".parse().expect("net")),
            ],
        };
        let checks = seen.findings("10.100.0.0/16".parse().expect("net"));
        let reported: Vec<_> = checks
            .iter()
            .map(|check| (check.verdict, check.finding.as_str()))
            .collect();
        insta::assert_debug_snapshot!(reported);
    }

    #[test]
    fn conflict_ignores_guests() {
        let conflict = |addresses: &[(u32, &str)], routes: &[(u32, &str)]| {
            let parsed = |networks: &[(u32, &str)]| {
                let networks = networks.iter();
                let parsed = networks.map(|(index, net)| (*index, net.parse().expect("a network")));
                parsed.collect()
            };
            let seen = HostNetwork {
                links: vec![
                    link(2, "eth0", Owner::Foreign),
                    link(4, "ve-1", Owner::Unmarked),
                ],
                addresses: parsed(addresses),
                routes: parsed(routes),
                uplink_mtu: None,
            };
            seen.conflict("10.100.0.0/16".parse().expect("a network"))
        };
        for (addresses, routes, expected) in [
            (
                &[(2, "10.100.7.1/24")][..],
                &[(2, "10.100.7.0/24")][..],
                "the interface eth0 has the address 10.100.7.1/24, whose network overlaps with the guests' subnet 10.100.0.0/16",
            ),
            (
                &[(2, "10.1.2.3/8")],
                &[],
                "the interface eth0 has the address 10.1.2.3/8, whose network overlaps with the guests' subnet 10.100.0.0/16",
            ),
            (
                &[],
                &[(2, "10.100.0.0/16")],
                "the route to 10.100.0.0/16 through eth0 lies in the guests' subnet 10.100.0.0/16",
            ),
        ] {
            assert_eq!(conflict(addresses, routes).as_deref(), Some(expected));
        }
        // Guests of this daemon and of a predecessor, another network, and a route to a larger one.
        let none = conflict(
            &[
                (4, "10.100.0.2/32"),
                (2, "10.100.0.4/32"),
                (2, "10.101.0.1/16"),
            ],
            &[
                (4, "10.100.0.3/32"),
                (2, "10.100.0.5/32"),
                (2, "10.0.0.0/8"),
            ],
        );
        assert_eq!(none, None);
    }
}
