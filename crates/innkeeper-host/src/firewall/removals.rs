//! Notifications of the kernel about removed tables of nftables. A firewall that is restarted removes those of others too
//! (Debian's `nftables.service` starts with `flush ruleset`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags, bind, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire;
use crate::unit::process::watched;

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h as a bit: the groups count from 1.
const GROUP: u32 = 1 << (7 - 1);
/// A message's type: `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_DELTABLE` of linux/netfilter/nf_tables.h.
const TABLE_REMOVED: u16 = 10 << 8 | 2;

/// A subscription to the removals of tables in the daemon's network namespace.
#[derive(Debug)]
pub(super) struct Removals(AsyncFd<OwnedFd>);

impl Removals {
    /// Subscribes. Earlier removals are not reported.
    pub(super) fn subscribe() -> io::Result<Self> {
        let socket = wire::socket(SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self(watched(socket, Interest::READABLE)?))
    }

    /// Waits until any program removes a table.
    pub(super) async fn next(&self) -> io::Result<()> {
        let mut news = vec![0; 1 << 16];
        loop {
            let mut ready = self.0.readable().await?;
            let received =
                ready.try_io(|socket| Ok(recv(socket, &mut news[..], RecvFlags::empty())?.0));
            match received {
                Ok(Ok(length)) if removes_a_table(news.get(..length).unwrap_or_default()) => {
                    return Ok(());
                }
                Ok(Ok(_)) | Err(_) => {}
                // The socket overflowed, and a removal may be among the lost messages.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    return Ok(());
                }
                Ok(Err(error)) => return Err(error),
            }
        }
    }
}

/// Reports whether one of the messages is about a removed table.
fn removes_a_table(datagram: &[u8]) -> bool {
    wire::messages(datagram).any(|message| message.kind == TABLE_REMOVED)
}
