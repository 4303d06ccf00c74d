//! Addresses, routes and carriers of both ends of a pair, and the MTU of the host's uplink.

use std::net::Ipv4Addr;
use std::time::Duration;

use innkeeper_model::{Addresses, DaemonId, Guest};
use netlink_packet_route::RouteNetlinkMessage;

use super::error::NetworkError;
use super::link::{self, LOOPBACK};
use super::netlink::Connection;
use super::requests::{apply, find, vanished};

/// An address on the internet (RFC 5737), to look up the default route with. No packet is sent to it.
const INTERNET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The timeout for the carrier once both ends are up. It takes microseconds; longer means a fault.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the MTU of the host's route to the internet; `None` without such a route.
///
/// # Errors
/// When the kernel does not respond.
pub(super) async fn uplink_mtu(home: &Connection) -> Result<Option<u32>, NetworkError> {
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
    let Some(uplink) = find(home, link::get_by_index(index)).await? else {
        return Ok(None);
    };
    let mtu = of_route.map_or(uplink.mtu, |mtu| mtu.min(uplink.mtu));
    // The limits of a veth interface.
    Ok((mtu >= 68).then_some(mtu.min(65535)))
}

/// Configures the guest's end: addresses and routes.
pub(super) async fn configure_guest(
    inside: &Connection,
    index: u32,
    addresses: Addresses,
) -> Result<(), NetworkError> {
    let Addresses { host, guest } = addresses;
    apply(
        inside,
        [
            ("bring up the guest's lo", link::up(LOOPBACK)),
            (
                "disable IPv6 on the guest's eth0",
                link::without_ipv6(index),
            ),
            ("bring up the guest's eth0", link::up(index)),
            (
                "add the address of the guest's eth0",
                link::address(index, guest),
            ),
            (
                "add the guest's route to the host",
                link::neighbor_route(index, host),
            ),
            (
                "add the guest's default route",
                link::default_route(index, host),
            ),
        ],
    )
    .await
}

/// Marks and configures the host's end: address and route.
pub(super) async fn configure_host(
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
                "disable IPv6 on the guest's interface",
                link::without_ipv6(index),
            ),
            ("bring up the guest's interface", link::up(index)),
            (
                "add the host's address",
                link::address(index, addresses.host),
            ),
            (
                "add the host's route to the guest",
                link::neighbor_route(index, addresses.guest),
            ),
        ],
    )
    .await
}

/// Waits until an end has its carrier. The kernel detects asynchronously that the other end is up too, and drops outgoing
/// packets until then: a guest would retry a dropped DNS query only a second later.
pub(super) async fn wait_for_carrier(
    connection: &Connection,
    index: u32,
) -> Result<(), NetworkError> {
    let running = async {
        // A request takes about as long as the kernel needs, so the first polls do not sleep.
        for attempt in 0u32.. {
            match find(connection, link::get_by_index(index)).await? {
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
