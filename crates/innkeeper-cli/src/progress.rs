//! What a caller sees while an operation is under way: a spinner on a terminal, lines elsewhere, nothing
//! with `--quiet` or `--json`.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use innkeeper_model::EventKind;

use crate::describe::{self, sentence};
use crate::escape::for_terminal;
use crate::failure::CommandError;
use crate::output::Output;

/// Shows the events of one operation.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    output: &'a Output,
    label: String,
    look: Look,
}

#[derive(Debug)]
enum Look {
    Silent,
    Lines {
        /// When the last line about a build was printed.
        last_build: Option<Instant>,
    },
    Spinner(ProgressBar),
}

/// Nix can start thousands of activities a second; a log needs no more than this.
const BETWEEN_BUILD_LINES: Duration = Duration::from_secs(1);

impl<'a> Progress<'a> {
    /// Begins with what the operation is for, such as `Creating agent web`.
    pub(crate) fn start(output: &'a Output, label: &str) -> Result<Self, CommandError> {
        let look = if output.is_silent() {
            Look::Silent
        } else if io::stdout().is_terminal() && io::stderr().is_terminal() {
            let spinner = ProgressBar::new_spinner().with_message(label.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
            Look::Spinner(spinner)
        } else {
            output.info(format_args!("{label}."))?;
            Look::Lines { last_build: None }
        };
        let label = label.to_owned();
        Ok(Self {
            output,
            label,
            look,
        })
    }

    /// Shows an event that is not the operation's last.
    pub(crate) fn show(&mut self, kind: &EventKind) -> Result<(), CommandError> {
        match &mut self.look {
            Look::Silent => {}
            Look::Lines { last_build } => match kind {
                // The line of the step's end says it all.
                EventKind::Accepted { .. } | EventKind::StepStarted { .. } => {}
                EventKind::Progress { .. } => {
                    let due = last_build.is_none_or(|last| last.elapsed() >= BETWEEN_BUILD_LINES);
                    if due {
                        *last_build = Some(Instant::now());
                        self.output.info(sentence(&describe::event(kind)))?;
                    }
                }
                _ => self.output.info(sentence(&describe::event(kind)))?,
            },
            Look::Spinner(spinner) => match kind {
                EventKind::Note { .. } | EventKind::Built { .. } | EventKind::StepFailed { .. } => {
                    let text = sentence(&describe::event(kind));
                    spinner.suspend(|| self.output.info(text))?;
                }
                _ => {
                    let text = format!("{}: {}", self.label, describe::event(kind));
                    spinner.set_message(for_terminal(&text));
                }
            },
        }
        Ok(())
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Look::Spinner(spinner) = &self.look {
            spinner.finish_and_clear();
        }
    }
}
