//! The socket on which `innkeeper-pages` requests wakes of previews, on behalf of their visitors.
//!
//! Strangers can reach that program, so the socket does nothing but this: a datagram is the slug of a preview, and there is no
//! response. `innkeeper-pages` sends it again until the preview's status changes, so that none is lost by a restart.

use std::path::Path;

use innkeeper_host::FileError;
use innkeeper_model::GuestName;
use innkeeper_preview::Previews;
use tokio::net::UnixDatagram;
use tracing::warn;

use crate::socket::{self, group_id};

/// Length of the buffer for a datagram, in bytes: one more than the longest slug, so that a longer datagram is no slug.
const BUFFER: usize = 64;

/// Pause after a failed read.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Listens on the socket, for root and for programs of the group, if it exists.
///
/// # Errors
/// When the socket cannot be created.
pub(crate) fn bind(path: &Path, group: &str) -> Result<UnixDatagram, FileError> {
    socket::bind_datagram(path, group_id(group))
}

/// Serves until it is dropped. One request at a time: a flood waits in the socket's queue, which is short.
pub(crate) async fn serve(socket: UnixDatagram, previews: Previews) {
    let mut buffer = [0; BUFFER];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(length) => {
                if let Some(slug) = parse(&buffer[..length]) {
                    previews.wake_for_visitor(&slug).await;
                }
            }
            Err(error) => {
                warn!(%error, "cannot read a request to wake a preview");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Parses a datagram. Others than slugs are ignored.
fn parse(datagram: &[u8]) -> Option<GuestName> {
    GuestName::parse(std::str::from_utf8(datagram).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slugs_are_requests() {
        let longest = "x".repeat(63);
        for slug in ["web-7", &longest] {
            let parsed = parse(slug.as_bytes()).expect("a slug");
            assert_eq!(parsed.as_str(), slug);
        }
        for other in ["", "Web", "../x", "web-7\n", "web 7", &"x".repeat(BUFFER)] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(parse(&[0xff; 5]), None);
    }
}
