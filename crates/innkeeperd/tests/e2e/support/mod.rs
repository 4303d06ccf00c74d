//! A sandbox for a daemon, and a client for its API.

mod client;
mod fixtures;
mod sandbox;
mod traces;

pub(crate) use client::{Client, Response, create_body};
pub(crate) use fixtures::{Fixture, closure, flake};
pub(crate) use sandbox::{Daemon, RETENTION, Sandbox, wait_until};
pub(crate) use traces::Traces;
