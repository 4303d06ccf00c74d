//! The store's guarantees, tested on real files.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy recognizes tests by their attribute, but not their helpers"
)]

mod access;
mod additional;
mod backup;
mod caches;
mod deliveries;
mod delivery_streams;
mod dumps;
mod durability;
mod events;
mod guests;
mod legacy;
mod migrations;
mod opening;
mod previews;
mod repositories;
mod retained;
mod running_time;
mod slots;
mod snapshots;
mod support;
mod visitors;
