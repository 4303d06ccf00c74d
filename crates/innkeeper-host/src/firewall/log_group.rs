//! A group of the kernel's packet log (linux/netfilter/nfnetlink_log.h). The rules log the first packet to each guest
//! that rests there.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::wire;
use crate::unit::process::watched;

/// The subsystem of the packet log (`NFNL_SUBSYS_ULOG`), with the messages `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;
/// The attributes of a configuration: `NFULA_CFG_CMD` and `NFULA_CFG_MODE`.
const COMMAND: u16 = 1;
const MODE: u16 = 2;
/// `NFULNL_CFG_CMD_BIND` and `NFULNL_COPY_PACKET`.
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;
/// The attribute of a packet with its bytes from the IP header on: `NFULA_PAYLOAD`.
const PAYLOAD: u16 = 9;

/// The bytes of a packet that the kernel copies: IPv4's header without options.
const COPIED: u32 = 20;

/// A subscription to a group. Only one program of a network namespace can have it.
#[derive(Debug)]
pub(super) struct LogGroup(AsyncFd<OwnedFd>);

impl LogGroup {
    /// Subscribes.
    ///
    /// # Errors
    /// The kernel's, such as `EBUSY` when another program has the group.
    pub(super) fn bind(group: u16) -> io::Result<Self> {
        let socket = wire::socket(SocketFlags::NONBLOCK)?;
        let mode = [&COPIED.to_be_bytes()[..], &[COPY_PACKET, 0]].concat();
        for attribute in [(COMMAND, &[BIND][..]), (MODE, &mode)] {
            let request = wire::request(CONFIG, wire::ACK, 0, group, &[attribute]);
            send(&socket, &request, SendFlags::empty())?;
            let mut response = vec![0; 1 << 12];
            let (length, _) = recv(&socket, &mut response[..], RecvFlags::DONTWAIT)?;
            let response = response.get(..length).unwrap_or_default();
            let message = wire::messages(response)
                .next()
                .ok_or_else(wire::malformed)?;
            message.result()?;
        }
        Ok(Self(watched(socket, Interest::READABLE)?))
    }

    /// Waits for packets and returns their destinations. Returns none if messages were lost.
    pub(super) async fn next(&self) -> io::Result<Vec<Ipv4Addr>> {
        let mut datagram = vec![0; 1 << 16];
        loop {
            let mut ready = self.0.readable().await?;
            let received =
                ready.try_io(|socket| Ok(recv(socket, &mut datagram[..], RecvFlags::empty())?.0));
            match received {
                Ok(Ok(length)) => {
                    return Ok(destinations(datagram.get(..length).unwrap_or_default()));
                }
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                    return Ok(Vec::new());
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// Returns the destinations of the packets that have arrived, without waiting.
    pub(super) fn arrived(&self) -> Vec<Ipv4Addr> {
        let (mut datagram, mut guests) = (vec![0; 1 << 16], Vec::new());
        while let Ok((length, _)) = recv(&self.0, &mut datagram[..], RecvFlags::DONTWAIT) {
            guests.extend(destinations(datagram.get(..length).unwrap_or_default()));
        }
        guests
    }
}

/// Returns the destinations of the packets in a datagram. Strangers send the packets: what is not IPv4 is ignored.
fn destinations(datagram: &[u8]) -> Vec<Ipv4Addr> {
    wire::messages(datagram)
        .filter(|message| message.kind == PACKET)
        .filter_map(|message| {
            let (_, packet) = message.attributes().find(|(kind, _)| *kind == PAYLOAD)?;
            let is_ipv4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
            let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            is_ipv4.then(|| address.into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn destination_is_that_of_ipv4_packets_only() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 100, 0, 3]);
        let message = |payload: &[u8]| wire::request(PACKET, 0, 2, 0, &[(PAYLOAD, payload)]);
        let both = [
            message(&packet),
            message(&packet[..19]),
            message(&[0x60; 40]),
        ]
        .concat();
        assert_eq!(destinations(&both), [Ipv4Addr::new(10, 100, 0, 3)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(destinations(&bytes).len() <= bytes.len());
            let message = wire::request(PACKET, 0, 2, 0, &[(PAYLOAD, &bytes)]);
            prop_assert!(destinations(&message).len() <= 1);
        }
    }
}
