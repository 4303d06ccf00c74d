//! Confirmation prompts on a terminal.

use std::io::{self, IsTerminal as _};

use clap::Args;
use innkeeper_model::{Code, Failure};

use crate::context::Context;
use crate::failure::CommandError;

/// Option of commands that delete data. They prompt on a terminal only.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Prompt {
    /// Do not prompt (the default without a terminal)
    #[arg(long, short)]
    yes: bool,
}

impl Prompt {
    /// Reports whether [`Self::confirm`] prompts. If not, the caller can skip looking up what would be lost.
    pub(crate) fn is_needed(self) -> bool {
        !self.yes && can_prompt()
    }

    /// Prompts with `question` if needed. Returns an error with the note `declined` unless the user confirms.
    pub(crate) fn confirm(
        self,
        cx: &Context,
        question: &str,
        declined: String,
    ) -> Result<(), CommandError> {
        match self.is_needed() {
            true => prompt_user(cx, question, declined),
            false => Ok(()),
        }
    }
}

/// Texts for a confirmation that cannot be skipped.
#[derive(Debug)]
pub(crate) struct RequiredConfirmation {
    /// The action that needs confirmation, as the subject of a sentence.
    pub(crate) action: String,
    /// Remedy without a terminal, as a sentence.
    pub(crate) remedy: String,
    /// Note after a negative reply, as a sentence.
    pub(crate) declined: String,
}

/// Prompts for a confirmation that cannot be skipped. Fails without a terminal.
pub(crate) fn confirm(
    cx: &Context,
    question: &str,
    texts: RequiredConfirmation,
) -> Result<(), CommandError> {
    if cx.output.is_json() || !can_prompt() {
        let message = format!("{} needs confirmation on a terminal", texts.action);
        return Err(Failure::new(Code::InvalidRequest, message)
            .with_remedy(texts.remedy)
            .into());
    }
    prompt_user(cx, question, texts.declined)
}

/// Reports whether a user can read and answer a prompt.
///
/// Either output may be the terminal, since [`crate::output::Output::prompt`] picks the right one: `2>log` does not make a
/// command non-interactive.
fn can_prompt() -> bool {
    io::stdin().is_terminal() && (io::stderr().is_terminal() || io::stdout().is_terminal())
}

/// Prompts. End of input and unreadable input decline.
fn prompt_user(cx: &Context, question: &str, declined: String) -> Result<(), CommandError> {
    cx.output.prompt(&format!("{question} [y/N] "));
    let mut reply = String::new();
    io::stdin().read_line(&mut reply).ok();
    if matches!(reply.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CommandError::Interrupted { note: declined })
}
