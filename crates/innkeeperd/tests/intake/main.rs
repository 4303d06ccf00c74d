//! From GitHub to the disk: the real `innkeeper-webhook`, without privileges, in front of the real daemon. One module for
//! each subject.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test prints to the terminal and fails with a panic"
)]

mod access;
mod deliveries;
mod github;
mod host;
mod recorded;
mod storm;
#[path = "../e2e/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the e2e tests use more of it")]
mod support;
mod workload;
