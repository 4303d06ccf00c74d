//! From a signed delivery to a page in a browser and back to nothing: the real daemon and webhook, a real Caddy, a real
//! PostgreSQL, real Nix, real nspawn. Only GitHub is played. One module for each promise.

#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test speaks to the person who runs it, and fails with a panic"
)]

mod commands;
mod crash;
mod database;
mod floods;
mod forks;
#[path = "../intake/github/mod.rs"]
mod github;
mod late;
mod lifecycle;
mod names;
mod neighbours;
mod recorded;
mod repositories;
mod rounds;
mod storm;
#[path = "../e2e/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests of guests use more of it"
)]
mod support;
mod tokens;
mod town;
mod trouble;
#[path = "../intake/weather.rs"]
#[expect(dead_code, reason = "the test of the intake uses more of it")]
mod weather;
mod words;
