//! The response for programs.

use innkeeper_model::GuestName;

use crate::status::Latest;

/// Returns a line with the preview's state.
pub(crate) fn render(slug: &GuestName, status: &Latest) -> String {
    let state = match status {
        Some(status) => status.state.as_str().replace('-', " "),
        None => "its state is not known".to_owned(),
    };
    format!("preview {slug} is not ready: {state}\n")
}
