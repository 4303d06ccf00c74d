//! Innkeeper's domain types, without I/O.
//!
//! All crates share these types: names, slots and addresses, store paths, limits, guests, operations with their events,
//! and failures. They parse and validate, so that every value of such a type is valid.
//!
//! This crate does not touch the machine and has no async code.

pub mod access;
pub mod api;
mod backoff;
mod change;
mod closure_source;
mod failure;
mod guest;
mod identity;
mod installable;
mod limits;
mod name;
#[cfg(feature = "openapi")]
mod openapi;
mod operation;
mod own_system;
mod pressure;
pub mod preview;
pub mod reserved;
pub mod resolv_conf;
mod rest;
mod retained;
mod secret;
pub mod settled;
mod slot;
mod snapshot;
mod start_report;
mod store_path;
mod usage;

pub use backoff::Backoff;
pub use change::{BootSpec, ChangeOutcome, ChangePhase, ClosureChange, LastChange, OwnSystemFate};
pub use closure_source::ClosureSource;
pub use failure::{Code, Explain, Failure, Kind, chain};
pub use guest::{DesiredState, Guest, GuestKind, GuestState, IdlePolicy, Level, UnitPhase};
pub use identity::{DaemonId, InvalidDaemonId, Ownership};
pub use installable::{Installable, InvalidInstallable, Trust};
pub use limits::{Cpus, InvalidLimit, Limits, MemorySize, UserIdCount};
pub use name::{GuestName, InvalidName};
pub use operation::{
    BuildProgress, Event, EventKind, Operation, OperationId, OperationState, Verb,
};
pub use own_system::{OwnSystem, OwnSystemState};
pub use pressure::{HostMemory, MemoryBand};
pub use rest::{IdleRequest, KeepaliveRequest, MAX_KEEPALIVE, PROBE_DSCP, RestReport};
pub use retained::{Retained, RetainedId};
pub use secret::Secret;
pub use slot::{
    Addresses, InvalidSlotBounds, InvalidSubnet, MAX_SLOT, Slot, SlotBounds, SlotRange, SlotUse,
};
pub use snapshot::{FileWork, InvalidLabel, Origin, Snapshot, SnapshotLabel};
pub use start_report::StartReport;
pub use store_path::{InvalidStorePath, STORE_DIR, StorePath};
pub use usage::GuestUsage;
