//! Previews: pull requests as running apps, each at its own URL.
//!
//! What a preview should be stands in the store; a worker for each makes it so. A delivery, a command, the
//! timer and a restart of the daemon all do the same: they change or leave the record, and wake the worker,
//! which looks what is left to do ([`aim`]). Work that is overtaken by a newer wish is dropped where it
//! stands; every step can be done again.
//!
//! ```text
//!  deliveries on disk ──┐
//!  commands ────────────┼──► record ──► worker: aim ──► bring up │ look after │ remove
//!  timer, restart ──────┘                  ▲                     │
//!                                          └── newer wish ───────┘ (drops it)
//! ```
//!
//! | module | what it is for |
//! | --- | --- |
//! | `previews` | what can be asked for: create, update, approve, destroy, lists |
//! | `desk` | one worker for each preview, and how it is woken |
//! | `worker` | the next delivery of a preview, and what becomes of it |
//! | `approval` | labels that approve a commit of a fork, and that are taken away |
//! | [`aim`] | what is left to do for a record: a pure function |
//! | `bring_up` | from a commit to an app that answers, or back to the last good version |
//! | `build` | a closure without a preview |
//! | `guest` | the preview's guest with the right closure |
//! | `furnish` | what the guest is told: environment, secrets, token |
//! | `app` | the services in the guest, and whether they answer |
//! | `removal` | from a preview to nothing |
//! | `report` | what GitHub is told |
//! | `reconcile` | pull requests that were closed unnoticed, previews that are too many |
//! | `expiry` | previews that nobody uses: stopped first, removed later |
//! | `absence` | repositories that GitHub does not show (any more) |
//! | `redeliver` | deliveries that did not arrive |
//! | `log` | what `preview logs` shows |
//! | `upkeep` | what `innkeeper doctor` and `gc` look at |
//! | `explain` | the chain from the URL to the delivery |

mod absence;
pub mod aim;
mod app;
mod approval;
mod bring_up;
mod build;
mod config;
mod desk;
mod error;
mod expiry;
mod explain;
mod furnish;
mod guest;
mod log;
mod previews;
mod probe;
mod reconcile;
mod redeliver;
mod removal;
mod report;
mod upkeep;
mod worker;

pub use config::PreviewsConfig;
pub use error::PreviewError;
pub use previews::{Parts, Previews};
pub use probe::Probe;
