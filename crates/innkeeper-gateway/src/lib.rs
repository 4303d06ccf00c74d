//! The unprivileged program through which other machines use the API.
//!
//! Strangers reach it through Caddy, so it has no rights: it reads digests of tokens, and connects to one socket of
//! innkeeperd, which authorizes every request itself. It passes no request on that it has not authenticated.
//!
//! ```text
//! laptop ── Caddy ──► receive ──► credentials: published, pairs     401, 429
//!                        │
//!                        ▼
//!                     forward ──► innkeeperd's gateway.sock          503 while it is away
//!                        ├─ upload: the request's body, as it arrives
//!                        ├─ download: the response's body, as it arrives
//!                        └─ tunnel: a connection that switched to another protocol
//! ```
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | the settings |
//! | `receive` | from a request to its response |
//! | `access`, with a diagram of its own | visitors of previews that are not public: a decision for each request of Caddy |
//! | `credentials` | from a request's token to its actor |
//! | `published` | the digests of tokens that innkeeperd writes |
//! | `watched` | files of innkeeperd, read again when they change |
//! | [`pairs`] | tokens of a file that another program manages, read again on SIGHUP |
//! | `login`, with a diagram of its own | logins of people in a browser and of their machines, and the pages |
//! | [`session`] | the cookie of a person's session |
//! | `browser` | the check that a page of this host made a request with that cookie |
//! | `failures` | the rate limit of failures, by address |
//! | `forward`, `upload`, `download`, `tunnel` | requests that innkeeperd responds to |
//! | `patient` | a connection whose response is read even when innkeeperd does not take the whole request |
//! | `headers` | the headers that pass in either direction |
//! | `refuse` | responses of the gateway itself |
//! | `ready` | the state of the host, for `/readyz` |
//! | `metrics` | counters, on an address of their own |

pub mod access;
mod browser;
pub mod config;
mod credentials;
mod download;
mod error;
mod failures;
mod forward;
mod headers;
mod login;
mod metrics;
pub mod pairs;
mod patient;
mod published;
mod ready;
mod receive;
mod refuse;
mod run;
pub mod session;
mod tunnel;
mod upload;
mod watched;

pub use error::GatewayError;
pub use run::run;
