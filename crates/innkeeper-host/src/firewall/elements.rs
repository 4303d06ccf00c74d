//! Changes one element of a set in a transaction over netlink (linux/netfilter/nf_tables.h). `nft` would take several
//! milliseconds for each guest that is paused.

use std::io;
use std::net::Ipv4Addr;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};

use super::wire;

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`, around the messages of a transaction.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// The subsystem of tables (`NFNL_SUBSYS_NFTABLES`), with the messages `NFT_MSG_NEWSETELEM` and `NFT_MSG_DELSETELEM`.
const TABLES: u16 = 10;
const NEW_ELEMENTS: u16 = TABLES << 8 | 12;
const DELETE_ELEMENTS: u16 = TABLES << 8 | 14;
/// `NLM_F_CREATE`.
const CREATE: u16 = 0x400;
/// The attributes of a list of elements (`NFTA_SET_ELEM_LIST_TABLE`, `…_SET`, `…_ELEMENTS`), of an entry of it
/// (`NFTA_LIST_ELEM`), and of an element (`NFTA_SET_ELEM_KEY` with its `NFTA_DATA_VALUE`).
const TABLE: u16 = 1;
const SET: u16 = 2;
const ELEMENTS: u16 = 3;
const ENTRY: u16 = 1;
const KEY: u16 = 1;
const VALUE: u16 = 1;

/// Adds an address to a set, which may have it already.
///
/// # Errors
/// The kernel's, such as `ENOENT` for a missing table.
pub(super) fn add(table: &str, set: &str, address: Ipv4Addr) -> io::Result<()> {
    change(NEW_ELEMENTS, CREATE, table, set, address)
}

/// Removes an address from a set. A missing one is success.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(table: &str, set: &str, address: Ipv4Addr) -> io::Result<()> {
    match change(DELETE_ELEMENTS, 0, table, set, address) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn change(kind: u16, flags: u16, table: &str, set: &str, address: Ipv4Addr) -> io::Result<()> {
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
        wire::request(kind, flags | wire::ACK, wire::INET, 0, &attributes),
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
