//! Output of long-running programs on the terminal.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

use innkeeper_model::{Explain, Failure};

/// Prints to standard output. A reader that closes the pipe early, as in `… | head -1`, is not an error.
///
/// # Errors
/// When the output cannot be written, for example to a full disk.
pub fn print(text: impl Display) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints an error and its remedy to standard error, and returns the exit code of the error's kind.
pub fn report_failure(error: &impl Explain) -> ExitCode {
    let failure = Failure::from(error);
    print_error(format_args!("[ERROR] {failure} ({})", failure.code));
    if let Some(remedy) = &failure.remedy {
        print_error(format_args!("        Hint: {remedy}"));
    }
    ExitCode::from(failure.code.kind().exit_code())
}

/// Prints a line to standard error, best effort: a failure to do so has nowhere to be reported.
fn print_error(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}
