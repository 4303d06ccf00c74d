//! How a program says that it does not start.

use std::process::ExitCode;

use innkeeper_model::{Explain, Failure};

/// Says why, and what to do, on standard error; returns the exit code of the failure's kind.
#[expect(
    clippy::print_stderr,
    reason = "the log may not be there yet, and a person waits for the reason"
)]
pub fn refuse(error: &impl Explain) -> ExitCode {
    let failure = Failure::from(error);
    eprintln!("[ERROR] {failure} ({})", failure.code);
    if let Some(remedy) = &failure.remedy {
        eprintln!("        Hint: {remedy}");
    }
    ExitCode::from(failure.code.kind().exit_code())
}
