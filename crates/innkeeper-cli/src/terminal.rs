//! The caller's terminal.

use std::io::{self, IsTerminal as _, Stdin};

use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Raw mode of standard input: every key goes to the guest. Restores the former mode on drop.
#[derive(Debug)]
pub(crate) struct RawMode {
    stdin: Stdin,
    former: Termios,
}

impl RawMode {
    /// Enters raw mode. Returns `None` if standard input is not a terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let former = tcgetattr(&stdin)?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw)?;
        Ok(Some(Self { stdin, former }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Without draining, which would block on a terminal without a reader. Errors mean that the terminal is gone.
        tcsetattr(&self.stdin, OptionalActions::Now, &self.former).ok();
    }
}

/// A line of standard input that the terminal does not show. Restores the former mode on drop.
#[derive(Debug)]
pub(crate) struct HiddenInput {
    stdin: Stdin,
    former: Termios,
}

impl HiddenInput {
    /// Calls `prompt` and reads one line. Standard input must be a terminal. What the user types before the prompt is not shown
    /// either.
    pub(crate) fn read_line(prompt: impl FnOnce()) -> io::Result<String> {
        let stdin = io::stdin();
        let former = tcgetattr(&stdin)?;
        let mut hidden = former.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Drain, &hidden)?;
        let _restored = Self { stdin, former };
        prompt();
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        tcsetattr(&self.stdin, OptionalActions::Now, &self.former).ok();
    }
}

/// Returns the terminal's size in rows and columns.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin())
        .or_else(|_| tcgetwinsize(io::stdout()))
        .ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Returns the width of the terminal, if standard output is one.
pub(crate) fn output_width() -> Option<usize> {
    let size = output_size()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Returns the height of the terminal, if standard output is one.
pub(crate) fn output_height() -> Option<usize> {
    let size = output_size()?;
    (size.ws_row > 0).then_some(size.ws_row.into())
}

fn output_size() -> Option<Winsize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    tcgetwinsize(io::stdout()).ok()
}

/// Handlers for the signals that end a program, so that it can leave [`RawMode`] first.
#[derive(Debug)]
pub(crate) struct TerminationSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl TerminationSignals {
    pub(crate) fn register() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal and returns the exit code: 128 + its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hangup.recv() => 128 + 1,
        }
    }
}
