//! Progress of an operation: a spinner on a terminal, lines elsewhere, nothing with `--quiet` or `--json`.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use innkeeper_model::EventKind;

use crate::describe::{self, sentence};
use crate::escape::for_terminal;
use crate::failure::CommandError;
use crate::output::Output;

/// Display of the events of one operation.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    output: &'a Output,
    label: String,
    style: Style,
}

#[derive(Debug)]
enum Style {
    Silent,
    Lines {
        /// Time of the last line about a build.
        last_build: Option<Instant>,
    },
    Spinner(ProgressBar),
}

/// Minimum time between two lines about a build: Nix can start thousands of activities per second.
const BUILD_LINE_INTERVAL: Duration = Duration::from_secs(1);

impl<'a> Progress<'a> {
    /// Starts a display with a label such as `Creating agent web`.
    pub(crate) fn start(output: &'a Output, label: &str) -> Result<Self, CommandError> {
        let style = if output.is_silent() {
            Style::Silent
        } else if io::stdout().is_terminal() && io::stderr().is_terminal() {
            let spinner = ProgressBar::new_spinner().with_message(label.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
            Style::Spinner(spinner)
        } else {
            output.info(format_args!("{label}."))?;
            Style::Lines { last_build: None }
        };
        let label = label.to_owned();
        Ok(Self {
            output,
            label,
            style,
        })
    }

    /// Shows an event other than the operation's last.
    pub(crate) fn show(&mut self, kind: &EventKind) -> Result<(), CommandError> {
        match &mut self.style {
            Style::Silent => {}
            Style::Lines { last_build } => match kind {
                // The line for the end of the step is enough.
                EventKind::Accepted { .. }
                | EventKind::StepStarted { .. }
                | EventKind::Attempt { .. } => {}
                EventKind::Progress { .. } => {
                    let due = last_build.is_none_or(|last| last.elapsed() >= BUILD_LINE_INTERVAL);
                    if due {
                        *last_build = Some(Instant::now());
                        self.output.info(sentence(&describe::event(kind)))?;
                    }
                }
                _ => self.output.info(sentence(&describe::event(kind)))?,
            },
            Style::Spinner(spinner) => match kind {
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
        if let Style::Spinner(spinner) = &self.style {
            spinner.finish_and_clear();
        }
    }
}
