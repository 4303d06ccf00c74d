//! Previews from a signed delivery to a page in a browser, and their removal: the real daemon and webhook, Caddy, PostgreSQL,
//! Nix and nspawn. Only GitHub is a fake. One module for each subject.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test prints to the terminal and fails with a panic"
)]

mod access;
mod branches;
mod cli;
mod commands;
mod comment_commands;
mod crash;
mod database;
mod failures;
mod floods;
mod forks;
#[path = "../intake/github/mod.rs"]
mod github;
mod host;
mod ignored;
mod isolation;
mod lifecycle;
mod people;
mod recorded_payloads;
mod redelivery;
mod repositories;
mod requests;
mod rest_pings;
mod rest_storm;
mod resync;
mod secrets;
mod servers;
mod slugs;
mod storm;
#[path = "../e2e/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the e2e tests use more of it")]
mod support;
mod tokens;
mod visibility;
mod waking;
mod webhooks;
#[path = "../intake/workload.rs"]
#[expect(dead_code, reason = "the intake tests use more of it")]
mod workload;
