//! Removes elements of sets over netlink (linux/netfilter/nf_tables.h), which takes a fraction of the time of `nft`.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};

use super::wire;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, around the messages of a transaction.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// The subsystem of tables (`NFNL_SUBSYS_NFTABLES`), with the message `NFT_MSG_DELSETELEM`.
const TABLES: u16 = 10;
const DELETE_ELEMENTS: u16 = TABLES << 8 | 14;
/// The attributes of a list of elements (`NFTA_SET_ELEM_LIST_TABLE`, `…_SET`, `…_ELEMENTS`), of an entry of it
/// (`NFTA_LIST_ELEM`), and of an element (`NFTA_SET_ELEM_KEY` with its `NFTA_DATA_VALUE`).
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ENTRY: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// Removes an address from a set. A missing one, and a missing table, is success.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(table: &str, set: &str, address: Ipv4Addr) -> io::Result<()> {
    match delete(table, set, address) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn delete(table: &str, set: &str, address: Ipv4Addr) -> io::Result<()> {
    let value = wire::nested(VALUE, &address.octets());
    let entry = wire::nested(ENTRY, &wire::nested(KEY, &value));
    let (table, set) = (wire::name(table), wire::name(set));
    let attributes = [
        (TABLE, &*table),
        (SET, &*set),
        (ELEMENTS | wire::NESTED, &*entry),
    ];
    let transaction = [
        wire::request(BEGIN, 0, 0, TABLES, &[]),
        wire::request(DELETE_ELEMENTS, wire::ACK, wire::INET, 0, &attributes),
        wire::request(END, 0, 0, TABLES, &[]),
    ];
    let socket = wire::socket(SocketFlags::empty())?;
    send(&socket, &transaction.concat(), SendFlags::empty())?;
    // The kernel responds while it receives the request.
    let mut response = vec![0; 1 << 13];
    let (length, _) = recv(&socket, &mut response[..], RecvFlags::DONTWAIT)?;
    let response = response.get(..length).unwrap_or_default();
    let message = wire::messages(response)
        .next()
        .ok_or_else(wire::malformed)?;
    match message.kind {
        wire::ERROR => message.result(),
        _ => Err(wire::malformed()),
    }
}
