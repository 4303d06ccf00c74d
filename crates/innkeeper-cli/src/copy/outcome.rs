//! The result of a copy, from the ends of both sides.

use innkeeper_copy::{CopyError, Reason, Totals};
use innkeeper_model::{Code, Failure};

use super::session::Ended;
use crate::failure::CommandError;
use crate::tunnel::Guest;

/// The prefix of each message of the guest's side.
const PREFIX: &str = "innkeeper-shim: ";

/// Returns the result of a copy. If both sides failed, the one whose failure caused the other's is reported.
pub(super) fn outcome(
    guest: &Guest,
    ended: Ended,
    local: Result<Totals, CopyError>,
    verb: &str,
) -> Result<Outcome, CommandError> {
    match (ended, local) {
        (ended, Ok(totals)) => match ended {
            Ended::Left => Ok(Outcome::new(totals, "")),
            Ended::Exited {
                status: 0,
                messages,
            } => Ok(Outcome::new(totals, &messages)),
            Ended::Exited { status, messages } => {
                Err(guest_failure(guest, status, &messages, verb).into())
            }
            Ended::Failed(error) => Err(error),
        },
        // These follow from the end of the other side.
        (Ended::Failed(error), Err(CopyError::Interrupted | CopyError::Gone(_))) => Err(error),
        (Ended::Exited { status, messages }, Err(CopyError::Interrupted | CopyError::Gone(_)))
            if status != 0 =>
        {
            Err(guest_failure(guest, status, &messages, verb).into())
        }
        (_, Err(error)) => Err(local_failure(&error).into()),
    }
}

/// The result of a successful copy.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) totals: Totals,
    /// Messages of the guest's side, such as of files that it has skipped.
    pub(super) notes: Vec<String>,
}

impl Outcome {
    fn new(totals: Totals, messages: &str) -> Self {
        let notes = messages.lines().map(without_prefix).map(str::to_owned);
        Self {
            totals,
            notes: notes.collect(),
        }
    }
}

/// Returns the error after an interrupt.
pub(super) fn interrupted(guest: &Guest) -> CommandError {
    CommandError::Interrupted {
        note: format!(
            "The copy was interrupted. Files of {} '{}' or of this machine that it had completed before are in the target; \
             no file is incomplete.",
            guest.program(),
            guest.name()
        ),
    }
}

/// Returns the failure for an error of this machine's side.
pub(super) fn local_failure(error: &CopyError) -> Failure {
    let (code, remedy) = match error.reason() {
        Reason::Missing => (
            Code::InvalidRequest,
            "Check the path on this machine. `mkdir -p` creates a missing directory.",
        ),
        Reason::Denied => (
            Code::InvalidRequest,
            "Check the permissions of the path on this machine (`ls -ld`).",
        ),
        Reason::Full => (
            Code::DiskFull,
            "Free space on this machine (`df -h`), then copy again.",
        ),
        Reason::Refused => (
            Code::InvalidRequest,
            "Copy to another path, or move the file away.",
        ),
        Reason::Interrupted | Reason::Other => {
            return Failure::new(Code::InvalidRequest, error.to_string());
        }
    };
    Failure::new(code, error.to_string()).with_remedy(remedy)
}

/// Returns the failure for the exit status of the guest's side.
fn guest_failure(guest: &Guest, status: i32, messages: &str, verb: &str) -> Failure {
    let (program, name) = (guest.program(), guest.name());
    let last = messages.lines().next_back().map_or("", without_prefix);
    let Some(reason) = Reason::of_status(status) else {
        return no_helper(guest, status, last, verb);
    };
    let message = format!("in {program} '{name}': {last}");
    let failure = |code, remedy: String| Failure::new(code, &message).with_remedy(remedy);
    let invalid = Code::InvalidRequest;
    match reason {
        Reason::Missing if verb == "copy-in" => failure(
            invalid,
            format!("Create the directory first: `{program} exec {name} -- mkdir -p DIRECTORY`."),
        ),
        Reason::Missing => failure(
            invalid,
            format!("`{program} exec {name} -- ls -a DIRECTORY` shows the files of a directory."),
        ),
        Reason::Denied => failure(
            invalid,
            "Copy as a user that may access the path, with `--user`.".to_owned(),
        ),
        Reason::Full => failure(
            Code::DiskFull,
            format!("Free space in the guest (`{program} exec {name} -- df -h`), then copy again."),
        ),
        Reason::Refused => failure(
            invalid,
            "Copy to another path, or move the file away.".to_owned(),
        ),
        Reason::Interrupted | Reason::Other => Failure::new(invalid, &message),
    }
}

/// Returns the failure for a guest's side that did not run as expected.
fn no_helper(guest: &Guest, status: i32, message: &str, verb: &str) -> Failure {
    let (program, name) = (guest.program(), guest.name());
    let is_older = message.contains(&format!("unknown verb '{verb}'"));
    match status {
        125 if is_older => Failure::new(
            Code::InvalidRequest,
            format!("{program} '{name}' was started by an earlier version, whose guests cannot copy files"),
        )
        .with_remedy(format!(
            "Start it again: `{program} stop {name}`, then `{program} start {name}`."
        )),
        _ => Failure::new(
            Code::Internal,
            format!("the copy in {program} '{name}' ended with status {status}: {message}"),
        ),
    }
}

fn without_prefix(line: &str) -> &str {
    line.strip_prefix(PREFIX).unwrap_or(line)
}
