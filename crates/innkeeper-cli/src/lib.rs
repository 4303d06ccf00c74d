//! The programs `agent`, `preview` and `innkeeper`.
//!
//! They are stateless clients: each command sends one or a few requests to the daemon's API ([`innkeeper_model::api`]), on
//! its Unix socket or through a gateway, and prints the result.
//!
//! | module | contents |
//! | --- | --- |
//! | `programs` | command lines of the three programs, parsed by clap |
//! | `commands` | one file for each command, named as the command; those of `preview` in a folder |
//! | `context` | the client and the output that each command uses |
//! | `target`, `contexts`, `token`, `server_url` | selection of the daemon: socket or gateway, its URL and its token |
//! | `client`, `sse`, `events` | HTTP requests, server-sent events, the event stream with reconnection |
//! | `device_flow` | the login of this machine at a gateway |
//! | `transport`, `tls`, `clock` | connections to the socket or a gateway, trusted authorities, the daemon's clock |
//! | `follow`, `progress` | following an operation from its acceptance to its end |
//! | `preview_change` | following a change of a preview until the preview settles |
//! | `output`, `describe`, `table`, `checks`, `log` | formatting and printing |
//! | `escape` | escaping of control characters for terminals |
//! | `failure`, `gateway_failure`, `suggest` | errors, exit codes, hints |
//! | `switch` | comparison of two NixOS generations, for `switch-preview` |
//! | `tunnel` | connections to ports of guests |
//! | `arguments`, `confirm`, `frames`, `terminal`, `wait` | support for single commands |
//!
//! Scripts may rely on this: `--json` prints one JSON value on standard output (`events` and `logs`: one for each line), a
//! failure is one [`innkeeper_model::Failure`] on standard error, and the exit code follows from the failure's
//! [`innkeeper_model::Kind`]. `docs/cli.md` is the reference, generated from these definitions.

mod arguments;
mod checks;
mod client;
mod clock;
mod commands;
mod confirm;
mod context;
mod contexts;
mod copy;
mod describe;
mod device_flow;
mod escape;
mod events;
mod failure;
mod follow;
mod frames;
mod gateway_failure;
mod known_hosts;
mod log;
mod output;
mod preview_change;
mod preview_log;
mod programs;
mod progress;
mod server_url;
mod sse;
mod suggest;
mod switch;
mod table;
mod target;
mod terminal;
mod tls;
mod token;
mod transport;
mod tunnel;
mod wait;

pub use programs::{Agent, Innkeeper, Preview, Program, commands, start};
