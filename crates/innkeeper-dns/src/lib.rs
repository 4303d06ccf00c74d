//! The unprivileged program that resolves names for guests.
//!
//! The firewall redirects a guest's queries, which it sends to port 53 of its own gateway address, to this program. A guest's
//! source address is verified by then, and names the guest:
//!
//! ```text
//! guest ── gateway:53 ── firewall ──► server ──► handle ─┬─ a host of the guest's own preview: its gateway's address
//!                                                       │    (hosts: the table that Caddy routes by)
//!                                                       └─ any other name: upstream ──► the host's name servers
//! ```
//!
//! So an app reaches its own `PREVIEW_URL` through the host's Caddy also where that name resolves to an address in front of
//! the host: a router with NAT, a load balancer. Hosts of other previews are names like any other.
//!
//! For the host itself, it resolves the names by which Caddy finds the apps of settled routes ([`innkeeper_model::settled`]).
//!
//! The program needs no rights and no daemon: it reads the table of routes and the host's `resolv.conf`.
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | the settings |
//! | `message` | queries and responses of the DNS |
//! | `hosts` | the hosts of a guest's own preview, and settled ones |
//! | `handle` | from a query to its response, or to the name servers |
//! | `upstream` | the host's name servers |
//! | `probe` | the query to itself, for the watchdog |
//! | `rate` | the rate of each guest over TCP |
//! | `share` | places that guests share, such as those of waiting queries |
//! | `server` | sockets, and limits of guests |
//!
//! # The library
//!
//! Messages are parsed and written by `hickory-proto`, which is maintained by the Hickory project, fuzzed, free of `unsafe`
//! code, and reads compressed names without loops. Its server and resolver are not used: they decode and encode each
//! response, and answer from a cache, while this program passes responses on as the name servers sent them, with every
//! option and signature that the guest requested. The sockets are few lines, and their limits apply to guests, which that
//! server does not know.

pub mod config;
mod error;
mod handle;
mod hosts;
mod message;
mod probe;
mod rate;
mod run;
mod server;
mod share;
mod upstream;

pub use error::DnsError;
pub use run::run;
