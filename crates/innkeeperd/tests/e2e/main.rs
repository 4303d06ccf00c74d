//! The daemon with real Nix, nspawn, network namespaces and cgroups. One module for each subject.
//!
//! Each test has its own network namespace, which its thread enters, and its own state, cgroup and machine names. So tests
//! run in parallel and never change the host's network.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test prints to the terminal and fails with a panic"
)]

mod access;
mod cli;
mod clients;
mod concurrency;
mod copy;
mod crash;
mod full_disk;
mod leaks;
mod lifecycle;
mod login;
mod prefetch;
mod restart;
mod service;
mod snapshots;
mod startup;
mod support;
mod two_daemons;
mod usage;
mod validation;
