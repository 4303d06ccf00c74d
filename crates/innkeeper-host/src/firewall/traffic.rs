//! Reads the counters of guests' packets: elements of dynamic sets, which the kernel adds by itself. One list for each set
//! holds all guests. `nft --json` takes longer than the kernel, so they are read over netlink
//! (linux/netfilter/nf_tables.h).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;

use innkeeper_facilities::{GuestTraffic, PacketCount};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};

use super::elements::remove;
use super::ruleset::{FROM_GUESTS, OPENED, STARTING, TO_GUESTS};
use super::wire::{self, Message};

/// The messages `NFT_MSG_NEWSETELEM` and `NFT_MSG_GETSETELEM` of the subsystem of tables.
const NEW_ELEMENTS: u16 = 10 << 8 | 12;
const GET_ELEMENTS: u16 = 10 << 8 | 13;
/// The attributes of a list of elements: `NFTA_SET_ELEM_LIST_TABLE`, `…_SET` and `…_ELEMENTS`.
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
/// The attributes of an element: `NFTA_SET_ELEM_KEY` with its `NFTA_DATA_VALUE`, and `NFTA_SET_ELEM_EXPR`.
const KEY: u16 = 1;
const VALUE: u16 = 1;
const EXPRESSION: u16 = 7;
/// The attributes of an expression: `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`; and of the data of a counter:
/// `NFTA_COUNTER_BYTES` and `NFTA_COUNTER_PACKETS`.
const NAME: u16 = 1;
const DATA: u16 = 2;
const BYTES: u16 = 1;
const PACKETS: u16 = 2;

/// The attempts to read a list that no change of the rules interrupts.
const ATTEMPTS: usize = 5;

/// The length of a datagram of the kernel's.
const DATAGRAM: usize = 1 << 16;

/// Reads the counters of a table.
///
/// # Errors
/// The kernel's, such as `ENOENT` for a missing table; `EINTR` when each list is interrupted.
pub(super) fn read(table: &str) -> io::Result<BTreeMap<Ipv4Addr, GuestTraffic>> {
    let mut traffic: BTreeMap<Ipv4Addr, GuestTraffic> = BTreeMap::new();
    for (guest, count) in list(table, TO_GUESTS)? {
        traffic.entry(guest).or_default().to = count;
    }
    for (guest, count) in list(table, FROM_GUESTS)? {
        traffic.entry(guest).or_default().from = count;
    }
    for (guest, count) in list(table, OPENED)? {
        traffic.entry(guest).or_default().opened = count.packets;
    }
    Ok(traffic)
}

/// Lists the addresses in a set without counters.
///
/// # Errors
/// As [`read`].
pub(super) fn addresses(table: &str, set: &str) -> io::Result<BTreeSet<Ipv4Addr>> {
    let mut addresses = BTreeSet::new();
    for element in elements(table, set)? {
        addresses.insert(address(&element).ok_or_else(wire::malformed)?);
    }
    Ok(addresses)
}

/// Removes the counters of a guest, and ends the hold of its refusals.
///
/// # Errors
/// The kernel's.
pub(super) fn forget(table: &str, guest: Ipv4Addr) -> io::Result<()> {
    remove(table, &[TO_GUESTS, FROM_GUESTS, OPENED, STARTING], guest)
}

fn list(table: &str, set: &str) -> io::Result<Vec<(Ipv4Addr, PacketCount)>> {
    (elements(table, set)?.iter())
        .map(|element| counted(element).ok_or_else(wire::malformed))
        .collect()
}

/// Lists the elements of a set, each as its attributes.
fn elements(table: &str, set: &str) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..ATTEMPTS {
        if let Some(list) = list_once(table, set)? {
            return Ok(list);
        }
    }
    Err(Errno::INTR.into())
}

/// Returns the elements of a set; `None` if a change of the rules interrupted the list.
fn list_once(table: &str, set: &str) -> io::Result<Option<Vec<Vec<u8>>>> {
    let socket = wire::socket(SocketFlags::empty())?;
    let (table, set) = (wire::name(table), wire::name(set));
    let attributes = [(TABLE, &*table), (SET, &*set)];
    let request = wire::request(GET_ELEMENTS, wire::DUMP, wire::INET, 0, &attributes);
    send(&socket, &request, SendFlags::empty())?;
    let (mut list, mut interrupted) = (Vec::new(), false);
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // The kernel writes the next part of the list while it hands out the last one.
        let (length, _) = recv(&socket, &mut datagram[..], RecvFlags::DONTWAIT)?;
        for message in wire::messages(datagram.get(..length).unwrap_or_default()) {
            interrupted |= message.flags & wire::INTERRUPTED != 0;
            match message.kind {
                wire::DONE | wire::ERROR => {
                    message.result()?;
                    return Ok((!interrupted).then_some(list));
                }
                NEW_ELEMENTS => list.extend(elements_of(&message)),
                _ => {}
            }
        }
    }
}

fn elements_of<'a>(message: &Message<'a>) -> impl Iterator<Item = Vec<u8>> + use<'a> {
    let elements = message.attributes().find(|(kind, _)| *kind == ELEMENTS);
    let elements = elements.map(|(_, value)| value).unwrap_or_default();
    wire::attributes(elements).map(|(_, element)| element.to_vec())
}

fn address(element: &[u8]) -> Option<Ipv4Addr> {
    let key = wire::attribute(wire::attribute(element, KEY)?, VALUE)?;
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?))
}

fn counted(element: &[u8]) -> Option<(Ipv4Addr, PacketCount)> {
    let expression = wire::attribute(element, EXPRESSION)?;
    if wire::attribute(expression, NAME)? != b"counter\0" {
        return None;
    }
    let data = wire::attribute(expression, DATA)?;
    let number = |kind| {
        let bytes = wire::attribute(data, kind)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    let count = PacketCount {
        packets: number(PACKETS)?,
        bytes: number(BYTES)?,
    };
    Some((address(element)?, count))
}
