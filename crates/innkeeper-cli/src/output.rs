//! Everything that is printed.
//!
//! For people: `[INFO]`, `[OK]` and `[WARN]` lines and tables on standard output, `[ERROR]` on standard error
//! with its hint and its log below. For programs (`--json`): JSON on standard output, one failure or note as JSON
//! on standard error. Colours appear on terminals only, and never with `NO_COLOR` (anstream sees to it).

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};

use clap::builder::styling::{AnsiColor, Style};
use innkeeper_model::Failure;
use serde::Serialize;

use crate::describe::plain;
use crate::escape::{Escaper, for_terminal};
use crate::failure::CommandError;

/// Where a command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

const CYAN: Style = AnsiColor::Cyan.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const RED: Style = AnsiColor::Red.on_default();

/// As wide as `[ERROR] `.
const INDENT: &str = "        ";

/// The most lines of a log that are shown below an error.
const LOG_LINES: usize = 25;

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether a program reads what is printed.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the caller wants nothing but what was asked for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether nobody wants to see progress.
    pub(crate) fn is_silent(&self) -> bool {
        self.json || self.quiet
    }

    /// `[INFO] …`, unless nobody wants to see progress.
    pub(crate) fn info(&self, text: impl Display) -> Result<(), CommandError> {
        self.labelled(CYAN, "[INFO]", text)
    }

    /// `[OK] …`, unless nobody wants to see progress.
    pub(crate) fn ok(&self, text: impl Display) -> Result<(), CommandError> {
        self.labelled(GREEN, "[OK]", text)
    }

    fn labelled(&self, style: Style, label: &str, text: impl Display) -> Result<(), CommandError> {
        if self.is_silent() {
            return Ok(());
        }
        let text = on_stdout(text);
        self.styled(format_args!("{style}{label}{style:#} {text}\n"))
    }

    /// One finding of a report for people: its label, its text, its hint.
    pub(crate) fn finding(
        &self,
        finding: Finding,
        text: impl Display,
        hint: Option<&str>,
    ) -> Result<(), CommandError> {
        let (style, label) = match finding {
            Finding::Good => (GREEN, "[OK]"),
            Finding::Doubtful => (YELLOW, "[WARN]"),
            Finding::Bad => (RED, "[BROKEN]"),
        };
        let text = on_stdout(text);
        self.styled(format_args!("{style}{label}{style:#} {text}\n"))?;
        hint.map_or(Ok(()), |hint| {
            self.text(format_args!("{INDENT}Hint: {}\n", indented(hint)))
        })
    }

    /// Text for people.
    pub(crate) fn text(&self, text: impl Display) -> Result<(), CommandError> {
        self.raw(on_stdout(text).as_bytes())
    }

    /// Text with our own colours, in which everything else is escaped already.
    fn styled(&self, text: impl Display) -> Result<(), CommandError> {
        let mut stdout = anstream::stdout().lock();
        write!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(CommandError::Output)
    }

    /// An escaper for standard output.
    pub(crate) fn escaper(&self) -> Escaper {
        Escaper::new(io::stdout().is_terminal())
    }

    /// A piece of a guest's output; its end when there is none.
    pub(crate) fn piece(
        &self,
        escaper: &mut Escaper,
        piece: Option<&[u8]>,
    ) -> Result<(), CommandError> {
        self.raw(&match piece {
            Some(piece) => escaper.piece(piece),
            None => escaper.end(),
        })
    }

    fn raw(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(CommandError::Output)
    }

    /// A value on one line.
    pub(crate) fn value(&self, value: &impl Serialize) -> Result<(), CommandError> {
        let line = serde_json::to_string(value)
            .map_err(|error| CommandError::Output(io::Error::from(error)))?;
        self.text(format_args!("{line}\n"))
    }

    /// What was asked for: the value for programs, the words for people.
    pub(crate) fn show<T: Serialize>(
        &self,
        value: &T,
        words: impl FnOnce(&T) -> String,
    ) -> Result<(), CommandError> {
        if self.json {
            self.value(value)
        } else {
            self.text(words(value))
        }
    }

    /// A failure, on standard error. That nobody can read it is no reason to fail.
    pub(crate) fn failure(&self, failure: &Failure) {
        let mut stderr = anstream::stderr().lock();
        if self.json {
            let json = serde_json::to_string(failure).unwrap_or_else(|_| failure.message.clone());
            writeln!(stderr, "{}", on_stderr(json)).ok();
        } else {
            write!(
                stderr,
                "{}",
                for_people(failure, io::stderr().is_terminal())
            )
            .ok();
        }
    }

    /// A question, to be answered on the same line. It goes to standard error, since standard output is for what
    /// was requested, unless only standard output is a terminal.
    pub(crate) fn ask(&self, question: &str) {
        if !io::stderr().is_terminal() && io::stdout().is_terminal() {
            self.text(question).ok();
            return;
        }
        let mut stderr = anstream::stderr().lock();
        write!(stderr, "{}", on_stderr(question)).ok();
        stderr.flush().ok();
    }

    /// Something to know that is no failure, on standard error.
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

/// How a finding of a report is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finding {
    Good,
    Doubtful,
    Bad,
}

/// The text as standard output may show it.
fn on_stdout(text: impl Display) -> String {
    shown(&text.to_string(), io::stdout().is_terminal())
}

/// The text as standard error may show it.
fn on_stderr(text: impl Display) -> String {
    shown(&text.to_string(), io::stderr().is_terminal())
}

fn shown(text: &str, terminal: bool) -> String {
    match terminal {
        true => for_terminal(text),
        false => text.to_owned(),
    }
}

/// The lines of a failure: what, what to do, and the end of the log that shows the cause.
fn for_people(failure: &Failure, terminal: bool) -> String {
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

/// The text with every line but the first moved to where the first begins.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{INDENT}"))
}

#[cfg(test)]
mod tests {
    use innkeeper_model::Code;

    use super::*;

    #[test]
    fn an_error_has_its_hint_and_the_end_of_its_log_below() {
        let mut failure =
            Failure::new(Code::BuildFailed, "cannot build x\nat all").with_remedy("Repair x.");
        failure.log = (1..=30).map(|n| format!("line {n}\r")).collect();
        let text = plain(&for_people(&failure, true));
        assert!(
            text.starts_with(
                "[ERROR] cannot build x\n        at all\n        Hint: Repair x.\n        | line 6\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("        | line 30\n"), "{text}");
    }
}
