//! Makes the host agree with the store.
//!
//! There is one code path for creation, start, stop, destruction, restore after a reboot and repair after
//! a crash: look at what is there ([`observe`]), plan the difference ([`plan`], a pure function), carry the
//! plan out (`drive`), record it (`journal`). An operation that a crash interrupted is simply driven
//! again.
//!
//! ```text
//!  create / start / stop / destroy / …      endings of guests, timer, boot
//!        │ intent, one transaction                    │
//!        ▼                                            ▼
//!      store ───────────────► drive(guest) ◄──────────┘      one at a time for each guest
//!                               │  ▲
//!              observe → plan → stage → stage → …  → finish
//! ```

mod adopt;
mod backoff;
mod doctor;
mod drive;
mod engine;
mod error;
mod gc;
mod journal;
mod locks;
pub mod observe;
mod oom;
pub mod plan;
mod probe;
mod restore;
mod retained;
mod snapshots;
mod views;

pub use engine::{Engine, EngineConfig};
pub use error::EngineError;
pub use gc::removes;
pub use journal::Journal;
pub use probe::{Edge, Point, Probe};
