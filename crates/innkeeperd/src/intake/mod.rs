//! The intake: the socket on which `innkeeper-webhook` hands over deliveries.
//!
//! It is another socket than the API's, for another group: the program that strangers can reach must not be
//! able to ask for anything. All it can do is have deliveries recorded. `innkeeper_model::preview::intake` is
//! what both sides say.
//!
//! ```text
//! innkeeper-webhook ──► calls, some at the same time
//!                            ▼
//!                 the store's thread: what waits for it is one transaction, one fsync
//!                            ▼
//!          answers ◄── on disk ──► the bell: whoever acts on deliveries looks what is pending
//! ```
//!
//! | module | what it is for |
//! | --- | --- |
//! | `listener` | who may connect |
//! | `server` | the one call |
//! | `bell` | waking whoever acts on deliveries |
//! | `explain` | what a person is told of a delivery |

mod bell;
pub(crate) mod explain;
mod listener;
mod server;

pub use bell::Bell;
pub(crate) use listener::Listener;
pub(crate) use server::serve;
