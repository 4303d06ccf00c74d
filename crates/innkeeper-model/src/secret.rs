//! Values that must not be shown.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// A password, a token, or a text that contains one.
///
/// Its memory is overwritten when it is dropped. `Debug` prints none of it, and it implements neither `Display` nor
/// `Serialize`, so that it cannot get into a log, an error or a response by accident.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "String")]
pub struct Secret(SecretString);

impl Secret {
    /// Moves a text into a secret. The memory of the text is overwritten too.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        // From a `str`: shrinking a `String` to its length could leave a copy behind.
        Self(SecretString::from(text.as_str()))
    }

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_not_in_debug_output() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }
}
