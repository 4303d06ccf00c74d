//! The daemon on real parts: Nix, nspawn, network namespaces, cgroups. One module for each promise.
//!
//! Each test has a network of its own (its thread leaves the host's), its own state, cgroup and machine
//! names, so that tests run side by side and the host's own network is never touched.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test speaks to the person who runs it, and fails with a panic"
)]

mod concurrency;
mod crash;
mod leaks;
mod lifecycle;
mod programs;
mod refusals;
mod service;
mod snapshots;
mod support;
mod survival;
mod two_daemons;
