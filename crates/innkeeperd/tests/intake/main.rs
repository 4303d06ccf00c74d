//! From GitHub to the disk: the real `innkeeper-webhook`, without any rights, in front of the real daemon. One
//! module for each promise.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a test speaks to the person who runs it, and fails with a panic"
)]

mod access;
mod deliveries;
mod github;
mod house;
mod storm;
#[path = "../e2e/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests of guests use more of it"
)]
mod support;
mod weather;
