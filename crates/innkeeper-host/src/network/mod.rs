//! Veth pairs with their addresses and routes, made over netlink.
//!
//! ```text
//!            host                                     guest's network namespace
//!  ve-<slot>  base + 2N      /32 ════════════ eth0  base + 2N + 1   /32     lo up
//!  route: guest/32 dev ve-<slot>                 route: host/32 dev eth0
//!                                                       default via host
//! ```
//!
//! Whose an interface is stands in the interface: its alias is `innkeeper:<guest>@<identity of the daemon>`. The name is not
//! enough, because others call theirs `ve-…` too, and the record may be gone when the interface is not.
//! All interfaces of ours are in the group [`INTERFACE_GROUP`], from the moment at which they are made.

mod check;
mod link;
mod namespace;
mod netlink;

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use async_trait::async_trait;
use innkeeper_facilities::{FacilityError, Found, Network, Resource};
use innkeeper_model::api::Check;
use innkeeper_model::{
    Addresses, Code, DaemonId, Explain, Guest, GuestName, Ownership, Slot, SlotRange,
};
use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteType;
use rustix::io::Errno;

use crate::identity::Identity;
use link::{GUEST_INTERFACE, LOOPBACK, Link, Owner};
use namespace::Namespace;
use netlink::{Answer, Connection, Netlink, Request};

/// The group (ip-link(8)) of the hosts' ends of all pairs, by which the [firewall](crate::firewall) knows
/// them: the letters "ik". Interfaces of other people's containers are called `ve-…` too, and must be
/// neither filtered nor trusted by our rules.
pub const INTERFACE_GROUP: u32 = 0x696b;

/// The MTU of guests on a host without a route to the internet: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// An address on the internet (RFC 5737), to look up the default route with. No packet is sent to it.
const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// How often a pair is tried to be made when something of an earlier one is in the way.
const ATTEMPTS: usize = 3;

/// How long the two ends may take to see each other once both are up. It takes microseconds; a kernel
/// that has not done it after this will not.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(2);

/// What can go wrong with a guest's network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Something else has the interface's name.
    #[error("the interface {interface} exists and is not Innkeeper's")]
    InterfaceTaken {
        /// The name.
        interface: String,
    },
    /// Another daemon has the interface's name.
    #[error(
        "the interface {interface} belongs to guest '{guest}' of another Innkeeper daemon ({daemon})"
    )]
    OtherDaemon {
        /// The name.
        interface: String,
        /// That daemon's guest.
        guest: GuestName,
        /// That daemon.
        daemon: DaemonId,
    },
    /// The subnet was changed, or the slot is not one of its.
    #[error("the subnet {subnet} has no addresses for slot {slot}")]
    NoAddress {
        /// The guest's slot.
        slot: Slot,
        /// The configured subnet.
        subnet: Ipv4Net,
    },
    /// The guest's network namespace cannot be entered, most often because the guest is gone.
    #[error("cannot enter the network namespace of process {leader}")]
    Leader {
        /// The guest's first process.
        leader: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The guest's first process has no network namespace of its own.
    #[error("process {leader} is in the host's own network namespace")]
    HostNamespace {
        /// The guest's first process.
        leader: u32,
    },
    /// There is no connection to the kernel.
    #[error("cannot talk to the kernel over netlink")]
    Netlink(#[source] io::Error),
    /// The kernel refused a change or a question.
    #[error("cannot {action}")]
    Kernel {
        /// What was tried, with the object's name.
        action: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Removing an interface had no effect.
    #[error("the interface {interface} is still there after it was removed")]
    Left {
        /// The name.
        interface: String,
    },
    /// Both ends are up and see nothing of each other.
    #[error("the guest's interface carries no packets although both of its ends were switched on")]
    NoCarrier,
    /// More than one thing went wrong while removing.
    #[error("{}", .0.iter().map(|error| innkeeper_model::chain(error)).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl NetworkError {
    fn kernel(action: impl Into<String>, source: io::Error) -> Self {
        Self::Kernel {
            action: action.into(),
            source,
        }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Leader { source, .. } | Self::Netlink(source) | Self::Kernel { source, .. } => {
                Errno::from_io_error(source)
            }
            Self::Several(errors) => errors.first().and_then(Self::errno),
            _ => None,
        }
    }
}

impl From<NetworkError> for FacilityError {
    fn from(error: NetworkError) -> Self {
        Self::new(error)
    }
}

impl Explain for NetworkError {
    fn code(&self) -> Code {
        match (self, self.errno()) {
            (_, Some(Errno::PERM | Errno::ACCESS)) => Code::PermissionDenied,
            (Self::InterfaceTaken { .. } | Self::OtherDaemon { .. }, _) => Code::InterfaceTaken,
            (Self::NoAddress { .. }, _) => Code::InvalidConfig,
            (Self::Leader { .. }, Some(Errno::NOENT | Errno::SRCH)) => Code::GuestDied,
            // What the kernel says to a kind of interface that it does not know.
            (Self::Kernel { .. }, Some(Errno::OPNOTSUPP)) => Code::KernelFeatureMissing,
            _ => Code::NetworkFailed,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match (self, self.code()) {
            (Self::InterfaceTaken { interface }, _) => format!(
                "See whose it is with `ip -d link show {interface}`, then remove or rename it, and start the guest again."
            ),
            (Self::OtherDaemon { interface, guest, .. }, _) => format!(
                "Give the two daemons slots of their own (`network.slots`) and destroy '{guest}' with that daemon, or remove the interface with `ip link delete {interface}` if that daemon is gone; then start this guest again."
            ),
            (Self::NoAddress { .. }, _) => {
                "Give `network.subnet` back the value that it had when the guest was created, or destroy the guest.".to_owned()
            }
            (_, Code::PermissionDenied) => {
                "Run innkeeperd as root, or give it CAP_NET_ADMIN and CAP_SYS_ADMIN.".to_owned()
            }
            (_, Code::KernelFeatureMissing) => {
                "Load the kernel's module for veth pairs: `modprobe veth`.".to_owned()
            }
            (Self::HostNamespace { .. }, _) => {
                "Guests need a network namespace of their own (systemd-nspawn's --private-network).".to_owned()
            }
            _ => return None,
        })
    }
}

/// The settings of [`VethNetwork`].
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The slots and their addresses.
    pub range: SlotRange,
    /// Marks our interfaces.
    pub identity: Identity,
}

/// The driver of [`Network`]: veth pairs by rtnetlink, in whatever network namespace the daemon runs in.
#[derive(Debug)]
pub struct VethNetwork {
    range: SlotRange,
    identity: Identity,
    netlink: Netlink,
}

impl VethNetwork {
    /// The driver. Nothing is opened before the first use.
    #[must_use]
    pub fn new(config: NetworkConfig) -> Self {
        Self {
            range: config.range,
            identity: config.identity,
            netlink: Netlink::default(),
        }
    }

    /// A network that the host has beside guests and that overlaps with the guests' subnet, as a sentence.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
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

    async fn furnish(&self, guest: &Guest, leader: u32) -> Result<(), NetworkError> {
        let addresses = self.addresses(guest.slot)?;
        let home = self.home()?;
        let namespace = Namespace::of(leader)?;
        let runtime = self.netlink.runtime().map_err(NetworkError::Netlink)?;
        let inside = namespace.connect(runtime).await?;
        let mtu = uplink_mtu(&home).await?.unwrap_or(DEFAULT_MTU);
        let (index, peer) = self
            .make_pair(guest, mtu, &home, &inside, &namespace)
            .await?;
        // The host's end first: until it is marked, nobody knows whose it is.
        let daemon = self.identity.daemon();
        furnish_host(&home, index, guest, daemon, addresses).await?;
        furnish_guest(&inside, peer, addresses).await?;
        wait_for_carrier(&home, index).await?;
        wait_for_carrier(&inside, peer).await
    }

    /// The MTU of the host's route to the internet; `None` without such a route.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) async fn uplink_mtu(&self) -> Result<Option<u32>, NetworkError> {
        uplink_mtu(&self.home()?).await
    }

    /// Gives both ends of a running guest's pair the uplink's MTU, if the uplink's has changed.
    async fn follow(&self, guest: &Guest, leader: u32) -> Result<(), NetworkError> {
        let home = self.home()?;
        let Some(mtu) = uplink_mtu(&home).await? else {
            return Ok(());
        };
        let Some(outer) = look_at(&home, link::get(&guest.slot.interface())).await? else {
            return Ok(());
        };
        if outer.mtu == mtu || !self.is_ours(&outer, &guest.name) {
            return Ok(());
        }
        let namespace = Namespace::of(leader)?;
        let runtime = self.netlink.runtime().map_err(NetworkError::Netlink)?;
        let inside = namespace.connect(runtime).await?;
        // A guest may have replaced its eth0, so the peer is found by number and must point back.
        if let Some(peer) = outer.peer
            && let Some(inner) = look_at(&inside, link::get_by_index(peer)).await?
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

    /// Whose an interface is; `None` when it is not Innkeeper's.
    fn ownership(&self, link: &Link) -> Option<Ownership> {
        match &link.owner {
            Owner::Guest(_, daemon) => Some(self.identity.ownership(daemon.as_ref())),
            Owner::Nobody => Some(Ownership::Unmarked),
            Owner::Stranger => None,
        }
    }

    /// Whether an interface is marked as a guest's of this daemon.
    fn is_ours(&self, link: &Link, guest: &GuestName) -> bool {
        matches!(&link.owner, Owner::Guest(name, _) if name == guest)
            && self.ownership(link) == Some(Ownership::Ours)
    }

    /// Refuses an interface that is in the way of a new one and may not be removed.
    fn require_stale(&self, link: &Link) -> Result<(), NetworkError> {
        let interface = link.name.clone();
        match &link.owner {
            // A crash came between the creation of the interface and its mark. The slot is ours.
            Owner::Nobody => Ok(()),
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
            Owner::Stranger => Err(NetworkError::InterfaceTaken { interface }),
        }
    }

    /// Makes the pair, in place of one that is there, and returns the numbers of both ends.
    async fn make_pair(
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
            let asked = [
                link::create_pair(slot, namespace.descriptor(), mtu),
                link::get(&interface),
            ];
            let [made, found] = home.batch(asked).await.map_err(NetworkError::Netlink)?;
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
                // Nothing is in the way on the host, so it is inside the guest.
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

    /// Marks the interface of a guest that a former release made.
    async fn mark_former(&self, guest: &Guest) -> Result<(), NetworkError> {
        let home = self.home()?;
        let Some(link) = look_at(&home, link::get(&guest.slot.interface())).await? else {
            return Ok(());
        };
        if link.owner != Owner::Guest(guest.name.clone(), None) {
            return Ok(());
        }
        let mark = link::mark(link.index, &guest.name, self.identity.daemon());
        apply(&home, [("mark the guest's interface", mark)]).await
    }

    async fn looks_complete(&self, guest: &Guest) -> Result<bool, NetworkError> {
        let addresses = self.addresses(guest.slot)?;
        let interface = guest.slot.interface();
        let asked = [
            link::get(&interface),
            link::route_to(addresses.host),
            link::route_to(addresses.guest),
        ];
        let [found, to_host, to_guest] = self
            .home()?
            .batch(asked)
            .await
            .map_err(NetworkError::Netlink)?;
        let Some(found) = existing(found)? else {
            return Ok(false);
        };
        let leads = |answer: Answer, kind| match answer {
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => {
                Ok(link::leads_to(&route, kind, found.index))
            }
            Ok(_) => Ok(false),
            Err(error) if no_route(&error) => Ok(false),
            Err(error) => Err(NetworkError::kernel(
                format!("ask for the routes of {interface}"),
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
                    Owner::Nobody | Owner::Stranger => None,
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
        let Some(link) = look_at(&home, link::get(&found.object)).await? else {
            return Ok(());
        };
        // By now the name may be another guest's, another daemon's or a stranger's.
        let guest = match &link.owner {
            Owner::Guest(guest, _) => Some(guest),
            Owner::Nobody | Owner::Stranger => None,
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
        Ok(self.furnish(guest, leader).await?)
    }

    async fn follow_uplink(&self, guest: &Guest, leader: u32) -> Result<(), FacilityError> {
        Ok(self.follow(guest, leader).await?)
    }

    async fn adopt(&self, guest: &Guest) -> Result<(), FacilityError> {
        Ok(self.mark_former(guest).await?)
    }

    async fn is_complete(&self, guest: &Guest) -> Result<bool, FacilityError> {
        Ok(self.looks_complete(guest).await?)
    }
}

/// Makes a pair in the calling thread's namespace, which must be one that is thrown away.
pub(crate) async fn probe() -> Result<(), NetworkError> {
    let here = std::fs::File::open("/proc/thread-self/ns/net").map_err(NetworkError::Netlink)?;
    let connection =
        Connection::open(&tokio::runtime::Handle::current()).map_err(NetworkError::Netlink)?;
    let pair = link::create_pair(Slot::new(1), here.as_raw_fd(), DEFAULT_MTU);
    apply(&connection, [("make a veth pair", pair)]).await
}

/// The MTU of the host's route to the internet; `None` without such a route.
///
/// # Errors
/// When the kernel does not answer.
async fn uplink_mtu(home: &Connection) -> Result<Option<u32>, NetworkError> {
    let [route] = home
        .batch([link::resolve_route(INTERNET)])
        .await
        .map_err(NetworkError::Netlink)?;
    let Ok(Some(RouteNetlinkMessage::NewRoute(route))) = route else {
        return Ok(None);
    };
    let Some((index, of_route)) = link::egress(&route) else {
        return Ok(None);
    };
    let Some(uplink) = look_at(home, link::get_by_index(index)).await? else {
        return Ok(None);
    };
    let mtu = of_route.map_or(uplink.mtu, |mtu| mtu.min(uplink.mtu));
    // The limits of a veth interface.
    Ok((mtu >= 68).then_some(mtu.min(65535)))
}

async fn furnish_guest(
    inside: &Connection,
    index: u32,
    addresses: Addresses,
) -> Result<(), NetworkError> {
    let Addresses { host, guest } = addresses;
    apply(
        inside,
        [
            ("switch on the guest's lo", link::up(LOOPBACK)),
            ("keep IPv6 off the guest's eth0", link::without_ipv6(index)),
            ("switch on the guest's eth0", link::up(index)),
            (
                "give the guest's eth0 its address",
                link::address(index, guest),
            ),
            (
                "give the guest its route to the host",
                link::neighbour_route(index, host),
            ),
            (
                "give the guest its default route",
                link::default_route(index, host),
            ),
        ],
    )
    .await
}

async fn furnish_host(
    home: &Connection,
    index: u32,
    guest: &Guest,
    daemon: &DaemonId,
    addresses: Addresses,
) -> Result<(), NetworkError> {
    apply(
        home,
        [
            (
                "mark the guest's interface",
                link::mark(index, &guest.name, daemon),
            ),
            (
                "keep IPv6 off the guest's interface",
                link::without_ipv6(index),
            ),
            ("switch on the guest's interface", link::up(index)),
            (
                "give the host its address",
                link::address(index, addresses.host),
            ),
            (
                "give the host its route to the guest",
                link::neighbour_route(index, addresses.guest),
            ),
        ],
    )
    .await
}

/// Waits until an end lets packets through. The kernel notices in a worker of its own that the other end
/// is up too, and until then the end drops what it is to send; a guest whose first question is dropped
/// repeats it a second later.
async fn wait_for_carrier(connection: &Connection, index: u32) -> Result<(), NetworkError> {
    let running = async {
        // Asking takes about as long as the kernel needs, so the first few times are not slept between.
        for attempt in 0u32.. {
            match look_at(connection, link::get_by_index(index)).await? {
                Some(link) if link.is_running => break,
                Some(_) if attempt < 10 => {}
                Some(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                None => return Err(vanished()),
            }
        }
        Ok(())
    };
    tokio::time::timeout(CARRIER_TIMEOUT, running)
        .await
        .map_err(|_| NetworkError::NoCarrier)?
}

/// Carries out all requests; the first one that was refused is the error.
async fn apply<const N: usize>(
    connection: &Connection,
    steps: [(&'static str, Request); N],
) -> Result<(), NetworkError> {
    let actions = steps.each_ref().map(|(action, _)| *action);
    let answers = connection
        .batch(steps.map(|(_, request)| request))
        .await
        .map_err(NetworkError::Netlink)?;
    for (action, answer) in actions.into_iter().zip(answers) {
        match answer {
            // A kernel without IPv6 has nothing to keep off.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {}
            Err(error) => return Err(NetworkError::kernel(action, error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Removes an interface and sees that it is gone. One that is gone already is no error: it goes by
/// itself when the guest's namespace does.
async fn delete(home: &Connection, link: &Link) -> Result<(), NetworkError> {
    let asked = [link::delete(link.index), link::get_by_index(link.index)];
    let [deleted, left] = home.batch(asked).await.map_err(NetworkError::Netlink)?;
    gone(&format!("remove the interface {}", link.name), deleted)?;
    match existing(left)? {
        None => Ok(()),
        Some(left) => Err(NetworkError::Left {
            interface: left.name,
        }),
    }
}

async fn delete_inside(inside: &Connection) -> Result<(), NetworkError> {
    let asked = [link::delete_by_name(GUEST_INTERFACE)];
    let [deleted] = inside.batch(asked).await.map_err(NetworkError::Netlink)?;
    gone("remove the guest's former eth0", deleted)
}

fn gone(action: &str, deleted: Answer) -> Result<(), NetworkError> {
    match deleted {
        Err(error) if !absent(&error) => Err(NetworkError::kernel(action, error)),
        _ => Ok(()),
    }
}

async fn look_at(connection: &Connection, question: Request) -> Result<Option<Link>, NetworkError> {
    let [found] = connection
        .batch([question])
        .await
        .map_err(NetworkError::Netlink)?;
    existing(found)
}

/// Something removed the interface while we worked on it.
fn vanished() -> NetworkError {
    NetworkError::kernel("find the guest's interface", Errno::NODEV.into())
}

fn existing(answer: Answer) -> Result<Option<Link>, NetworkError> {
    match answer {
        Ok(message) => Ok(message.and_then(Link::read)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(NetworkError::kernel("look at an interface", error)),
    }
}

async fn links(
    netlink: &Netlink,
    question: RouteNetlinkMessage,
) -> Result<Vec<Link>, NetworkError> {
    let listed = netlink.list(question).await;
    let listed = listed.map_err(|error| NetworkError::kernel("list the interfaces", error))?;
    Ok(listed.into_iter().filter_map(Link::read).collect())
}

fn absent(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NODEV)
}

fn no_route(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::SRCH)
    )
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
