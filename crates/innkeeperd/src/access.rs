//! Access of other machines: their tokens.

mod publisher;
mod tokens;

pub(crate) use publisher::Publisher;
pub(crate) use tokens::Tokens;
