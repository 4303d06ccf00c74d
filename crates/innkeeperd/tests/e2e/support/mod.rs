//! A place to run a daemon in, and what to ask of it.

mod client;
mod fixtures;
mod sandbox;
mod traces;

pub(crate) use client::{Answer, Client};
pub(crate) use fixtures::{Fixture, closure, flake};
pub(crate) use sandbox::{Daemon, RETENTION, Sandbox, wait_until};
pub(crate) use traces::Traces;
