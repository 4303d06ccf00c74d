//! GitHub: its webhook deliveries, and a client of its API.
//!
//! | module | holds |
//! | --- | --- |
//! | [`signature`] | the webhook's secrets, and verification of deliveries |
//! | [`form`] | deliveries that are sent as forms |
//! | [`event`] | deliveries, reduced to the fields that previews need |
//! | `comment` | comments with commands |
//! | `event_error` | errors of deliveries |
//! | [`ping`] | the webhook's settings, which GitHub sends in pings |
//! | [`client`] | the API, with a token or as an App, within GitHub's rate limits |
//! | [`report`] | reports on pull requests: the desired state compared with the published one |
//! | `fake` | an in-memory GitHub for tests and the demo, behind the feature `fake` |
//!
//! A delivery is verified before it is parsed: first [`signature::SecretSet::verify`] with the raw bytes, then
//! [`form::payload`] and [`event::parse`]. Tokens and secrets have the type [`innkeeper_model::Secret`] and are never part
//! of an error.

pub mod client;
mod comment;
pub mod event;
mod event_error;
#[cfg(feature = "fake")]
pub mod fake;
pub mod form;
pub mod ping;
pub mod report;
mod settings_edit;
mod settings_file;
pub mod signature;
mod wire;

pub use settings_edit::set_variable;
pub use settings_file::{EnvironmentFiles, SecretFileError};
