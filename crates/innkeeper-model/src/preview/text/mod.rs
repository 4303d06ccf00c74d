//! Texts in pull requests: the links in the author's text, and the comment.

mod comment;
mod links;

pub use comment::{COMMENT_MARKER, comment};
pub use links::{LINK_MARKER, has_links, with_links, without_links};
