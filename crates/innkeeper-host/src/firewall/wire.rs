//! Messages of the netfilter subsystems of netlink (linux/netfilter/nfnetlink.h): their headers and attributes.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The family `inet` (`NFPROTO_INET`).
pub(super) const INET: u8 = 1;
/// `NLMSG_ERROR` and `NLMSG_DONE` (linux/netlink.h).
pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
/// `NLM_F_REQUEST`, `NLM_F_DUMP` and, in responses, `NLM_F_DUMP_INTR`.
pub(super) const REQUEST: u16 = 1;
pub(super) const DUMP: u16 = 0x300;
pub(super) const INTERRUPTED: u16 = 0x10;
/// `NLM_F_ACK`.
pub(super) const ACK: u16 = 4;

/// `struct nlmsghdr` and `struct nfgenmsg`.
pub(super) const HEADER: usize = 16;
pub(super) const GENERIC: usize = 4;
/// The alignment of messages and attributes.
const ALIGNMENT: usize = 4;
/// The header of an attribute: its length and its type.
const ATTRIBUTE: usize = 4;
/// The flags in an attribute's type, and that of a value that consists of attributes (`NLA_F_NESTED`).
const TYPE_MASK: u16 = 0x3fff;
pub(super) const NESTED: u16 = 0x8000;

/// Opens a socket of the netfilter subsystems in the network namespace of the calling thread.
pub(super) fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(socket_with(family, kind, flags, Some(NETFILTER))?)
}

/// Returns a request of a kind with its attributes. `resource` is the field `res_id`.
pub(super) fn request(
    kind: u16,
    flags: u16,
    family: u8,
    resource: u16,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    // Sequence and port, which are unused.
    message.extend([0; 8]);
    message.extend([family, 0]);
    message.extend(resource.to_be_bytes());
    for (kind, value) in attributes {
        push(&mut message, *kind, value);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    if let Some(field) = message.first_chunk_mut() {
        *field = length.to_ne_bytes();
    }
    message
}

/// Returns an attribute, as the value of another one that is [`NESTED`].
pub(super) fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    push(&mut attribute, kind, value);
    attribute
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(ALIGNMENT), 0);
}

/// Returns a name as the value of an attribute.
pub(super) fn name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

/// A message in a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// Everything after the header.
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Returns the attributes after the generic header, up to a truncated one.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.body.get(GENERIC..).unwrap_or_default())
    }

    /// Returns the result in a message of the kind [`ERROR`] or [`DONE`]. A message without one is malformed.
    pub(super) fn result(&self) -> io::Result<()> {
        match self
            .body
            .first_chunk()
            .map(|code| i32::from_ne_bytes(*code))
        {
            Some(0..) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            None => Err(malformed()),
        }
    }
}

/// Returns the messages of a datagram, up to a truncated one.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = datagram
            .first_chunk()
            .map(|field| u32::from_ne_bytes(*field))?;
        let length = usize::try_from(length).ok()?;
        let message = Message {
            kind: u16_at(datagram, 4)?,
            flags: u16_at(datagram, 6)?,
            body: datagram.get(HEADER..length)?,
        };
        let next = length.next_multiple_of(ALIGNMENT);
        datagram = datagram.get(next..).unwrap_or_default();
        Some(message)
    })
}

/// Returns the attributes in a value, up to a truncated one.
pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)?);
        let value = rest.get(ATTRIBUTE..length)?;
        let next = length.next_multiple_of(ALIGNMENT);
        rest = rest.get(next..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// Returns the first attribute of a kind in a value.
pub(super) fn attribute(value: &[u8], kind: u16) -> Option<&[u8]> {
    let mut attributes = attributes(value);
    Some(attributes.find(|(found, _)| *found == kind)?.1)
}

/// The error for a response that is not in the expected form.
pub(super) fn malformed() -> io::Error {
    io::Error::other("the kernel's response is malformed")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?;
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn request_is_parsed_as_it_was_written() {
        let name = name("innkeeper");
        let bytes = request(0x0a0d, DUMP, INET, 0, &[(1, &name), (2, b"ab")]);
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let twice = [bytes.clone(), bytes].concat();
        let parsed: Vec<_> = messages(&twice).collect();
        assert_eq!(parsed.len(), 2);
        for message in parsed {
            assert_eq!((message.kind, message.flags), (0x0a0d, REQUEST | DUMP));
            let attributes: Vec<_> = message.attributes().collect();
            assert_eq!(attributes, [(1, &*name), (2, &b"ab"[..])]);
        }
    }

    proptest! {
        /// Any bytes end the iteration: no length in them makes it loop or read beyond the end.
        #[test]
        fn any_bytes_are_parsed_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let count = messages(&bytes).flat_map(|message| message.attributes()).count();
            prop_assert!(count <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len() / ATTRIBUTE);
        }
    }
}
