//! News that an interface or a route of the host's network namespace has changed (rtnetlink(7)).

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

/// A subscription.
#[derive(Debug)]
pub(super) struct RouteNews(AsyncFd<OwnedFd>);

impl RouteNews {
    /// Subscribes. What happened before is not reported.
    pub(super) fn subscribe() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(watched(socket, Interest::READABLE)?))
    }

    /// Waits until some interface or route has changed, and takes all news that there is.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut news = vec![0; 1 << 16];
        let mut is_news = false;
        loop {
            let mut ready = self.0.readable().await?;
            loop {
                let received =
                    ready.try_io(|socket| Ok(recv(socket, &mut news[..], RecvFlags::empty())?.0));
                match received {
                    Ok(Ok(_)) => is_news = true,
                    // There was more news than the socket holds.
                    Ok(Err(error))
                        if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) =>
                    {
                        is_news = true;
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => break,
                }
            }
            if is_news {
                return Ok(());
            }
        }
    }
}
