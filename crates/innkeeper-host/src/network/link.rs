//! Netlink messages for veth pairs, and the parsed state of an interface.

use std::net::Ipv4Addr;

use innkeeper_model::{DaemonId, GuestName, Slot};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use super::INTERFACE_GROUP;
use super::netlink::Request;

/// The prefix of the alias of a guest's interface (see `ip link`). The guest's name and the daemon follow.
const ALIAS_PREFIX: &str = "innkeeper:";

/// The prefix of the name of the interface of [parked](super::parking) addresses. The daemon's digits follow.
pub(super) const PARKING_PREFIX: &str = "ve-rest-";

/// The separator between the guest's name and the daemon. Former releases wrote neither.
const ALIAS_SEPARATOR: char = '@';

/// The name of the guest's end inside the guest.
pub(super) const GUEST_INTERFACE: &str = "eth0";

/// The index of `lo` in every network namespace.
pub(super) const LOOPBACK: u32 = 1;

/// An end of the pair.
#[derive(Clone, Copy)]
enum End {
    Host = 0,
    Guest = 1,
}

/// Returns the hardware address of an end: `02` makes it locally administered, `69` is an `i`, and the rest comes from the
/// slot. It is set at the creation, because udev replaces an address of the kernel's choice later, when the other end has
/// already learned it.
fn hardware_address(slot: Slot, end: End) -> Vec<u8> {
    let [_, high, middle, low] = slot.number().to_be_bytes();
    vec![0x02, 0x69, end as u8, high, middle, low]
}

/// Creates the pair atomically, with the guest's end in the namespace of the descriptor, both with `mtu`.
pub(super) fn create_pair(slot: Slot, namespace: std::os::fd::RawFd, mtu: u32) -> Request {
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(GUEST_INTERFACE)
        .address(hardware_address(slot, End::Guest))
        .mtu(mtu)
        .setns_by_fd(namespace)
        .build();
    let pair = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
        .name(slot.interface())
        .address(hardware_address(slot, End::Host))
        .mtu(mtu)
        .link_group(INTERFACE_GROUP)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    Request::create(RouteNetlinkMessage::NewLink(pair))
}

/// Marks an interface with its guest and daemon.
pub(super) fn mark(index: u32, guest: &GuestName, daemon: &DaemonId) -> Request {
    let alias = format!("{ALIAS_PREFIX}{guest}{ALIAS_SEPARATOR}{daemon}");
    let link = LinkUnspec::new_with_index(index).alias(alias);
    Request::new(RouteNetlinkMessage::SetLink(link.build()))
}

/// Marks an end of the pair of [parked](super::parking) addresses with its daemon.
pub(super) fn mark_parking(index: u32, daemon: &DaemonId) -> Request {
    let alias = format!("{ALIAS_PREFIX}{ALIAS_SEPARATOR}{daemon}");
    let link = LinkUnspec::new_with_index(index).alias(alias);
    Request::new(RouteNetlinkMessage::SetLink(link.build()))
}

/// Disables automatic IPv6 addresses of the interface. Must precede [`up`]. Fails with `EAFNOSUPPORT` on a kernel without
/// IPv6.
pub(super) fn without_ipv6(index: u32) -> Request {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let link = LinkUnspec::new_with_index(index).append_extra_attribute(
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]),
    );
    Request::new(RouteNetlinkMessage::SetLink(link.build()))
}

/// Brings the interface up.
pub(super) fn up(index: u32) -> Request {
    Request::new(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_index(index).up().build(),
    ))
}

/// Adds an address to the interface, without neighbors on the link (/32).
pub(super) fn address(index: u32, address: Ipv4Addr) -> Request {
    let message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(address, 32)
        .build();
    Request::create(RouteNetlinkMessage::NewAddress(message))
}

/// Adds the route to the address of the other end.
pub(super) fn neighbor_route(index: u32, neighbor: Ipv4Addr) -> Request {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(neighbor, 32)
        .output_interface(index)
        .protocol(RouteProtocol::Boot)
        .scope(RouteScope::Link)
        .build();
    Request::create(RouteNetlinkMessage::NewRoute(message))
}

/// Adds the default route through the gateway.
pub(super) fn default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .output_interface(index)
        .protocol(RouteProtocol::Boot)
        .build();
    Request::create(RouteNetlinkMessage::NewRoute(message))
}

/// Queries an interface by its name; fails with `ENODEV` when it does not exist.
pub(super) fn get(name: &str) -> Request {
    let mut message = LinkUnspec::new_with_name(name).build();
    message.attributes.push(without_statistics());
    Request::new(RouteNetlinkMessage::GetLink(message))
}

/// Queries an interface by its index.
pub(super) fn get_by_index(index: u32) -> Request {
    let mut message = LinkUnspec::new_with_index(index).build();
    message.attributes.push(without_statistics());
    Request::new(RouteNetlinkMessage::GetLink(message))
}

/// Lists all interfaces.
pub(super) fn list() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(without_statistics());
    RouteNetlinkMessage::GetLink(message)
}

/// Lists all veth interfaces.
pub(super) fn list_veth() -> RouteNetlinkMessage {
    let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth).build();
    message.attributes.push(without_statistics());
    RouteNetlinkMessage::GetLink(message)
}

/// Leaves out the counters of an interface: they are three quarters of a response, and not read.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Removes an interface, and its peer with it.
pub(super) fn delete(index: u32) -> Request {
    Request::new(RouteNetlinkMessage::DelLink(
        LinkUnspec::new_with_index(index).build(),
    ))
}

/// Removes an interface by its name.
pub(super) fn delete_by_name(name: &str) -> Request {
    Request::new(RouteNetlinkMessage::DelLink(
        LinkUnspec::new_with_name(name).build(),
    ))
}

/// Queries the entry of the routing tables that matches an address.
pub(super) fn route_to(destination: Ipv4Addr) -> Request {
    let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, 32)
        .build();
    message.header.flags = RouteFlags::FibMatch;
    Request::new(RouteNetlinkMessage::GetRoute(message))
}

/// Queries the route that a packet to this address would take, after policy rules and multipath.
pub(super) fn resolve_route(destination: Ipv4Addr) -> Request {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(destination, 32)
        .build();
    Request::new(RouteNetlinkMessage::GetRoute(message))
}

/// Returns the interface in a response to [`resolve_route`], and the route's own MTU if it has one.
pub(super) fn egress(response: &RouteMessage) -> Option<(u32, Option<u32>)> {
    let (mut index, mut mtu) = (None, None);
    for attribute in &response.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some((index?, mtu))
}

/// Sets the MTU of an interface.
pub(super) fn set_mtu(index: u32, mtu: u32) -> Request {
    Request::new(RouteNetlinkMessage::SetLink(
        LinkUnspec::new_with_index(index).mtu(mtu).build(),
    ))
}

/// Reports whether a response to [`route_to`] is an entry for exactly this address through the interface.
pub(super) fn leads_to(response: &RouteMessage, kind: RouteType, index: u32) -> bool {
    response.header.kind == kind
        && response.header.destination_prefix_length == 32
        && response.attributes.contains(&RouteAttribute::Oif(index))
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its index.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// The index of its peer, in the peer's namespace.
    pub(super) peer: Option<u32>,
    /// Its MTU in bytes; 0 when the kernel reports none.
    pub(super) mtu: u32,
    /// It is up.
    pub(super) is_up: bool,
    /// It has its carrier.
    pub(super) is_running: bool,
    /// It is in the group [`INTERFACE_GROUP`], and so under the firewall's rules.
    pub(super) is_grouped: bool,
    /// Its owner.
    pub(super) owner: Owner,
}

/// The owner of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A guest of the daemon. Former releases wrote no daemon.
    Guest(GuestName, Option<DaemonId>),
    /// No guest: the interface of a daemon's [parked](super::parking) addresses.
    Parking(DaemonId),
    /// Innkeeper, but no guest: the daemon crashed before it marked the interface.
    Unmarked,
    /// Another program.
    Foreign,
}

impl Owner {
    fn of(name: &str, alias: Option<&str>, is_grouped: bool) -> Self {
        let is_named = Slot::from_interface(name).is_some() || name.starts_with(PARKING_PREFIX);
        let is_ours = is_grouped && is_named;
        match alias.filter(|alias| !alias.is_empty()) {
            None if is_ours => Self::Unmarked,
            None => Self::Foreign,
            Some(alias) => Self::marked(alias).unwrap_or(Self::Foreign),
        }
    }

    fn marked(alias: &str) -> Option<Self> {
        let mark = alias.strip_prefix(ALIAS_PREFIX)?;
        let (guest, daemon) = match mark.split_once(ALIAS_SEPARATOR) {
            None => (mark, None),
            Some(("", daemon)) => return Some(Self::Parking(DaemonId::parse(daemon).ok()?)),
            Some((guest, daemon)) => (guest, Some(DaemonId::parse(daemon).ok()?)),
        };
        Some(Self::Guest(GuestName::parse(guest).ok()?, daemon))
    }
}

impl Link {
    /// Parses a response about an interface.
    pub(super) fn read(message: RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(message) = message else {
            return None;
        };
        let (mut name, mut alias, mut group, mut peer) = (None, None, None, None);
        let mut mtu = 0;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text),
                LinkAttribute::IfAlias(text) => alias = Some(text),
                LinkAttribute::Group(number) => group = Some(number),
                LinkAttribute::Link(index) => peer = Some(index),
                LinkAttribute::Mtu(bytes) => mtu = bytes,
                _ => {}
            }
        }
        let name = name?;
        let is_grouped = group == Some(INTERFACE_GROUP);
        let owner = Owner::of(&name, alias.as_deref(), is_grouped);
        Some(Self {
            index: message.header.index,
            name,
            peer,
            mtu,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_running: message.header.flags.contains(LinkFlags::Running),
            is_grouped,
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_follows_from_alias_or_name_and_group() {
        let guest = GuestName::parse("web-1").expect("name");
        let daemon = "0123456789abcdef".repeat(2);
        let of_daemon = format!("innkeeper:web-1@{daemon}");
        let of_parking = format!("innkeeper:@{daemon}");
        let daemon = DaemonId::parse(&daemon).expect("identity");
        let parking = Owner::Parking(daemon.clone());
        let marked = Owner::Guest(guest.clone(), Some(daemon));
        let of_former_release = Owner::Guest(guest, None);
        for (name, alias, is_grouped, owner) in [
            ("ve-7", Some(&*of_daemon), true, marked.clone()),
            ("renamed", Some(&*of_daemon), false, marked),
            ("ve-7", Some("innkeeper:web-1"), true, of_former_release),
            ("ve-7", Some("innkeeper:web-1@"), true, Owner::Foreign),
            ("ve-7", Some("innkeeper:web-1@0123"), true, Owner::Foreign),
            ("ve-rest-012345", Some(&*of_parking), true, parking),
            ("ve-rest-012345", Some("innkeeper:@"), true, Owner::Foreign),
            ("ve-rest-012345", None, true, Owner::Unmarked),
            ("ve-7", None, true, Owner::Unmarked),
            ("ve-7", Some(""), true, Owner::Unmarked),
            ("ve-7", None, false, Owner::Foreign),
            ("ve-web", None, true, Owner::Foreign),
            ("ve-7", Some("another program's"), true, Owner::Foreign),
            ("ve-7", Some("innkeeper:No Name"), true, Owner::Foreign),
        ] {
            assert_eq!(
                Owner::of(name, alias, is_grouped),
                owner,
                "{name} {alias:?}"
            );
        }
    }

    #[test]
    fn hardware_addresses_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for slot in [1, 2, 255, 256, innkeeper_model::MAX_SLOT].map(Slot::new) {
            for end in [End::Host, End::Guest] {
                let address = hardware_address(slot, end);
                // Unicast and locally administered (IEEE 802, section 8).
                assert_eq!((address.len(), address[0] & 0b11), (6, 0b10));
                assert!(seen.insert(address));
            }
        }
    }
}
