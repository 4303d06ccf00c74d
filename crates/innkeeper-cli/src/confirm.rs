//! Questions that only a person on a terminal can answer.

use std::io::{self, IsTerminal as _};

use clap::Args;
use innkeeper_model::{Code, Failure};

use crate::commands::Context;
use crate::failure::CommandError;

/// The option of commands that lose data: on a terminal they prompt, and nowhere else.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Prompt {
    /// Do not prompt; without a terminal there is no prompt either
    #[arg(long, short)]
    yes: bool,
}

impl Prompt {
    /// Whether [`Self::confirm`] prompts. Otherwise the caller need not find out what would be lost.
    pub(crate) fn is_needed(self) -> bool {
        !self.yes && can_answer()
    }

    /// Shows what would be lost and returns when a person has agreed, or when nobody is to be asked. `declined` is
    /// the note for any other answer.
    pub(crate) fn confirm(
        self,
        cx: &Context,
        question: &str,
        declined: String,
    ) -> Result<(), CommandError> {
        match self.is_needed() {
            true => agreed(cx, question, declined),
            false => Ok(()),
        }
    }
}

/// The texts of a question that must be answered.
#[derive(Debug)]
pub(crate) struct NoAnswer {
    /// What needs the answer, as the subject of a sentence.
    pub(crate) needs: String,
    /// What to do without a terminal, as a sentence.
    pub(crate) remedy: String,
    /// What the answer no means, as a sentence.
    pub(crate) declined: String,
}

/// Returns when a person on a terminal has agreed; fails otherwise, also without a terminal.
pub(crate) fn confirm(cx: &Context, question: &str, without: NoAnswer) -> Result<(), CommandError> {
    if cx.output.is_json() || !can_answer() {
        let message = format!(
            "{} needs an answer from a person on a terminal",
            without.needs
        );
        return Err(Failure::new(Code::InvalidRequest, message)
            .with_remedy(without.remedy)
            .into());
    }
    agreed(cx, question, without.declined)
}

/// Whether a person can read a question and answer it. [`crate::output::Output::ask`] writes to whichever of the two
/// outputs is a terminal: `2>log` does not make a command one of a script.
fn can_answer() -> bool {
    io::stdin().is_terminal() && (io::stderr().is_terminal() || io::stdout().is_terminal())
}

/// Prompts. End of input and unreadable input count as no.
fn agreed(cx: &Context, question: &str, declined: String) -> Result<(), CommandError> {
    cx.output.ask(&format!("{question} [y/N] "));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok();
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CommandError::Interrupted { note: declined })
}
