//! Errors of deliveries, and the check of their texts.

use innkeeper_model::{Code, Explain};

/// Maximum length of untrusted texts that are stored: logins, labels, ids.
const MAX_TEXT: usize = 256;

/// An invalid delivery of an event that is read.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is not JSON, or a required field is missing or invalid.
    #[error("the {event} payload is invalid")]
    Payload {
        /// The event's name.
        event: String,
        /// The problem.
        #[source]
        source: serde_json::Error,
    },
    /// A header or field is empty, too long, or has control characters.
    #[error("the delivery's {0} is empty, too long, or has control characters")]
    Text(&'static str),
}

impl Explain for EventError {
    fn code(&self) -> Code {
        Code::InvalidRequest
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Payload { .. } => Some(
                "Check that the webhook's content type (repository settings, Webhooks) is that of the body; \
                 a proxy must pass `Content-Type` and the body unchanged."
                    .to_owned(),
            ),
            Self::Text(_) => None,
        }
    }
}

/// Validates the length and characters of an untrusted text.
pub(crate) fn short(what: &'static str, text: String) -> Result<String, EventError> {
    let printable = !text.is_empty() && !text.chars().any(char::is_control);
    if !printable || text.chars().count() > MAX_TEXT {
        return Err(EventError::Text(what));
    }
    Ok(text)
}
