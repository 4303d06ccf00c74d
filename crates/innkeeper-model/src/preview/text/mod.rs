//! Texts in pull requests: the links in the author's text, and the comment.

mod comment;
mod decisive;
mod links;
mod untrusted;

pub use comment::{COMMENT_MARKER, CommentStyle, comment, comment_marker};
pub use decisive::decisive;
pub use links::{LINK_MARKER, has_links, with_links, without_links};
pub use untrusted::without_host_paths;
