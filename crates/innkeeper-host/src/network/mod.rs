//! Veth pairs with their addresses and routes, over netlink.
//!
//! ```text
//!            host                                     guest's network namespace
//!  ve-<slot>  base + 2N      /32 ════════════ eth0  base + 2N + 1   /32     lo up
//!  route: guest/32 dev ve-<slot>                 route: host/32 dev eth0
//!                                                       default via host
//! ```
//!
//! The addresses of guests that are asleep are [parked](parking).
//!
//! The alias of an interface names its owner: `innkeeper:<guest>@<identity of the daemon>`. The name is not enough: other
//! programs use `ve-…` too, and the interface may outlive its record. All interfaces of Innkeeper are created in the group
//! [`INTERFACE_GROUP`].

mod check;
mod error;
mod link;
mod namespace;
mod netlink;
mod parking;
mod requests;
mod setup;
mod ssh;

pub use error::NetworkError;
pub use parking::parking_interface;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, Network, Resource};
use innkeeper_model::api::Check;
use innkeeper_model::{Addresses, Guest, GuestName, Ownership, Slot, SlotRange};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteType;
use rustix::io::Errno;
use tokio::time::timeout;

use crate::identity::Identity;
use link::{Link, Owner};
use namespace::{CONNECT_LIMIT, Namespace};
use netlink::{Connection, Netlink, Response};
use parking::Parking;
use requests::{apply, delete, delete_inside, existing, find, links, no_route, vanished};
use setup::{configure_guest, configure_host, uplink_mtu, wait_for_carrier};

/// The group (ip-link(8)) of the hosts' ends of all pairs, by which the [firewall](crate::firewall) matches them: the
/// letters "ik". Interfaces of other containers have names `ve-…` too, and Innkeeper's rules must neither filter nor trust
/// them.
pub const INTERFACE_GROUP: u32 = 0x696b;

/// The MTU of guests on a host without a route to the internet: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// The attempts to create a pair when remains of an earlier one are in the way.
const ATTEMPTS: usize = 3;

/// The settings of [`VethNetwork`].
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The slots and their addresses.
    pub range: SlotRange,
    /// Marks the interfaces.
    pub identity: Identity,
}

/// The driver of [`Network`]: veth pairs by rtnetlink, in the daemon's network namespace.
#[derive(Debug)]
pub struct VethNetwork {
    range: SlotRange,
    identity: Identity,
    netlink: Netlink,
    parking: Parking,
}

impl VethNetwork {
    /// Creates the driver. It opens its connection at the first use.
    #[must_use]
    pub fn new(config: NetworkConfig) -> Self {
        Self {
            range: config.range,
            parking: Parking::new(config.identity.clone(), config.range.subnet()),
            identity: config.identity,
            netlink: Netlink::default(),
        }
    }

    /// Describes another network of the host that overlaps with the guests' subnet; `None` without one.
    ///
    /// # Errors
    /// When the kernel cannot be queried.
    pub async fn conflict(&self) -> Result<Option<String>, NetworkError> {
        check::conflict(&self.netlink, &self.identity, self.range.subnet()).await
    }

    fn home(&self) -> Result<Connection, NetworkError> {
        self.netlink.home().map_err(NetworkError::Netlink)
    }

    fn addresses(&self, slot: Slot) -> Result<Addresses, NetworkError> {
        let subnet = self.range.subnet();
        self.range
            .addresses(slot)
            .ok_or(NetworkError::NoAddress { slot, subnet })
    }

    async fn set_up(&self, guest: &Guest, leader: u32) -> Result<(), NetworkError> {
        let addresses = self.addresses(guest.slot)?;
        let home = self.home()?;
        let namespace = Namespace::of(leader)?;
        let runtime = self.netlink.runtime().map_err(NetworkError::Netlink)?;
        let inside = namespace.connect(runtime).await?;
        let mtu = uplink_mtu(&home).await?.unwrap_or(DEFAULT_MTU);
        let (index, peer) = self
            .create_pair(guest, mtu, &home, &inside, &namespace)
            .await?;
        // The host's end first: it has no owner until it is marked.
        let daemon = self.identity.daemon();
        configure_host(&home, index, guest, daemon, addresses).await?;
        configure_guest(&inside, peer, addresses).await?;
        wait_for_carrier(&home, index).await?;
        wait_for_carrier(&inside, peer).await
    }

    /// Returns the MTU of the host's route to the internet; `None` without such a route.
    ///
    /// # Errors
    /// When the kernel does not respond.
    pub(crate) async fn uplink_mtu(&self) -> Result<Option<u32>, NetworkError> {
        uplink_mtu(&self.home()?).await
    }

    /// Sets the uplink's MTU on both ends of a running guest's pair, if it has changed.
    async fn follow(&self, guest: &Guest, leader: u32) -> Result<(), NetworkError> {
        let home = self.home()?;
        let Some(mtu) = uplink_mtu(&home).await? else {
            return Ok(());
        };
        let Some(outer) = find(&home, link::get(&guest.slot.interface())).await? else {
            return Ok(());
        };
        if outer.mtu == mtu || !self.is_ours(&outer, &guest.name) {
            return Ok(());
        }
        let namespace = Namespace::of(leader)?;
        let runtime = self.netlink.runtime().map_err(NetworkError::Netlink)?;
        let inside = namespace.connect(runtime).await?;
        // A guest may have replaced its eth0, so the peer is found by index and must point back.
        if let Some(peer) = outer.peer
            && let Some(inner) = find(&inside, link::get_by_index(peer)).await?
            && inner.peer == Some(outer.index)
        {
            apply(
                &inside,
                [("set the MTU of the guest's eth0", link::set_mtu(peer, mtu))],
            )
            .await?;
        }
        // Last: a failure above leaves the difference, and the next call tries again.
        let step = (
            "set the MTU of the guest's interface",
            link::set_mtu(outer.index, mtu),
        );
        apply(&home, [step]).await
    }

    /// Returns the owner of an interface; `None` when it is not managed by Innkeeper.
    fn ownership(&self, link: &Link) -> Option<Ownership> {
        match &link.owner {
            Owner::Guest(_, daemon) => Some(self.identity.ownership(daemon.as_ref())),
            Owner::Unmarked => Some(Ownership::Unmarked),
            Owner::Parking(_) | Owner::Foreign => None,
        }
    }

    /// Reports whether an interface is marked for this guest of this daemon.
    fn is_ours(&self, link: &Link, guest: &GuestName) -> bool {
        matches!(&link.owner, Owner::Guest(name, _) if name == guest)
            && self.ownership(link) == Some(Ownership::Ours)
    }

    /// Fails if an interface is in the way of a new one and must not be removed.
    fn require_stale(&self, link: &Link) -> Result<(), NetworkError> {
        let interface = link.name.clone();
        match &link.owner {
            // The daemon crashed between the creation of the interface and its mark. The slot is this daemon's.
            Owner::Unmarked => Ok(()),
            Owner::Guest(guest, daemon) => {
                let ownership = self.identity.ownership(daemon.as_ref());
                if self.identity.may_change(ownership) {
                    return Ok(());
                }
                Err(match daemon {
                    Some(daemon) => NetworkError::OtherDaemon {
                        interface,
                        guest: guest.clone(),
                        daemon: daemon.clone(),
                    },
                    None => NetworkError::InterfaceTaken { interface },
                })
            }
            Owner::Parking(_) | Owner::Foreign => Err(NetworkError::InterfaceTaken { interface }),
        }
    }

    /// Creates the pair, replaces an existing one, and returns the indexes of both ends.
    async fn create_pair(
        &self,
        guest: &Guest,
        mtu: u32,
        home: &Connection,
        inside: &Connection,
        namespace: &Namespace,
    ) -> Result<(u32, u32), NetworkError> {
        let slot = guest.slot;
        let interface = slot.interface();
        let action = || format!("create the interface {interface}");
        let mut refusal = None;
        for _ in 0..ATTEMPTS {
            let requests = [
                link::create_pair(slot, namespace.descriptor(), mtu),
                link::get(&interface),
            ];
            let [made, found] = home.batch(requests).await.map_err(NetworkError::Netlink)?;
            let found = existing(found)?;
            match (made, found) {
                (Ok(_), found) => {
                    return found
                        .and_then(|link| Some((link.index, link.peer?)))
                        .ok_or_else(vanished);
                }
                (Err(error), _) if Errno::from_io_error(&error) != Some(Errno::EXIST) => {
                    return Err(NetworkError::kernel(action(), error));
                }
                (Err(error), Some(stale)) => {
                    self.require_stale(&stale)?;
                    delete(home, &stale).await?;
                    refusal = Some(error);
                }
                // The conflict is not on the host, so it is inside the guest.
                (Err(error), None) => {
                    delete_inside(inside).await?;
                    refusal = Some(error);
                }
            }
        }
        Err(NetworkError::kernel(
            action(),
            refusal.unwrap_or_else(|| Errno::EXIST.into()),
        ))
    }

    /// Marks the interface of a guest if a former release created it.
    async fn mark_former(&self, guest: &Guest) -> Result<(), NetworkError> {
        let home = self.home()?;
        let Some(link) = find(&home, link::get(&guest.slot.interface())).await? else {
            return Ok(());
        };
        if link.owner != Owner::Guest(guest.name.clone(), None) {
            return Ok(());
        }
        let mark = link::mark(link.index, &guest.name, self.identity.daemon());
        apply(&home, [("mark the guest's interface", mark)]).await
    }

    /// Marks the interface of a guest that had another name until now.
    async fn mark_renamed(&self, from: &GuestName, guest: &Guest) -> Result<(), NetworkError> {
        let home = self.home()?;
        match find(&home, link::get(&guest.slot.interface())).await? {
            Some(link) if self.is_ours(&link, from) => {
                let mark = link::mark(link.index, &guest.name, self.identity.daemon());
                apply(&home, [("mark the guest's interface", mark)]).await
            }
            _ => Ok(()),
        }
    }

    async fn has_complete_network(&self, guest: &Guest) -> Result<bool, NetworkError> {
        let addresses = self.addresses(guest.slot)?;
        let interface = guest.slot.interface();
        let requests = [
            link::get(&interface),
            link::route_to(addresses.host),
            link::route_to(addresses.guest),
        ];
        let [found, to_host, to_guest] = self
            .home()?
            .batch(requests)
            .await
            .map_err(NetworkError::Netlink)?;
        let Some(found) = existing(found)? else {
            return Ok(false);
        };
        let leads = |response: Response, kind| match response {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
                Ok(link::leads_to(&route, kind, found.index))
            }
            Ok(_) => Ok(false),
            Err(error) if no_route(&error) => Ok(false),
            Err(error) => Err(NetworkError::kernel(
                format!("read the routes of {interface}"),
                error,
            )),
        };
        let has_address = leads(to_host, RouteType::Local)?;
        let has_route = leads(to_guest, RouteType::Unicast)?;
        Ok(self.is_ours(&found, &guest.name)
            && found.is_grouped
            && found.is_up
            && has_address
            && has_route)
    }
}

#[async_trait]
impl Resource for VethNetwork {
    fn kind(&self) -> &'static str {
        "network"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        let links = links(&self.netlink, link::list_veth()).await?;
        let found = |link: Link| {
            let ownership = self.ownership(&link)?;
            Some(Found {
                guest: match link.owner {
                    Owner::Guest(guest, _) => Some(guest),
                    Owner::Parking(_) | Owner::Unmarked | Owner::Foreign => None,
                },
                object: link.name,
                ownership,
            })
        };
        Ok(links.into_iter().filter_map(found).collect())
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let mut links = links(&self.netlink, link::list_veth()).await?;
        links.retain(|link| {
            let is_guests = matches!(&link.owner, Owner::Guest(name, _) if name == guest);
            let ownership = self.ownership(link);
            is_guests && ownership.is_some_and(|one| self.identity.may_change(one))
        });
        let home = self.home()?;
        let mut errors = Vec::new();
        for link in links {
            errors.extend(delete(&home, &link).await.err());
        }
        match errors.pop() {
            None => Ok(()),
            Some(error) if errors.is_empty() => Err(error.into()),
            Some(error) => {
                errors.push(error);
                Err(NetworkError::Several(errors).into())
            }
        }
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        let home = self.home()?;
        let Some(link) = find(&home, link::get(&found.object)).await? else {
            return Ok(());
        };
        // The name may have been taken since by another guest, another daemon or another program.
        let guest = match &link.owner {
            Owner::Guest(guest, _) => Some(guest),
            Owner::Parking(_) | Owner::Unmarked | Owner::Foreign => None,
        };
        let is_same =
            guest == found.guest.as_ref() && self.ownership(&link) == Some(found.ownership);
        if is_same && found.ownership != Ownership::Other {
            delete(&home, &link).await?;
        }
        Ok(())
    }

    async fn check(&self) -> Vec<Check> {
        check::check(&self.netlink, self.range.subnet(), &self.identity).await
    }
}

#[async_trait]
impl Network for VethNetwork {
    async fn ensure(&self, guest: &Guest, leader: u32) -> Result<(), FacilityError> {
        Ok(self.set_up(guest, leader).await?)
    }

    async fn follow_uplink(&self, guest: &Guest, leader: u32) -> Result<(), FacilityError> {
        Ok(self.follow(guest, leader).await?)
    }

    async fn rename(&self, from: &GuestName, guest: &Guest) -> Result<(), FacilityError> {
        Ok(self.mark_renamed(from, guest).await?)
    }

    async fn adopt(&self, guest: &Guest) -> Result<(), FacilityError> {
        Ok(self.mark_former(guest).await?)
    }

    async fn ssh_sessions(&self, _guest: &Guest, leader: u32) -> Result<usize, FacilityError> {
        let open = ssh::sessions(leader);
        Ok(open.map_err(|source| NetworkError::Leader { leader, source })?)
    }

    async fn connect(
        &self,
        guest: &Guest,
        leader: u32,
        port: u16,
    ) -> Result<Option<TcpStream>, FacilityError> {
        let addresses = [
            Ipv4Addr::LOCALHOST.into(),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        let addresses = addresses.map(|address| SocketAddr::new(address, port));
        let namespace = Namespace::of(leader)?;
        if let Some(stream) = namespace.connect_tcp(addresses.to_vec()).await? {
            return Ok(Some(stream));
        }
        // From here: inside, its own address needs a loopback interface that is up, as the above.
        let own = SocketAddr::from((self.addresses(guest.slot)?.guest, port));
        let stream = timeout(CONNECT_LIMIT, tokio::net::TcpStream::connect(own)).await;
        let stream = stream.ok().and_then(Result::ok);
        let stream = stream.and_then(|stream| {
            stream.set_nodelay(true).ok()?;
            stream.into_std().ok()
        });
        Ok(stream)
    }

    async fn is_complete(&self, guest: &Guest) -> Result<bool, FacilityError> {
        Ok(self.has_complete_network(guest).await?)
    }

    async fn prepare_parking(&self) -> Result<(), FacilityError> {
        self.parking.ensure(&self.home()?).await?;
        Ok(())
    }

    async fn park(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        Ok(self.parking.park(&self.home()?, guest).await?)
    }

    async fn unpark(&self, guest: Ipv4Addr) -> Result<(), FacilityError> {
        Ok(self.parking.unpark(&self.home()?, guest).await?)
    }

    async fn is_parked(&self, guest: Ipv4Addr) -> Result<bool, FacilityError> {
        Ok(self.parking.has(&self.home()?, guest).await?)
    }

    async fn parked(&self) -> Result<BTreeSet<Ipv4Addr>, FacilityError> {
        let parked = self.parking.list(&self.netlink).await?;
        Ok(parked.into_iter().collect())
    }
}

/// Creates a pair in the calling thread's namespace, which must be a temporary one.
pub(crate) async fn probe() -> Result<(), NetworkError> {
    let here = std::fs::File::open("/proc/thread-self/ns/net").map_err(NetworkError::Netlink)?;
    let connection =
        Connection::open(&tokio::runtime::Handle::current()).map_err(NetworkError::Netlink)?;
    let pair = link::create_pair(Slot::new(1), here.as_raw_fd(), DEFAULT_MTU);
    apply(&connection, [("create a veth pair", pair)]).await
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
