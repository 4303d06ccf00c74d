//! Addresses of guests without an interface: they are *parked* while their guests are asleep.
//!
//! ```text
//!            host
//!  ve-rest-<daemon>  base + 1  /32 ════════════ ve-void-<daemon>
//!  route: guest/32 dev ve-rest-<daemon>, for each of them
//! ```
//!
//! Packets of the host to a parked address leave by an interface that discards them without an error. So a program can send
//! one whatever other routes the host has, none leaves the host by its default route, the firewall sees it, and TCP sends it
//! again. The route of the guest's own interface precedes this one, so an address can be parked before its guest shuts down,
//! and connections go on once the guest has its interface again. Their source stays the address of the parking.
//!
//! The packets carry the interface's own hardware address, because it resolves none. The kernel ignores them at the other
//! end: they are for another machine. A veth pair needs nothing of the kernel that guests do not need.

use std::io;
use std::net::Ipv4Addr;

use innkeeper_model::DaemonId;
use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;

use super::INTERFACE_GROUP;
use super::error::NetworkError;
use super::link::{self, Link, Owner, PARKING_PREFIX};
use super::netlink::{Connection, Netlink, Request};
use super::requests::{apply, find, vanished};
use crate::identity::Identity;

/// The beginning of the name of the far end.
const FAR: &str = "ve-void-";

/// The digits of the daemon's identity in the names, which have at most 15 characters.
const DIGITS: usize = 6;

/// The metric of the routes: that of a guest's own interface precedes them.
const LAST: u32 = u32::MAX;

/// Returns the name of the interface, the near end, that packets to parked addresses leave by.
#[must_use]
pub fn parking_interface(daemon: &DaemonId) -> String {
    name(PARKING_PREFIX, daemon)
}

fn name(prefix: &str, daemon: &DaemonId) -> String {
    let digits = daemon.as_str().get(..DIGITS).unwrap_or_default();
    format!("{prefix}{digits}")
}

/// The parking of one daemon.
#[derive(Debug)]
pub(super) struct Parking {
    identity: Identity,
    near: String,
    /// The source of packets to parked addresses: the guests' subnet has no guest with its first address.
    source: Ipv4Addr,
    /// Held while the pair is created.
    creating: tokio::sync::Mutex<()>,
}

impl Parking {
    pub(super) fn new(identity: Identity, subnet: Ipv4Net) -> Self {
        Self {
            near: parking_interface(identity.daemon()),
            identity,
            source: Ipv4Addr::from(u32::from(subnet.network()) | 1),
            creating: tokio::sync::Mutex::default(),
        }
    }

    /// Creates the pair, unless it exists. Returns the index of its near end.
    pub(super) async fn ensure(&self, home: &Connection) -> Result<u32, NetworkError> {
        let _creating = self.creating.lock().await;
        let mut found = self.find(home).await?;
        if found.is_none() {
            let create = ("create the interface of parked addresses", self.create());
            apply(home, [create]).await?;
            found = self.find(home).await?;
        }
        let near = found.ok_or_else(vanished)?;
        if !near.is_up || near.owner == Owner::Unmarked {
            self.configure(home, &near).await?;
        }
        let address = link::address(near.index, self.source);
        add(home, address, || {
            "add the address of the parking".to_owned()
        })
        .await?;
        Ok(near.index)
    }

    /// Routes an address there.
    pub(super) async fn park(
        &self,
        home: &Connection,
        guest: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let index = self.ensure(home).await?;
        let route = Request::create(RouteNetlinkMessage::NewRoute(route(index, guest)));
        add(home, route, || format!("park the address {guest}")).await
    }

    /// Removes the route of an address. A missing one is success.
    pub(super) async fn unpark(
        &self,
        home: &Connection,
        guest: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let Some(near) = self.find(home).await? else {
            return Ok(());
        };
        let remove = Request::new(RouteNetlinkMessage::DelRoute(route(near.index, guest)));
        let [removed] = home.batch([remove]).await.map_err(NetworkError::Netlink)?;
        match removed {
            Err(error) if !is_gone(&error) => {
                let action = format!("unpark the address {guest}");
                Err(NetworkError::kernel(action, error))
            }
            _ => Ok(()),
        }
    }

    /// Reports whether packets to an address leave by the interface.
    pub(super) async fn has(
        &self,
        home: &Connection,
        guest: Ipv4Addr,
    ) -> Result<bool, NetworkError> {
        let Some(near) = self.find(home).await? else {
            return Ok(false);
        };
        let response = home.batch([link::route_to(guest)]).await;
        let [response] = response.map_err(NetworkError::Netlink)?;
        Ok(match response {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
                link::leads_to(&route, RouteType::Unicast, near.index)
            }
            _ => false,
        })
    }

    /// Lists the parked addresses of guests.
    pub(super) async fn list(&self, netlink: &Netlink) -> Result<Vec<Ipv4Addr>, NetworkError> {
        let home = netlink.home().map_err(NetworkError::Netlink)?;
        let Some(near) = self.find(&home).await? else {
            return Ok(Vec::new());
        };
        let mut query = RouteMessage::default();
        query.header.address_family = netlink_packet_route::AddressFamily::Inet;
        let routes = netlink.list(RouteNetlinkMessage::GetRoute(query)).await;
        let routes = routes.map_err(|error| NetworkError::kernel("list the routes", error))?;
        let routes = routes.iter().filter_map(|route| match route {
            RouteNetlinkMessage::NewRoute(route) => destination_through(route, near.index),
            _ => None,
        });
        Ok(routes.collect())
    }

    /// Returns the near end; `None` without one.
    async fn find(&self, home: &Connection) -> Result<Option<Link>, NetworkError> {
        let Some(near) = find(home, link::get(&self.near)).await? else {
            return Ok(None);
        };
        let is_ours = match &near.owner {
            Owner::Parking(daemon) => daemon == self.identity.daemon(),
            // The daemon crashed before it marked it.
            Owner::Unmarked => true,
            Owner::Guest(..) | Owner::Foreign => false,
        };
        let interface = || near.name.clone();
        match is_ours {
            true => Ok(Some(near)),
            false => Err(NetworkError::InterfaceTaken {
                interface: interface(),
            }),
        }
    }

    fn create(&self) -> Request {
        let daemon = self.identity.daemon();
        let far = LinkMessageBuilder::<LinkUnspec>::new()
            .name(name(FAR, daemon))
            .link_group(INTERFACE_GROUP)
            .build();
        let pair = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(self.near.clone())
            .link_group(INTERFACE_GROUP)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .build();
        Request::create(RouteNetlinkMessage::NewLink(pair))
    }

    async fn configure(&self, home: &Connection, near: &Link) -> Result<(), NetworkError> {
        let far = near.peer.ok_or_else(vanished)?;
        let daemon = self.identity.daemon();
        let silent = LinkUnspec::new_with_index(near.index).arp(false).build();
        let silent = Request::new(RouteNetlinkMessage::SetLink(silent));
        let near = near.index;
        apply(
            home,
            [
                ("disable IPv6 on it", link::without_ipv6(near)),
                ("disable IPv6 on its peer", link::without_ipv6(far)),
                ("disable ARP on the interface of parked addresses", silent),
                ("mark its peer", link::mark_parking(far, daemon)),
                ("bring up its peer", link::up(far)),
                ("bring up the interface of parked addresses", link::up(near)),
                // Last: an unmarked one is configured again.
                (
                    "mark the interface of parked addresses",
                    link::mark_parking(near, daemon),
                ),
            ],
        )
        .await
    }
}

/// Adds an object, which may exist.
async fn add(
    home: &Connection,
    request: Request,
    action: impl Fn() -> String,
) -> Result<(), NetworkError> {
    let [added] = home.batch([request]).await.map_err(NetworkError::Netlink)?;
    match added {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::EXIST) => {
            Err(NetworkError::kernel(action(), error))
        }
        _ => Ok(()),
    }
}

fn route(index: u32, guest: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(guest, 32)
        .output_interface(index)
        .priority(LAST)
        .scope(RouteScope::Link)
        .protocol(RouteProtocol::Boot)
        .build()
}

/// Returns the address that a route of the main table leads to through an interface.
fn destination_through(route: &RouteMessage, index: u32) -> Option<Ipv4Addr> {
    let is_parked = route.header.table == RouteHeader::RT_TABLE_MAIN
        && link::leads_to(route, RouteType::Unicast, index);
    let mut attributes = route.attributes.iter().filter(|_| is_parked);
    attributes.find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::SRCH | Errno::NOENT | Errno::NODEV)
    )
}
