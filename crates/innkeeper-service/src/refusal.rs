//! How a program says that it does not start.

use std::process::ExitCode;

use innkeeper_model::{Explain, Failure};

use crate::print::complain;

/// Says why, and what to do, on standard error; returns the exit code of the failure's kind.
pub fn refuse(error: &impl Explain) -> ExitCode {
    let failure = Failure::from(error);
    complain(format_args!("[ERROR] {failure} ({})", failure.code));
    if let Some(remedy) = &failure.remedy {
        complain(format_args!("        Hint: {remedy}"));
    }
    ExitCode::from(failure.code.kind().exit_code())
}
