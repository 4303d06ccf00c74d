//! All facilities in memory, for tests: a [`FakeHost`] records every call, fails on request, and shows its objects in
//! its [`World`].
//!
//! ```
//! use innkeeper_facilities::fake::FakeHost;
//!
//! let host = FakeHost::new();
//! host.fail("rootfs.ensure", 2);
//! let facilities = host.facilities();
//! // … run the engine with these facilities …
//! assert!(host.world().is_empty());
//! ```

mod error;
mod guests;
mod memory;
mod part;
mod previews;
mod resource;
mod rootfs;
mod units;
mod world;

pub use part::FakeHost;
pub use previews::DATABASE_BYTES;
pub use world::{ExecHandler, ExecResult, Failing, World, a_closure};
