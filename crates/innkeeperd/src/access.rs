//! Access of other machines: their tokens, and the rights of these.

mod grant;
mod publisher;
mod tokens;

pub(crate) use grant::Grant;
pub(crate) use publisher::Publisher;
pub(crate) use tokens::Tokens;
