//! Questions that only a person on a terminal can answer.

use std::io::{self, IsTerminal as _};

use innkeeper_model::{Code, Failure};

use crate::commands::Context;
use crate::failure::CommandError;

/// What is said when there is no yes.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// What needs the answer, as the subject of a sentence.
    pub(crate) needs: String,
    /// What to do where nobody can be asked, as a sentence.
    pub(crate) remedy: String,
    /// What the answer no means, as a sentence.
    pub(crate) declined: String,
}

/// Returns when a person on a terminal has said yes. Everything else is no.
pub(crate) fn confirm(cx: &Context, question: &str, without: NoAnswer) -> Result<(), CommandError> {
    let can_be_asked = io::stdin().is_terminal() && io::stderr().is_terminal();
    if cx.output.is_json() || !can_be_asked {
        let message = format!(
            "{} needs an answer from a person on a terminal",
            without.needs
        );
        return Err(Failure::new(Code::InvalidRequest, message)
            .with_remedy(without.remedy)
            .into());
    }
    cx.output.ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    // What cannot be read is no yes.
    io::stdin().read_line(&mut answer).ok();
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CommandError::Interrupted {
        note: without.declined,
    })
}
