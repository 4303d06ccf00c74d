//! What should exist: guests, their snapshots, slots, operations and events, in one SQLite file.
//!
//! A [`Store`] is a handle to one OS thread that owns the only connection, so every change is made one
//! after the other, and a slot or a name can be taken once only. Each method is one message to that
//! thread and one transaction; deliveries that wait for the thread at the same time share one. Work that was sent is done even if nobody waits for the answer any more,
//! so dropping a future of this crate never leaves half a change.
//!
//! | module | subject | durable when the method returns |
//! | --- | --- | --- |
//! | `guests` | what should be true of each guest | intents: yes; facts learnt on the way: soon |
//! | `snapshots` | guests' snapshots, and what is to be done with guests' files | yes |
//! | `retained` | files of destroyed agents, which are kept for a while | yes |
//! | `slots` | which slot the next guest gets | yes, with the guest |
//! | `operations` | what was asked for and how it ended | begin: yes; end: soon |
//! | `events` | what happened | soon |
//! | `closures` | what was built before | soon |
//! | `deliveries` | events of pull requests, each acted on once | accepted: yes; how it ended: soon |
//! | `previews` | what should be true of each preview | intents: yes; facts learnt on the way: soon |
//! | `repositories` | which repository a name stands for | yes |
//! | `evaluations` | what configurations of previews were built to | soon |
//! | `running_time` | how long daemons have run: the clock for what expires by age | soon |
//! | `identity` | who the daemon is, and whether objects without a mark were adopted | yes |
//! | `legacy` | slots of an older installation | yes |
//!
//! "Yes" is `synchronous=FULL`: the write-ahead log has reached the disk. "Soon" is
//! `synchronous=NORMAL`: it survives the death of the daemon, and may be lost with the machine's power
//! until the next intent is recorded. Nothing is lost by that but knowledge that a reconcile finds again.

mod closures;
mod codec;
mod connection;
mod database;
mod deliveries;
mod error;
mod evaluations;
mod events;
mod guests;
mod identity;
mod legacy;
mod operations;
mod previews;
mod repositories;
mod reserve;
mod retained;
mod running_time;
mod schema;
mod slots;
mod snapshots;

pub use connection::Store;
pub use deliveries::{
    Delivery, DeliveryFilter, DeliveryOutcome, NewDelivery, NextDelivery, Receipt, retry_after,
};
pub use error::{Cause, StoreError};
pub use evaluations::Evaluation;
pub use events::EventFilter;
pub use guests::NewGuest;
pub use identity::Identity;
pub use previews::{Approval, NewPreview, Presence, Preview, PreviewFact};
pub use repositories::RepoIdentity;
pub use retained::RetainedFiles;
pub use running_time::{ExpiryClock, RunningTime};
