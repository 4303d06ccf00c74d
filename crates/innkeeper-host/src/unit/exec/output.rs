//! The output of a command.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};

use super::super::process::watched;

/// The maximum that is read after the command has ended: the capacity of a pipe (`pipe-max-size` in proc(5)). A process
/// outside of the command's cgroup that received the pipe could write forever.
const REMAINDER: usize = 1 << 20;

type End = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// An output of a command. It ends when all writers have closed it, or when the command has ended and its output has been
/// read, even if another process keeps the other end open.
pub(super) struct Output {
    from: Arc<AsyncFd<OwnedFd>>,
    /// Completes when the command has ended.
    end: End,
    has_ended: bool,
    remainder: usize,
}

impl Output {
    /// Reads a pipe or a terminal until `end` completes and the rest has been read.
    pub(super) fn new(
        from: Arc<AsyncFd<OwnedFd>>,
        end: impl Future<Output = ()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            from,
            end: Box::pin(end),
            has_ended: false,
            remainder: REMAINDER,
        }
    }

    /// The reading end of a pipe.
    pub(super) fn pipe(
        from: OwnedFd,
        end: impl Future<Output = ()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&from, true)?;
        Ok(Self::new(Arc::new(watched(from, Interest::READABLE)?), end))
    }
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Checked before the read: an output that is empty after the command's end stays empty.
            if !self.has_ended && self.end.as_mut().poll(context).is_ready() {
                self.has_ended = true;
            }
            let room = buffer.remaining();
            let room = if self.has_ended {
                room.min(self.remainder)
            } else {
                room
            };
            if room == 0 {
                return Poll::Ready(Ok(()));
            }
            // Reads without waiting for readiness, which may be signaled after the command's end.
            match rustix::io::read(self.from.as_fd(), buffer.initialize_unfilled_to(room)) {
                Ok(length) => {
                    buffer.advance(length);
                    if self.has_ended {
                        self.remainder -= length;
                    }
                    return Poll::Ready(Ok(()));
                }
                // A terminal whose other end is closed (pts(4) has no end of file).
                Err(Errno::IO) => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) if self.has_ended => return Poll::Ready(Ok(())),
                Err(Errno::AGAIN) => {
                    let mut ready = ready!(self.from.poll_read_ready(context))?;
                    ready.clear_ready();
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use tokio::io::AsyncReadExt as _;
    use tokio::sync::oneshot;

    use super::*;

    fn pipe() -> (io::PipeWriter, Output, oneshot::Sender<()>) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (end, ended) = oneshot::channel::<()>();
        let output = Output::pipe(reader.into(), async move { drop(ended.await) });
        (writer, output.expect("an output"), end)
    }

    #[tokio::test]
    async fn output_is_complete_although_the_pipe_stays_open() {
        let (mut writer, mut output, end) = pipe();
        writer.write_all(b"all of it").expect("written");
        end.send(()).expect("a reader");
        let mut read = String::new();
        output.read_to_string(&mut read).await.expect("read");
        assert_eq!(read, "all of it");
        drop(writer);
    }

    #[tokio::test]
    async fn end_wakes_a_waiting_reader() {
        let (writer, mut output, end) = pipe();
        let reading = tokio::spawn(async move { output.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        end.send(()).expect("a reader");
        assert_eq!(reading.await.expect("no panic").expect("read"), 0);
        drop(writer);
    }

    #[tokio::test]
    async fn endless_writer_cannot_delay_the_end() {
        let (mut writer, mut output, end) = pipe();
        end.send(()).expect("a reader");
        let mut read = 0;
        loop {
            writer.write_all(&[b'x'; 4096]).expect("written");
            match output.read(&mut [0; 8192]).await.expect("read") {
                0 => break,
                length => read += length,
            }
        }
        assert_eq!(read, REMAINDER);
    }
}
