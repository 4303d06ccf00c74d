//! Commands that the daemon itself runs in guests.
//!
//! Their output comes from the guest, which is not trusted: it is bounded here.

use std::collections::VecDeque;
use std::time::Duration;

use innkeeper_facilities::Output;
use innkeeper_model::GuestName;
use innkeeper_model::api::ExecRequest;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use crate::EngineError;
use crate::inner::Inner;

/// Number of last lines that are kept for a failure.
const TAIL: usize = 20;

/// Maximum length of a line, in bytes. The rest of a longer line is dropped.
const MAX_LINE: usize = 400;

/// Maximum size of the kept standard output, in bytes.
const MAX_OUTPUT: usize = 64 << 10;

/// The result of a command.
pub(crate) struct Ran {
    /// The exit status; 127 if the guest has no such program. `None` after a timeout.
    pub(crate) status: Option<i32>,
    /// The beginning of its standard output.
    pub(crate) stdout: String,
    /// The last lines of its standard output and error.
    pub(crate) tail: Vec<String>,
}

impl Inner {
    /// Runs a command as root in the guest, and calls `each` for every line that it prints. At the end of `timeout`, the
    /// command is killed.
    ///
    /// # Errors
    /// When the guest does not run or the command cannot be started.
    pub(crate) async fn run_in_guest(
        &self,
        guest: &GuestName,
        command: &[&str],
        timeout: Duration,
        each: impl Fn(&str),
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
        let tail = Mutex::new(VecDeque::new());
        let line = |text: &str| {
            let mut tail = tail.lock();
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
            drop(tail);
            each(text);
        };
        let mut stdout = Vec::new();
        let work = async {
            let error = async {
                if let Some(output) = session.stderr {
                    read(output, &line, None).await;
                }
            };
            tokio::join!(read(session.stdout, &line, Some(&mut stdout)), error);
            session.command.wait().await
        };
        let status = match tokio::time::timeout(timeout, work).await {
            Ok(status) => Some(status.map_err(|error| {
                EngineError::Invalid(format!(
                    "the end of a command in guest '{guest}' is unknown: {error}"
                ))
            })?),
            Err(_elapsed) => None,
        };
        Ok(Ran {
            status,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            tail: tail.into_inner().into(),
        })
    }
}

/// Reads an output to its end, line by line.
async fn read(mut output: Output, line: &impl Fn(&str), mut all: Option<&mut Vec<u8>>) {
    let mut chunk = vec![0; 4096];
    let mut current = Vec::new();
    // A read error ends the output like its end does: the exit status decides.
    while let Ok(length @ 1..) = output.read(&mut chunk).await {
        for &byte in chunk.iter().take(length) {
            if let Some(all) = all.as_mut().filter(|all| all.len() < MAX_OUTPUT) {
                all.push(byte);
            }
            match byte {
                b'\n' => {
                    line(&String::from_utf8_lossy(&current));
                    current.clear();
                }
                _ if current.len() < MAX_LINE => current.push(byte),
                _ => {}
            }
        }
    }
    if !current.is_empty() {
        line(&String::from_utf8_lossy(&current));
    }
}
