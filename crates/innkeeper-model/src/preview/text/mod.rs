//! What is written into pull requests: the links in the author's own text, or a comment of our own.

mod comment;
mod links;

pub use comment::{COMMENT_MARKER, comment};
pub use links::{LINK_MARKER, has_links, with_links, without_links};
