//! The owner of a table: its comment. `nft --json` of version 1.0.6 does not print it, so it is read over netlink
//! (linux/netfilter/nf_tables.h).

use std::io;

use innkeeper_model::DaemonId;
use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

/// The prefix of the comment; the daemon's identity follows.
const PREFIX: &str = "innkeeper daemon ";

/// The netfilter subsystem of tables, with the messages `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE`.
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
/// `NLMSG_ERROR` and `NLM_F_REQUEST` (linux/netlink.h).
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
/// The family `inet` (`NFPROTO_INET`).
const INET: u8 = 1;
/// The attributes of a table: `NFTA_TABLE_NAME` and `NFTA_TABLE_USERDATA`.
const NAME: u16 = 1;
const USERDATA: u16 = 6;
/// The entry of the user data that is the comment (`NFTNL_UDATA_TABLE_COMMENT` of libnftnl).
const COMMENT: u8 = 0;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// The flags in an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Returns the comment that marks a daemon's table.
pub(super) fn comment(daemon: &DaemonId) -> String {
    format!("{PREFIX}{daemon}")
}

/// Parses the daemon in a comment.
pub(super) fn marked(comment: &str) -> Option<DaemonId> {
    DaemonId::parse(comment.strip_prefix(PREFIX)?).ok()
}

/// Reads a table of the family `inet`: `None` when it does not exist, otherwise its comment, if it has one.
pub(super) fn look(table: &str) -> io::Result<Option<Option<String>>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        flags,
        Some(NETFILTER),
    )?;
    send(&socket, &request(table), SendFlags::empty())?;
    // The kernel responds while it receives the request.
    let mut response = vec![0; 1 << 14];
    let (length, _) = recv(&socket, &mut response[..], RecvFlags::DONTWAIT)?;
    read(response.get(..length).unwrap_or_default())
}

fn request(table: &str) -> Vec<u8> {
    let mut message = Vec::new();
    let name_length = 4 + table.len() + 1;
    let length = HEADER + GENERIC + name_length.next_multiple_of(4);
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(GET_TABLE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port, which are unused.
    message.extend([0; 8]);
    message.extend([INET, 0, 0, 0]);
    message.extend(u16::try_from(name_length).unwrap_or(u16::MAX).to_ne_bytes());
    message.extend(NAME.to_ne_bytes());
    message.extend(table.as_bytes());
    message.resize(length, 0);
    message
}

fn read(response: &[u8]) -> io::Result<Option<Option<String>>> {
    let malformed = || io::Error::other("the kernel's response about a table is malformed");
    let header = response.get(..HEADER).ok_or_else(malformed)?;
    let body = response.get(HEADER..).ok_or_else(malformed)?;
    match u16_at(header, 4).ok_or_else(malformed)? {
        ERROR => {
            let code = body.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
            match Errno::from_raw_os_error(-code.ok_or_else(malformed)?) {
                Errno::NOENT => Ok(None),
                error => Err(error.into()),
            }
        }
        NEW_TABLE => {
            let attributes = attributes(body.get(GENERIC..).ok_or_else(malformed)?);
            let data = attributes.into_iter().find(|(kind, _)| *kind == USERDATA);
            Ok(Some(data.and_then(|(_, data)| comment_in(data))))
        }
        _ => Err(malformed()),
    }
}

/// Returns the attributes of a message, up to a truncated one.
fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else {
            break;
        };
        found.push((kind & TYPE_MASK, value));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Returns the comment in the user data, whose entries start with a byte for the kind and one for the length.
fn comment_in(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn daemon_is_parsed_from_the_comment_only() {
        let identity = Identity::of('a');
        let daemon = identity.daemon();
        assert_eq!(marked(&comment(daemon)).as_ref(), Some(daemon));
        for other in ["", "innkeeper daemon ", "innkeeper daemon x", "other"] {
            assert_eq!(marked(other), None, "{other}");
        }
    }

    #[test]
    fn truncated_response_fails_or_has_no_comment() {
        let mut whole = vec![0; HEADER + GENERIC];
        whole[4..6].copy_from_slice(&NEW_TABLE.to_ne_bytes());
        let data = [COMMENT, 3, b'h', b'i', 0];
        whole.extend(9u16.to_ne_bytes());
        whole.extend(USERDATA.to_ne_bytes());
        whole.extend(data);
        assert_eq!(read(&whole).expect("reads"), Some(Some("hi".to_owned())));
        for length in 0..whole.len() {
            let cut = read(&whole[..length]);
            assert!(
                !matches!(cut, Ok(None | Some(Some(_)))),
                "{length}: {cut:?}"
            );
        }
    }
}
