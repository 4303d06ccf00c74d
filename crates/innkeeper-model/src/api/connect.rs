//! Connections to ports of guests.
//!
//! After the upgrade, both sides send frames as in [`exec`](super::exec): one byte for the kind, four bytes for the length of
//! the body (big endian), the body. A direction ends with a frame, since proxies do not pass on the end of one direction alone.

/// Both ways: bytes of the connection. An empty body ends this direction.
pub const DATA: u8 = 0;
/// Daemon to caller: no meaning. Sent while the guest does not read, to find out whether the caller is still there.
pub const PROBE: u8 = 1;
/// Maximum length of a body, for both sides.
pub const MAX_BODY: usize = super::exec::MAX_BODY;
/// Maximum of the query's `wait`, in seconds.
pub const MAX_WAIT: u64 = 60;
/// The protocol's name in the `Upgrade` header.
pub const PROTOCOL: &str = "innkeeper-connect";
