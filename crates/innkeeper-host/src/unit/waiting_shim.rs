//! A guest's shim that waits for the start of its guest.

use std::io;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::oneshot;

use super::process::Process;

/// The maximum length of the line with the shim's process id, in bytes.
const LINE: u64 = 32;

/// A shim that waits for a byte on its standard input. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct WaitingShim {
    input: ChildStdin,
    ended: oneshot::Receiver<()>,
}

impl WaitingShim {
    /// Waits for a spawned shim in the background. Its standard input and output must be pipes: it prints the id of the
    /// process that supervises the guest, which may be another child of this one.
    pub(super) fn watch(mut shim: Child) -> io::Result<Self> {
        let input = shim.stdin.take().ok_or(io::ErrorKind::InvalidInput)?;
        let (sender, ended) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(error) = wait(shim).await {
                tracing::warn!(%error, "cannot wait for a guest's supervisor");
            }
            // The guest may not have been started.
            let _receiver = sender.send(());
        });
        Ok(Self { input, ended })
    }

    /// Has the shim start its guest. The result completes when the shim has ended.
    ///
    /// # Errors
    /// `BrokenPipe` when it has ended already.
    pub(super) async fn start(mut self) -> io::Result<oneshot::Receiver<()>> {
        match self.input.write_all(&[1]).await {
            // It could not enter its cgroup; its exit status and its log contain the cause.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(self.ended),
        }
    }
}

/// Waits for a spawned shim, and for the process that continues in its place.
async fn wait(mut shim: Child) -> io::Result<()> {
    let (spawned, mut line) = (shim.id(), String::new());
    if let Some(output) = shim.stdout.take() {
        BufReader::new(output.take(LINE))
            .read_line(&mut line)
            .await?;
    }
    shim.wait().await?;
    match line.trim_end().parse() {
        Ok(supervisor) if spawned != Some(supervisor) => reap(supervisor).await,
        _ => Ok(()),
    }
}

/// Waits for a child that tokio does not know. Its id is not reused before.
async fn reap(child: u32) -> io::Result<()> {
    let id = i32::try_from(child).ok().and_then(Pid::from_raw);
    let (Some(process), Some(id)) = (Process::open(child)?, id) else {
        return Ok(());
    };
    process.ended().await?;
    waitpid(Some(id), WaitOptions::NOHANG)?;
    Ok(())
}
