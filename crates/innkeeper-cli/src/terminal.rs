//! The caller's terminal.

use std::io::{self, IsTerminal as _, Stdin};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Standard input in raw mode: every key goes to the guest. Dropping this gives the terminal back its
/// former mode, whichever way the command ends.
#[derive(Debug)]
pub(crate) struct RawMode {
    stdin: Stdin,
    former: Termios,
}

impl RawMode {
    /// Switches raw mode on; nothing when standard input is no terminal.
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
        // At once: a terminal that nobody reads from would never drain. One that is gone needs no mode.
        tcsetattr(&self.stdin, OptionalActions::Now, &self.former).ok();
    }
}

/// The terminal's size in rows and columns.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin())
        .or_else(|_| tcgetwinsize(io::stdout()))
        .ok()?;
    Some((size.ws_row, size.ws_col))
}

/// The columns of the terminal that standard output leads to, if it leads to one.
pub(crate) fn output_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// The signals that end a program, caught so that [`RawMode`] is left first.
#[derive(Debug)]
pub(crate) struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Endings {
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The exit code for the first signal that arrives: 128 + its number.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 128 + 2,
            _ = self.terminate.recv() => 128 + 15,
            _ = self.hangup.recv() => 128 + 1,
        }
    }
}
