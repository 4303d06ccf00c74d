//! Requests to the kernel, and their errors.

use std::io;
use std::pin::pin;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use tokio::time::sleep;

use super::error::NetworkError;
use super::link::{self, GUEST_INTERFACE, Link};
use super::netlink::{Apart, Connection, Netlink, Request, Response};

/// The pause between two looks whether a removed interface is still listed.
const UNLISTED_PAUSE: Duration = Duration::from_millis(1);

/// Sends all requests; fails with the first refused one.
pub(super) async fn apply<const N: usize>(
    connection: &Connection,
    steps: [(&'static str, Request); N],
) -> Result<(), NetworkError> {
    let actions = steps.each_ref().map(|(action, _)| *action);
    let responses = connection
        .batch(steps.map(|(_, request)| request))
        .await
        .map_err(NetworkError::Netlink)?;
    for (action, response) in actions.into_iter().zip(responses) {
        match response {
            // A kernel without IPv6 needs no disabling.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {}
            Err(error) => return Err(NetworkError::kernel(action, error)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Removes an interface and returns when it is gone. A missing interface is success: the kernel removes it with the guest's
/// namespace.
///
/// The kernel takes the interface, its addresses and routes off its lists at once, and responds when nothing refers to it any
/// longer, which takes many times as long. Nothing depends on the rest, so this returns before the response: the name and the
/// slot are free.
pub(super) async fn delete(home: &Connection, link: &Link) -> Result<(), NetworkError> {
    let apart = Apart::open().map_err(NetworkError::Netlink)?;
    let mut deleting = pin!(apart.connection().batch([link::delete(link.index)]));
    let left = || find(home, link::get_by_index(link.index));
    loop {
        tokio::select! {
            biased;
            deleted = &mut deleting => {
                let [deleted] = deleted.map_err(NetworkError::Netlink)?;
                gone(&format!("remove the interface {}", link.name), deleted)?;
                return match left().await? {
                    None => Ok(()),
                    Some(left) => Err(NetworkError::Left { interface: left.name }),
                };
            }
            () = sleep(UNLISTED_PAUSE) => if left().await?.is_none() {
                return Ok(());
            }
        }
    }
}

/// Removes an eth0 of an earlier boot inside the guest.
pub(super) async fn delete_inside(inside: &Connection) -> Result<(), NetworkError> {
    let requests = [link::delete_by_name(GUEST_INTERFACE)];
    let [deleted] = inside
        .batch(requests)
        .await
        .map_err(NetworkError::Netlink)?;
    gone("remove the guest's former eth0", deleted)
}

fn gone(action: &str, deleted: Response) -> Result<(), NetworkError> {
    match deleted {
        Err(error) if !absent(&error) => Err(NetworkError::kernel(action, error)),
        _ => Ok(()),
    }
}

/// Returns an interface; `None` when it does not exist.
pub(super) async fn find(
    connection: &Connection,
    request: Request,
) -> Result<Option<Link>, NetworkError> {
    let [found] = connection
        .batch([request])
        .await
        .map_err(NetworkError::Netlink)?;
    existing(found)
}

/// The error for an interface that was removed during the work on it.
pub(super) fn vanished() -> NetworkError {
    NetworkError::kernel("find the guest's interface", Errno::NODEV.into())
}

/// Parses the response to a query for an interface; `None` when it does not exist.
pub(super) fn existing(response: Response) -> Result<Option<Link>, NetworkError> {
    match response {
        Ok(message) => Ok(message.and_then(Link::read)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(NetworkError::kernel("read an interface", error)),
    }
}

/// Lists interfaces.
pub(super) async fn links(
    netlink: &Netlink,
    request: RouteNetlinkMessage,
) -> Result<Vec<Link>, NetworkError> {
    let listed = netlink.list(request).await;
    let listed = listed.map_err(|error| NetworkError::kernel("list the interfaces", error))?;
    Ok(listed.into_iter().filter_map(Link::read).collect())
}

fn absent(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NODEV)
}

/// Reports whether an error means that no route leads to the address.
pub(super) fn no_route(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::SRCH)
    )
}
