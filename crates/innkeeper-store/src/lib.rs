//! Desired state: guests, their snapshots, slots, operations, events and previews, in one SQLite file.
//!
//! A [`Store`] is a handle to one OS thread that owns the only connection, so changes are serialized, and a slot or a name
//! can be taken only once. Each method is one message to that thread and one transaction; deliveries that wait for the
//! thread at the same time share one. A message that was sent is served even if its caller is canceled, so a dropped
//! future never leaves half a change.
//!
//! # Layers
//!
//! Each layer uses only those below it:
//!
//! | layer | content |
//! | --- | --- |
//! | `store` | [`Store`]'s methods by subject, and the rules that span tables |
//! | `connection` | the thread and its messages; group commit over a trait |
//! | `sql` | statements by table: free functions on a transaction |
//! | `database`, `clock`, `reserve`, `schema` | the file: opening, transactions, running time, space for removals, migrations |
//! | `delivery`, `preview`, `legacy` | records and pure rules, without SQL |
//! | `codec`, `error` | conversions of columns, errors |
//!
//! # Durability
//!
//! | subject | durable when the method returns |
//! | --- | --- |
//! | `guests`, `previews` | intents: yes; facts: soon |
//! | `changes` | yes |
//! | `checks` | open: yes; closed: soon |
//! | `seats` | yes, except that a guest left its seat |
//! | `backup`, `snapshots`, `retained`, `slots`, `repositories`, `identity` | yes |
//! | `tokens` | yes, except the last use |
//! | `stale_secrets` | changed: yes; delivered: soon |
//! | `operations` | begin: yes; end: soon, unless it made a guest run |
//! | `deliveries` | accepted: yes; result: soon |
//! | `audit`, `events`, `closures`, `evaluations`, `pings`, `running_time` | soon |
//!
//! "Yes" is `synchronous=FULL`: the write-ahead log has reached the disk. "Soon" is `synchronous=NORMAL`: the change
//! survives a crash of the daemon, and may be lost with the machine's power until the next intent is recorded. Only facts
//! can be lost that way, and a reconcile observes them again.

mod backup;
mod clock;
mod codec;
mod connection;
mod database;
mod delivery;
mod error;
mod inspection;
mod legacy;
mod preview;
mod reserve;
mod schema;
mod sql;
mod store;

pub use backup::BackupRecords;
pub use clock::{ExpiryClock, RunningTime};
pub use delivery::{
    Delivery, DeliveryFilter, DeliveryOutcome, NewDelivery, NextDelivery, Receipt, retry_after,
};
pub use error::{Cause, StoreError};
pub use inspection::{Inspection, inspect, supported_schema};
pub use preview::{
    Approval, CommandChange, NewPreview, Presence, Preview, PreviewFact, PreviewRequest,
};
pub use sql::audit::{AuditFilter, NewAuditEntry};
pub use sql::checks::OpenCheck;
pub use sql::evaluations::Evaluation;
pub use sql::events::EventFilter;
pub use sql::grants::{NewGrant, StoredGrant};
pub use sql::guests::NewGuest;
pub use sql::identity::Identity;
pub use sql::pings::Ping;
pub use sql::retained::RetainedFiles;
pub use sql::seats::Seat;
pub use sql::stale_secrets::StaleSecret;
pub use sql::tokens::{NewToken, StoredPerson, StoredToken};
pub use store::{
    AdditionalConfig, AuditLimits, MovedGuest, NameHold, NewSession, RepoIdentity, RequestedChange,
    Restore, Store,
};
