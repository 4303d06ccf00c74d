//! The engine over a fake host: its guarantees when steps fail.

mod backup;
mod builds;
mod change;
mod create;
mod fixture;
mod gc;
mod level;
mod memory;
mod nesting;
mod own_system;
mod packets;
mod rest;
mod retained;
mod seats;
mod shutdown;
mod snapshots;
mod staging;
mod usage;
mod wake;
mod warm;
mod watch;
