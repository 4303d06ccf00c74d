//! The owner of a table: its comment. `nft --json` of version 1.0.6 does not print it, so it is read over netlink
//! (linux/netfilter/nf_tables.h).

use std::io;

use innkeeper_model::DaemonId;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};

use super::wire;

/// The prefix of the comment; the daemon's identity follows.
const PREFIX: &str = "innkeeper daemon ";

/// The netfilter subsystem of tables, with the messages `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE`.
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
/// The attributes of a table: `NFTA_TABLE_NAME` and `NFTA_TABLE_USERDATA`.
const NAME: u16 = 1;
const USERDATA: u16 = 6;
/// The entry of the user data that is the comment (`NFTNL_UDATA_TABLE_COMMENT` of libnftnl).
const COMMENT: u8 = 0;

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
    let socket = wire::socket(SocketFlags::empty())?;
    let name = wire::name(table);
    let request = wire::request(GET_TABLE, 0, wire::INET, 0, &[(NAME, &name)]);
    send(&socket, &request, SendFlags::empty())?;
    // The kernel responds while it receives the request.
    let mut response = vec![0; 1 << 14];
    let (length, _) = recv(&socket, &mut response[..], RecvFlags::DONTWAIT)?;
    read(response.get(..length).unwrap_or_default())
}

fn read(response: &[u8]) -> io::Result<Option<Option<String>>> {
    let message = wire::messages(response).next();
    let message = message.ok_or_else(wire::malformed)?;
    match message.kind {
        wire::ERROR => match message.result() {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Err(wire::malformed()),
        },
        NEW_TABLE => {
            let data = message.attributes().find(|(kind, _)| *kind == USERDATA);
            Ok(Some(data.and_then(|(_, data)| comment_in(data))))
        }
        _ => Err(wire::malformed()),
    }
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
        let data = [COMMENT, 3, b'h', b'i', 0];
        let whole = wire::request(NEW_TABLE, 0, wire::INET, 0, &[(USERDATA, &data)]);
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
