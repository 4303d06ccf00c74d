//! Values that must not be shown.

use std::fmt;

/// A password, a token, or a text that contains one. It has no `Display`, no serialisation, and its `Debug`
/// says nothing, so that it cannot get into a log, a message or an answer by accident.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Holds a value.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value. Whoever calls this says where it goes.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Moves the value out, for callers that overwrite its memory when they drop it.
    #[must_use]
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_value() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }
}
