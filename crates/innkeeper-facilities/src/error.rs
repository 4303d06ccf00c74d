//! The error of all facilities.

use std::error::Error;
use std::fmt;

use innkeeper_model::{Code, Explain};

/// A driver's error. It displays, explains and names its causes as the error that it wraps.
///
/// Callers act on its [code](Explain::code); only a driver's own tests look at the wrapped type.
pub struct FacilityError {
    error: Box<dyn Explain + Send + Sync>,
    inconclusive: bool,
}

impl FacilityError {
    /// Wraps a driver's error.
    pub fn new(error: impl Explain + Send + Sync + 'static) -> Self {
        Self {
            error: Box::new(error),
            inconclusive: false,
        }
    }

    /// The same error, whose cause may be the host or the caller's input.
    #[must_use]
    pub fn inconclusive(self) -> Self {
        Self {
            inconclusive: true,
            ..self
        }
    }

    /// Reports whether the cause may be the host or the caller's input. A retry then comes before the input is blamed.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        self.inconclusive
    }

    /// Unwraps the driver's error.
    ///
    /// # Errors
    /// The error itself when it is not a `T`.
    pub fn downcast<T: Error + 'static>(self) -> Result<T, Box<dyn Error + Send + Sync>> {
        let error: Box<dyn Error + Send + Sync> = self.error;
        error.downcast().map(|error| *error)
    }
}

impl fmt::Debug for FacilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Display for FacilityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for FacilityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Explain for FacilityError {
    fn code(&self) -> Code {
        self.error.code()
    }

    fn remedy(&self) -> Option<String> {
        self.error.remedy()
    }

    fn log(&self) -> &[String] {
        self.error.log()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use innkeeper_model::Failure;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot paint the door")]
    struct PaintError {
        source: io::Error,
        log: Vec<String>,
    }

    impl Explain for PaintError {
        fn code(&self) -> Code {
            Code::DiskFull
        }

        fn remedy(&self) -> Option<String> {
            Some("Buy paint.".to_owned())
        }

        fn log(&self) -> &[String] {
            &self.log
        }
    }

    #[test]
    fn facility_error_explains_as_the_wrapped_error() {
        let wrapped = || PaintError {
            source: io::Error::other("no paint"),
            log: vec!["last line".to_owned()],
        };
        let error = FacilityError::new(wrapped());
        assert_eq!(Failure::from(&error), Failure::from(&wrapped()));
        assert_eq!(format!("{error:?}"), format!("{:?}", wrapped()));
        assert!(error.downcast::<PaintError>().is_ok());
        let other = FacilityError::new(wrapped()).downcast::<io::Error>();
        assert_eq!(
            other.expect_err("not one").to_string(),
            wrapped().to_string()
        );
        let error = FacilityError::new(wrapped());
        assert!(!error.is_inconclusive() && error.inconclusive().is_inconclusive());
    }
}
