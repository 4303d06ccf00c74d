//! A command and its end.

use std::convert::Infallible;
use std::io;
use std::process::ExitStatus;

use async_trait::async_trait;
use innkeeper_facilities::{ExecCommand, ExecSession, Output};
use tokio::sync::{oneshot, watch};

use super::terminal::Terminal;

/// A command in a guest. Dropping it kills the command, unless it is detached.
pub(super) struct Command {
    pub(super) pid: Option<u32>,
    pub(super) terminal: Option<Terminal>,
    pub(super) end: End,
    /// Dropping this ends the task that waits for the command, and with it the command.
    pub(super) _alive: Option<oneshot::Sender<Infallible>>,
}

/// The command's result, once it has ended.
pub(super) type End = watch::Receiver<Option<Ended>>;

/// The result of a command.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) status: i32,
    /// The guest's count of processes that the kernel killed because its memory was exhausted.
    pub(super) oom_kills: u64,
    /// The part of that count that was added while the command ran.
    pub(super) new_oom_kills: u64,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command")
            .field("pid", &self.pid)
            .field("terminal", &self.terminal.is_some())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ExecCommand for Command {
    fn resize(&self, rows: u16, cols: u16) {
        if let Some(terminal) = &self.terminal {
            terminal.resize(rows, cols);
        }
    }

    async fn wait(&self) -> io::Result<i32> {
        let mut end = self.end.clone();
        let status = end.wait_for(Option::is_some).await;
        status
            .ok()
            .and_then(|ended| *ended)
            .map(|ended| ended.status)
            .ok_or_else(|| io::Error::other("the exit status was lost"))
    }

    fn oom_kills(&self) -> (u64, u64) {
        let ended = (*self.end.borrow()).unwrap_or_default();
        (ended.new_oom_kills, ended.oom_kills)
    }
}

/// The session of a detached command: it is not waited for.
pub(super) fn detached(pid: Option<u32>, ended: Option<ExitStatus>) -> ExecSession {
    let failed = ended.map(status).filter(|status| *status != 0);
    let message = failed.map(|status| {
        let text = format!("The detached command ended at once with status {status}.\n");
        Box::pin(io::Cursor::new(text.into_bytes())) as Output
    });
    let ended = Ended {
        status: failed.unwrap_or_default(),
        ..Ended::default()
    };
    let command = Command {
        pid,
        terminal: None,
        end: watch::channel(Some(ended)).1,
        _alive: None,
    };
    ExecSession {
        stdin: None,
        stdout: Box::pin(tokio::io::empty()),
        stderr: message,
        command: Box::new(command),
    }
}

pub(super) fn status(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
