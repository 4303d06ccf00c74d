//! All output of the programs.
//!
//! By default: `[INFO]`, `[OK]` and `[WARN]` lines and tables on standard output; `[ERROR]` with its hint and its log on
//! standard error. With `--json`: JSON on standard output, and one failure or note as JSON on standard error. Colors
//! appear on terminals only, and never with `NO_COLOR` (by anstream).

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use clap::builder::styling::{AnsiColor, Style};
use innkeeper_model::Failure;
use serde::Serialize;

use crate::describe::plain;
use crate::escape::{Escaper, for_terminal};
use crate::failure::CommandError;

/// The output of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

const CYAN: Style = AnsiColor::Cyan.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// Moves the cursor to the upper left corner and clears the rest (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Indentation as wide as `[ERROR] `.
const INDENT: &str = "        ";

/// Maximum number of log lines below an error.
const LOG_LINES: usize = 25;

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Reports whether `--json` is set.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Reports whether `--quiet` is set.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Reports whether progress is suppressed.
    pub(crate) fn is_silent(&self) -> bool {
        self.json || self.quiet
    }

    /// Prints `[INFO] …`, unless progress is suppressed.
    pub(crate) fn info(&self, text: impl Display) -> Result<(), CommandError> {
        self.labeled(CYAN, "[INFO]", text)
    }

    /// Prints `[OK] …`, unless progress is suppressed.
    pub(crate) fn ok(&self, text: impl Display) -> Result<(), CommandError> {
        self.labeled(GREEN, "[OK]", text)
    }

    fn labeled(&self, style: Style, label: &str, text: impl Display) -> Result<(), CommandError> {
        if self.is_silent() {
            return Ok(());
        }
        let text = on_stdout(text);
        self.styled(format_args!("{style}{label}{style:#} {text}\n"))
    }

    /// Prints a finding: its label, its text, its hint.
    pub(crate) fn finding(
        &self,
        finding: Finding,
        text: impl Display,
        hint: Option<&str>,
    ) -> Result<(), CommandError> {
        let (style, label) = match finding {
            Finding::Ok => (GREEN, "[OK]"),
            Finding::Warning => (YELLOW, "[WARN]"),
            Finding::Broken => (RED, "[BROKEN]"),
        };
        let text = on_stdout(text);
        self.styled(format_args!("{style}{label}{style:#} {text}\n"))?;
        hint.map_or(Ok(()), |hint| {
            self.text(format_args!("{INDENT}Hint: {}\n", indented(hint)))
        })
    }

    /// Prints text.
    pub(crate) fn text(&self, text: impl Display) -> Result<(), CommandError> {
        self.raw(on_stdout(text).as_bytes())
    }

    /// Prints text with colors. The caller has escaped everything else in it.
    fn styled(&self, text: impl Display) -> Result<(), CommandError> {
        let mut stdout = anstream::stdout().lock();
        write!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(CommandError::Output)
    }

    /// Creates an escaper for standard output.
    pub(crate) fn escaper(&self) -> Escaper {
        Escaper::new(io::stdout().is_terminal())
    }

    /// Prints bytes of a log, or the rest in the escaper at the end of the log (`None`).
    pub(crate) fn log_bytes(
        &self,
        escaper: &mut Escaper,
        bytes: Option<&[u8]>,
    ) -> Result<(), CommandError> {
        self.raw(&match bytes {
            Some(bytes) => escaper.push(bytes),
            None => escaper.finish(),
        })
    }

    /// Replaces the terminal's contents by a text.
    pub(crate) fn screen(&self, text: impl Display) -> Result<(), CommandError> {
        self.raw(format!("{CLEAR}{}", on_stdout(text)).as_bytes())
    }

    fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(CommandError::Output)
    }

    /// Prints a value as JSON on one line.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let line = serde_json::to_string(value)
            .map_err(|error| CommandError::Output(io::Error::from(error)))?;
        self.text(format_args!("{line}\n"))
    }

    /// Prints the result of a command: as JSON with `--json`, otherwise as `render` formats it.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        render: impl FnOnce(&T) -> String,
    ) -> Result<(), CommandError> {
        if self.json {
            self.value(value)
        } else {
            self.text(render(value))
        }
    }

    /// Prints a failure on standard error. Write errors are ignored.
    pub(crate) fn failure(&self, failure: &Failure) {
        let mut stderr = anstream::stderr().lock();
        if self.json {
            let json = serde_json::to_string(failure).unwrap_or_else(|_| failure.message.clone());
            writeln!(stderr, "{}", on_stderr(json)).ok();
        } else {
            write!(
                stderr,
                "{}",
                failure_text(failure, io::stderr().is_terminal())
            )
            .ok();
        }
    }

    /// Prints a question without a line break. It goes to standard error, since standard output is for results, unless only
    /// standard output is a terminal.
    pub(crate) fn prompt(&self, question: &str) {
        if !io::stderr().is_terminal() && io::stdout().is_terminal() {
            self.text(question).ok();
            return;
        }
        let mut stderr = anstream::stderr().lock();
        write!(stderr, "{}", on_stderr(question)).ok();
        stderr.flush().ok();
    }

    /// Prints a note on standard error.
    pub(crate) fn note(&self, text: &str) {
        let mut stderr = anstream::stderr().lock();
        if self.json {
            let json = serde_json::json!({ "note": text });
            writeln!(stderr, "{}", on_stderr(json)).ok();
        } else {
            let text = on_stderr(text);
            writeln!(stderr, "{CYAN}[INFO]{CYAN:#} {text}").ok();
        }
    }
}

/// Verdict of a finding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finding {
    Ok,
    Warning,
    Broken,
}

/// Escapes a text if standard output is a terminal.
fn on_stdout(text: impl Display) -> String {
    shown(&text.to_string(), io::stdout().is_terminal())
}

/// Escapes a text if standard error is a terminal.
fn on_stderr(text: impl Display) -> String {
    shown(&text.to_string(), io::stderr().is_terminal())
}

fn shown(text: &str, terminal: bool) -> String {
    match terminal {
        true => for_terminal(text),
        false => text.to_owned(),
    }
}

/// Formats a failure: the message, the hint and the last lines of the log.
fn failure_text(failure: &Failure, terminal: bool) -> String {
    let plain = |text: &str| shown(&plain(text), terminal);
    let message = plain(&failure.message);
    let mut text = format!("{RED}[ERROR]{RED:#} {}\n", indented(&message));
    if let Some(remedy) = &failure.remedy {
        text.push_str(&format!("{INDENT}Hint: {}\n", indented(&plain(remedy))));
    }
    let skipped = failure.log.len().saturating_sub(LOG_LINES);
    for line in &failure.log[skipped..] {
        text.push_str(&format!("{INDENT}| {}\n", plain(line).trim_end()));
    }
    text
}

/// Indents every line but the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{INDENT}"))
}

#[cfg(test)]
mod tests {
    use innkeeper_model::Code;

    use super::*;

    #[test]
    fn failure_text_has_hint_and_last_log_lines() {
        let mut failure =
            Failure::new(Code::BuildFailed, "cannot build x\nat all").with_remedy("Repair x.");
        failure.log = (1..=30).map(|n| format!("line {n}\r")).collect();
        let text = plain(&failure_text(&failure, true));
        assert!(
            text.starts_with(
                "[ERROR] cannot build x\n        at all\n        Hint: Repair x.\n        | line 6\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("        | line 30\n"), "{text}");
    }
}
