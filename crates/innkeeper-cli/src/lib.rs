//! The programs `agent`, `preview` and `innkeeper`.
//!
//! They hold no state and know nothing about the host: every command is one or a few calls of the daemon's
//! API ([`innkeeper_model::api`]) on its Unix socket, and a way to show the answer.
//!
//! | module | what it is for |
//! | --- | --- |
//! | `programs` | the words of the three programs, as clap reads them |
//! | `commands` | one file for each command, named as the command; those of `preview` in a folder |
//! | `client`, `sse`, `events` | HTTP over the socket, server-sent events, the stream of events that survives a restart of the daemon |
//! | `follow`, `progress` | an operation from its acceptance to its end |
//! | `settle` | a preview from what was asked of it until it stays as it is |
//! | `output`, `describe`, `table`, `checks`, `log` | everything that is printed |
//! | `escape` | what a terminal must not execute |
//! | `failure`, `suggest` | errors, exit codes, hints |
//! | `arguments`, `confirm`, `frames`, `terminal`, `wait` | what single commands need |
//!
//! What programs may rely on: `--json` prints one JSON value on standard output (`events` and `logs`: one on each
//! line), a failure is one [`innkeeper_model::Failure`] on standard error, and the exit code follows from the
//! failure's [`innkeeper_model::Kind`]. `docs/cli.md` is the reference, made from these definitions.

mod arguments;
mod checks;
mod client;
mod commands;
mod confirm;
mod describe;
mod escape;
mod events;
mod failure;
mod follow;
mod frames;
mod log;
mod output;
mod programs;
mod progress;
mod settle;
mod sse;
mod suggest;
mod table;
mod terminal;
mod wait;

pub use programs::{Agent, Innkeeper, Preview, Program, commands, start};
