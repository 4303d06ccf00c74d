//! What the store promises, tried on real files.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy knows tests by their attribute, and not what helps them"
)]

mod concurrency;
mod deliveries;
mod durability;
mod events;
mod legacy;
mod migrations;
mod numbering;
mod opening;
mod operations;
mod previews;
mod repositories;
mod retained;
mod running_time;
mod snapshots;
mod support;
