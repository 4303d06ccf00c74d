//! Commands that the daemon itself runs in guests.
//!
//! Their output comes from the guest, which is not trusted: its size, and the rate of reports about it, are bounded here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use innkeeper_facilities::Output;
use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::EngineError;
use crate::inner::Inner;

/// Number of last lines that are kept for a failure.
const TAIL: usize = 20;

/// Maximum length of a line, in bytes. The rest of a longer line is dropped.
const MAX_LINE: usize = 400;

/// Maximum size of the kept standard output, in bytes.
const MAX_OUTPUT: usize = 64 << 10;

/// Maximum size of all output of a command, in bytes. A command that prints more is killed.
const MAX_TOTAL: usize = 8 << 20;

/// Minimum interval between two reports of a line.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of reports of one command.
const MAX_REPORTS: usize = 1000;

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It exited with this status; 127 if the guest has no such program.
    Exited(i32),
    /// It was killed at the end of its timeout.
    TimedOut,
    /// It was killed because it printed more than 8 MiB.
    Flooded,
}

/// The result of a command.
pub(crate) struct Ran {
    /// The end.
    pub(crate) end: End,
    /// The beginning of its standard output.
    pub(crate) stdout: String,
    /// The last lines of its standard output and error.
    pub(crate) tail: Vec<String>,
}

impl Inner {
    /// Runs a command as root in the guest. Calls `report` with lines that it prints, at most ten times a second: the newest
    /// line each time. A command that prints too much, or runs for longer than `timeout`, is killed.
    ///
    /// # Errors
    /// When the guest does not run or the command cannot be started.
    pub(crate) async fn run_in_guest(
        &self,
        guest: &GuestName,
        command: &[&str],
        timeout: Duration,
        report: impl Fn(&str),
    ) -> Result<Ran, EngineError> {
        let request = ExecRequest {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            tty: false,
            size: None,
            environment: Vec::new(),
            user: None,
            detached: false,
        };
        let mut session = self.host.units.exec(guest, &request).await?;
        // No input: a command that asks a question must not wait for an answer.
        drop(session.stdin.take());
        let collected = Collected::default();
        let mut stdout = Vec::new();
        let work = async {
            let error = async {
                match session.stderr {
                    Some(output) => collected.read(output, None).await,
                    None => Ok(()),
                }
            };
            match tokio::try_join!(collected.read(session.stdout, Some(&mut stdout)), error) {
                Ok(_) => session.command.wait().await.map(End::Exited),
                Err(TooMuch) => Ok(End::Flooded),
            }
        };
        let reports = collected.report(&report);
        let ended = tokio::select! {
            // The end first: a command that floods reports must not delay it.
            biased;
            ended = tokio::time::timeout(timeout, work) => ended,
            never = reports => match never {},
        };
        let end = match ended {
            Ok(end) => end.map_err(|error| {
                EngineError::Invalid(format!(
                    "the end of a command in guest '{guest}' is unknown: {error}"
                ))
            })?,
            Err(_elapsed) => End::TimedOut,
        };
        Ok(Ran {
            end,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            tail: collected.tail.into_inner().into(),
        })
    }
}

/// A command printed more than [`MAX_TOTAL`].
struct TooMuch;

/// The output of a command so far.
struct Collected {
    /// The last lines.
    tail: Mutex<VecDeque<String>>,
    /// The number of bytes.
    total: AtomicUsize,
    /// The last line.
    newest: watch::Sender<String>,
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            tail: Mutex::default(),
            total: AtomicUsize::new(0),
            newest: watch::Sender::new(String::new()),
        }
    }
}

impl Collected {
    /// Reads an output to its end, line by line. `all` receives its beginning.
    async fn read(&self, mut output: Output, mut all: Option<&mut Vec<u8>>) -> Result<(), TooMuch> {
        let mut chunk = vec![0; 4096];
        let mut current = Vec::new();
        // A read error ends the output like its end does: the exit status decides.
        while let Ok(length @ 1..) = output.read(&mut chunk).await {
            if self.total.fetch_add(length, Ordering::Relaxed) + length > MAX_TOTAL {
                return Err(TooMuch);
            }
            for &byte in chunk.iter().take(length) {
                if let Some(all) = all.as_mut().filter(|all| all.len() < MAX_OUTPUT) {
                    all.push(byte);
                }
                match byte {
                    b'\n' => {
                        self.add(&current);
                        current.clear();
                    }
                    _ if current.len() < MAX_LINE => current.push(byte),
                    _ => {}
                }
            }
        }
        if !current.is_empty() {
            self.add(&current);
        }
        Ok(())
    }

    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        let mut tail = self.tail.lock();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        drop(tail);
        self.newest.send_replace(line);
    }

    /// Reports the newest line at intervals. Never returns.
    async fn report(&self, report: &impl Fn(&str)) -> Infallible {
        let mut newest = self.newest.subscribe();
        for _ in 0..MAX_REPORTS {
            // Never fails: `self` is the sender.
            if newest.changed().await.is_err() {
                break;
            }
            let line = newest.borrow_and_update().clone();
            report(&line);
            sleep(REPORT_INTERVAL).await;
        }
        std::future::pending().await
    }
}
