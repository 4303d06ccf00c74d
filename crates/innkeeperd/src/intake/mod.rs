//! The intake: the socket on which `innkeeper-webhook` hands over deliveries.
//!
//! It is separate from the API's socket, and for another group: the program that strangers can reach must only be able to
//! record deliveries. `innkeeper_model::preview::intake` defines the protocol.
//!
//! ```text
//! innkeeper-webhook ──► concurrent calls
//!                            ▼
//!                 the store's thread: queued deliveries share one transaction, one fsync
//!                            ▼
//!          answers ◄── on disk ──► notifier: the preview controller reads the pending deliveries
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | `server` | the call that records deliveries |
//! | `notifier` | notifications about pending deliveries |
//! | `explain` | explanations of deliveries for people |

pub(crate) mod explain;
mod notifier;
mod server;

pub(crate) use notifier::Notifier;
pub(crate) use server::{PURPOSE, serve};
