//! The response for programs.

use innkeeper_model::GuestName;
use innkeeper_model::preview::PreviewState;
use innkeeper_model::preview::page::Interruption;

use crate::status::Latest;

/// Returns a line with the preview's state.
pub(crate) fn render(slug: &GuestName, status: &Latest) -> String {
    let state = match status {
        Some(status) if status.wake.is_some() => match status.wake.and_then(|wake| wake.retry_at) {
            None => "waking up".to_owned(),
            Some(_) => "it could not be woken".to_owned(),
        },
        Some(status) => match (status.interruption, status.state) {
            (Some(Interruption::Stopped), _) => "stopped".to_owned(),
            (Some(Interruption::Asleep), _) => "asleep".to_owned(),
            (Some(Interruption::Restarting), _) | (None, PreviewState::Live) => {
                "restarting".to_owned()
            }
            (None, state) => state.as_str().replace('-', " "),
        },
        None => "its state is not known".to_owned(),
    };
    format!("preview {slug} is not ready: {state}\n")
}
