//! Access of other machines: their tokens, the sessions of people, and the rights of these.

mod grant;
mod people;
mod publisher;
mod sessions;
mod tokens;

pub(crate) use grant::Grant;
pub(crate) use people::People;
pub(crate) use publisher::Publisher;
pub(crate) use sessions::Admission;
pub(crate) use tokens::Tokens;
