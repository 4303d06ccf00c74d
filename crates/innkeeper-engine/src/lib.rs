//! Reconciles the host with the store.
//!
//! Creation, start, stop, destruction, restore after a reboot and repair after a crash share one code path: observe the
//! guest (`observe`), plan the difference (`plan`, a pure function), execute the plan (`drive`), record the result
//! (`journal`). An operation that a crash interrupted is driven again.
//!
//! ```text
//!  create / start / stop / destroy / …      guest exits, timer, boot
//!        │ intent, one transaction                    │
//!        ▼                                            ▼
//!      store ───────────────► drive(guest) ◄──────────┘      one at a time for each guest
//!                               │  ▲       │
//!              observe → plan → stage → …  └─► follow-up: none, drive again, retry later
//! ```
//!
//! Files depend on each other in one direction: data and the shared state (`inner`), then work on the host (`drive`,
//! `build`, `change`, `health`, `snapshots`, `space`, `firewall`), then `engine`, then the files that add requests, queries and the
//! daemon's own work to [`Engine`].

mod activity;
mod adopt;
mod asleep;
mod backoff;
mod backup;
mod build;
mod change;
mod connect;
mod demand;
mod demands;
mod disk;
mod disks;
mod doctor;
mod drive;
mod engine;
mod error;
mod file_work;
mod firewall;
mod gc;
mod guest_command;
mod health;
mod idle;
mod inner;
mod journal;
mod keepalive;
mod keyed_locks;
mod level;
mod memory;
mod observe;
mod oom;
mod own_system;
mod plan;
mod policy;
mod prefetch;
mod pressure;
mod probe;
mod relief;
mod requests;
mod rest;
mod rest_report;
mod restore;
mod retained;
mod seat;
mod seats;
mod sessions;
mod sleep_order;
mod snapshots;
mod space;
mod staging;
mod top;
mod usage;
mod views;
mod warm;
mod warm_pool;
mod warm_seat;
mod watch;

pub use activity::ActivityConfig;
pub use backup::{Exported, OperationLog};
pub use engine::Engine;
pub use error::EngineError;
pub use gc::removes;
pub use idle::{KindRest, LevelHooks, RestConfig};
pub use inner::EngineConfig;
pub use journal::Journal;
pub use keyed_locks::KeyedLocks;
pub use pressure::PressureConfig;
pub use probe::{Edge, Point, Probe};
pub use sessions::OpenSession;
pub use staging::{Staging, Turn};
pub use warm::{WarmConfig, WarmGuests};
