//! Output of long-running programs for people who run them by hand.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Prints to standard output. A reader that has seen enough, as in `… | head -1`, is no error.
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

/// Prints a line to standard error, as far as that is possible: nobody is left to report a failure to.
pub(crate) fn complain(line: impl Display) {
    drop(writeln!(io::stderr(), "{line}"));
}
