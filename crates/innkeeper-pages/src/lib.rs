//! The unprivileged program that shows visitors the state of a preview whose app does not answer.
//!
//! Anybody can reach it through Caddy, so it has no rights: it reads the status files of one directory, whose contents are
//! public, and can only request wakes of previews from innkeeperd. Pages therefore stay available while innkeeperd is down.
//!
//! ```text
//! visitor ── Caddy ──► server ──► respond ──► status files ◄── innkeeperd
//!                                   │
//!                                   ├─ page: HTML for browsers
//!                                   ├─ text: for programs
//!                                   ├─ hold: until the app accepts connections
//!                                   ├─ wake: the same, for a preview that is asleep ──► innkeeperd
//!                                   ├─ events: live changes of the page (server-sent events)
//!                                   └─ assets: style sheet, script, icon
//! ```
//!
//! Caddy names the preview in the header `X-Innkeeper-Preview`, for requests of any path of the preview's hosts. Paths
//! below `/.innkeeper/` are the program's own while the preview is not live.
//!
//! | module | subject |
//! | --- | --- |
//! | [`config`] | the settings |
//! | `status` | status files, and their changes |
//! | `respond` | from a request to its response |
//! | `page`, `text` | the response for browsers, and for programs |
//! | `words` | states and durations in words |
//! | `hold` | requests that wait while an app restarts |
//! | `wake` | requests that wake a sleeping preview |
//! | `bots` | crawlers and scanners, which wake nothing |
//! | `events` | live changes of a page |
//! | `visitors` | limits of live logs |
//! | `assets` | files that pages refer to |

mod assets;
mod bots;
pub mod config;
mod error;
mod events;
mod hold;
mod page;
mod respond;
mod run;
mod status;
mod text;
mod visitors;
mod wake;
mod words;

pub use error::PagesError;
pub use run::run;
