//! Access of other machines: their tokens, the sessions of people, and the rights of these.

mod file;
mod grant;
mod owners;
mod people;
mod publisher;
mod sessions;
mod tokens;
mod visitors;

pub(crate) use file::PublishedFile;
pub(crate) use grant::Grant;
pub(crate) use owners::Owner;
pub(crate) use people::People;
pub(crate) use publisher::Publisher;
pub(crate) use sessions::Admission;
pub(crate) use tokens::{Tokens, random_secret};
pub(crate) use visitors::PublishedVisitors;
