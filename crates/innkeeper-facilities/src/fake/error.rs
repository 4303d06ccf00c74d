//! The error of all fakes.

use innkeeper_model::{Code, Explain};

use crate::error::FacilityError;

/// An injected failure.
#[derive(Debug, thiserror::Error)]
#[error("{call} fails: injected")]
struct Injected {
    call: String,
    code: Code,
}

impl Explain for Injected {
    fn code(&self) -> Code {
        self.code
    }
}

pub(super) fn injected(call: &str, code: Code) -> FacilityError {
    FacilityError::new(Injected {
        call: call.to_owned(),
        code,
    })
}
