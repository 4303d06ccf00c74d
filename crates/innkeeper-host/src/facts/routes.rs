//! Notifications that an interface or a route of the host's network namespace changed (rtnetlink(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::unit::process::watched;

/// `RTMGRP_LINK` and `RTMGRP_IPV4_ROUTE` of linux/rtnetlink.h.
const GROUPS: u32 = 0x1 | 0x40;

/// A subscription to changes of interfaces and IPv4 routes.
#[derive(Debug)]
pub(super) struct RouteEvents(AsyncFd<OwnedFd>);

impl RouteEvents {
    /// Subscribes. Earlier events are not reported.
    pub(super) fn subscribe() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // `None` is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(watched(socket, Interest::READABLE)?))
    }

    /// Waits until an interface or route has changed, and discards all pending messages.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut changed = false;
        loop {
            let mut ready = self.0.readable().await?;
            loop {
                let received =
                    ready.try_io(|socket| Ok(recv(socket, &mut buffer[..], RecvFlags::empty())?.0));
                match received {
                    Ok(Ok(_)) => changed = true,
                    // The socket's buffer overflowed.
                    Ok(Err(error))
                        if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) =>
                    {
                        changed = true;
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => break,
                }
            }
            if changed {
                return Ok(());
            }
        }
    }
}
