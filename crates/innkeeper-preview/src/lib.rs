//! Previews: pull requests as running apps, each at its own URL.
//!
//! The store records the desired state of a preview, and one worker for each preview reconciles the host with it. A
//! delivery, a command, the timer and a restart of the daemon have the same effect: they change or keep the record and
//! wake the worker, which plans from the record. Work that a newer wish supersedes is canceled where it stands; every
//! step can be carried out again.
//!
//! ```text
//!  deliveries on disk ──┐
//!  commands ────────────┼──► record ──► worker: plan ──► steps ──► host, GitHub
//!  timer, restart ──────┘                  ▲               │
//!                                          └─ newer wish ──┘ (cancels)
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | `plan` | derives the plan from a record, and decides the worker's next action: pure functions |
//! | `steps` | lists the steps of a plan, and those after a failure: pure functions |
//! | `worker`, `workers` | the worker of one preview; the set of all, and their wakeups |
//! | `execute` | carries out the steps |
//! | `stages` | publishes a preview's state: record, log, page, GitHub |
//! | `evaluation` | from a commit's configuration to a closure |
//! | `guests` | the preview's guest with the right closure |
//! | `guest_files` | environment, secrets and token in the guest |
//! | `services` | the services in the guest, and probes of the app's ports |
//! | `databases` | databases on the host's PostgreSQL |
//! | `routing` | routes to the app, or to a page with the preview's state |
//! | `pages` | the status that visitors see while the app does not answer |
//! | `masks`, `secret_files` | masks of secrets in lines that are shown; the files with secrets of repositories |
//! | `secrets` | `innkeeper secret`: changes of these files, and the previews that need a restart |
//! | `reporter`, `commit_checks` | reports on GitHub; checks of commits, each of which ends |
//! | `journal` | the preview's log, and the crash probe |
//! | `deliveries` | dispatches deliveries to workers, and records what each one wants |
//! | `admission`, `requests` | which pull requests get a preview; labels and drafts |
//! | `comment_commands` | commands in comments: permission and execution |
//! | `approvals` | labels that approve a commit of a fork |
//! | `capacity` | the limit of previews, and the record of their use |
//! | `resync` | periodic resync: lost closes and pushes, checks of every preview |
//! | `expiry` | unused previews: stopped first, removed later |
//! | `redelivery` | redelivery of lost deliveries |
//! | `repositories` | renamed and absent repositories |
//! | `commands` | create, update, approve, destroy, and other commands of users on the host |
//! | `previews`, `wiring` | start, stop and queries; construction of the components |
//! | `service_log` | the journal of the services in a guest |
//! | `logs`, `explain`, `upkeep`, `webhooks`, `command_access`, `report_access` | `preview logs`, `preview explain`, parts of `innkeeper doctor` and `gc` |
//! | `sources`, `additional` | the files of a configuration; previews of several configurations |
//! | `visibility`, `visibility_commands` | the visitors of previews: settings, routes, the list for the gateway |
//! | `grants` | share links and tokens of previews |
//! | `records`, `retry`, `background` | queries on records, delays of retries, background tasks |

mod additional;
mod admission;
mod approvals;
mod background;
mod branches;
mod capacity;
mod command_access;
mod commands;
mod comment_commands;
mod commit_checks;
mod config;
mod databases;
mod deliveries;
mod disk_usage;
mod error;
mod evaluation;
mod execute;
mod expiry;
mod explain;
#[cfg(test)]
mod fixture;
mod grants;
mod guest_files;
mod guests;
mod health;
mod journal;
mod level_changes;
mod levels;
mod logs;
mod masks;
mod names;
mod pages;
mod permissions;
mod plan;
mod prefetch;
mod previews;
mod probe_socket;
mod probes;
mod records;
mod redelivery;
mod removal;
mod report_access;
mod reporter;
mod repositories;
mod requests;
mod rest;
mod resync;
mod retry;
mod rights;
mod routing;
mod secret_files;
mod secrets;
mod service_log;
mod service_states;
mod services;
mod settle;
mod sources;
mod stages;
mod steps;
mod upkeep;
mod visibility;
mod visibility_commands;
mod visitor_wakes;
mod visitors;
mod watch;
mod webhooks;
mod wiring;
mod worker;
mod workers;

pub use admission::{Admission, Drafts};
pub use config::{ConfigPaths, PageContents, PreviewsConfig, Visibilities};
pub use error::PreviewError;
pub use journal::Probe;
pub use prefetch::BaseConfig;
pub use previews::Previews;
pub use wiring::Parts;
