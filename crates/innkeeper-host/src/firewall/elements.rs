//! Changes one element of a set in a transaction over netlink (linux/netfilter/nf_tables.h). `nft` would take several
//! milliseconds for each guest that is paused.

use std::io;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

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
    commit(&[message(
        NEW_ELEMENTS,
        CREATE | wire::ACK,
        table,
        set,
        address,
    )])
}

/// Removes an address from sets, in one transaction. A set without it, and a missing table, are success.
///
/// # Errors
/// The kernel's.
pub(super) fn remove(table: &str, sets: &[&str], address: Ipv4Addr) -> io::Result<()> {
    let last = sets.len().saturating_sub(1);
    let mut messages = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        // A missing element would undo the transaction, so it is added first.
        messages.push(message(NEW_ELEMENTS, CREATE, table, set, address));
        // The kernel reports errors of the others, too.
        let flags = if index == last { wire::ACK } else { 0 };
        messages.push(message(DELETE_ELEMENTS, flags, table, set, address));
    }
    match commit(&messages) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn message(kind: u16, flags: u16, table: &str, set: &str, address: Ipv4Addr) -> Vec<u8> {
    let value = wire::nested(VALUE, &address.octets());
    let entry = wire::nested(ENTRY, &wire::nested(KEY, &value));
    let (table, set) = (wire::name(table), wire::name(set));
    let attributes = [
        (TABLE, &*table),
        (SET, &*set),
        (ELEMENTS | wire::NESTED, &*entry),
    ];
    wire::request(kind, flags, wire::INET, 0, &attributes)
}

/// The number of attempts to change a set that the kernel is changing, and the pause before the next one.
const ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Carries out messages as one transaction. The last one must request a response.
///
/// Packets delete elements of a set as well. While the kernel then rebuilds the table of the set, a moment, it refuses
/// new elements with `EBUSY`.
fn commit(messages: &[Vec<u8>]) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match commit_once(messages) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::BUSY) => sleep(PAUSE),
            result => return result,
        }
    }
    commit_once(messages)
}

fn commit_once(messages: &[Vec<u8>]) -> io::Result<()> {
    let begin = wire::request(BEGIN, 0, 0, TABLES, &[]);
    let end = wire::request(END, 0, 0, TABLES, &[]);
    let transaction = [begin, messages.concat(), end].concat();
    let socket = wire::socket(SocketFlags::empty())?;
    send(&socket, &transaction, SendFlags::empty())?;
    // The kernel responds while it receives the request: to a message that fails, or to the last one.
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
