//! GitHub, from both sides: the webhook deliveries that it sends, and the API that it answers.
//!
//! | module | holds |
//! | --- | --- |
//! | [`signature`] | the webhook's secrets, and whether a delivery was signed with one of them |
//! | [`event`] | a delivery as the few facts that matter to a preview |
//! | [`client`] | the API, with a token or as an App, within GitHub's limits |
//! | [`report`] | what is said on a pull request, compared with what is there |
//! | `fake` | an in-memory GitHub for tests and the demo, behind the feature `fake` |
//!
//! A delivery is verified before anything in it is read: [`signature::SecretSet::verify`] takes the raw bytes,
//! and [`event::parse`] comes after it. Tokens and secrets are kept in [`innkeeper_model::Secret`]; none is part of an error.

pub mod client;
pub mod event;
#[cfg(feature = "fake")]
pub mod fake;
pub mod report;
mod settings_file;
pub mod signature;
mod wire;

pub use settings_file::{EnvironmentFiles, SecretFileError};
