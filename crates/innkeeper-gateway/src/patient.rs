//! A connection to innkeeperd whose response is read even when it does not take the whole request.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that discards what its peer does not want. innkeeperd may respond to the head of a request, and close the
/// connection: hyper would fail because of the body that it cannot send, and lose the response that is there.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    /// Whether writes may still fail: those to a tunnel must.
    is_strict: bool,
    is_closed: bool,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, is_strict: bool) -> Self {
        Self {
            stream,
            is_strict,
            is_closed: false,
        }
    }

    /// Returns the result of a write, whose success is `all`. The end of the connection is found by reading.
    fn forgive<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Err(error)) if !self.is_strict && is_end(&error) => {
                self.is_closed = true;
                Poll::Ready(Ok(all))
            }
            written => written,
        }
    }
}

/// Reports whether an error means that the peer reads no more.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.forgive(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        if self.is_closed {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.forgive(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.forgive(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.forgive(closed, ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    /// Returns a stream whose peer has responded and closed the connection, with a request unread.
    async fn closed(is_strict: bool) -> Patient<UnixStream> {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        let mut near = Patient::new(near, is_strict);
        near.write_all(b"request").await.expect("sent");
        far.write_all(b"response").await.expect("sent");
        drop(far);
        near
    }

    #[tokio::test]
    async fn response_is_read_after_a_write_that_fails() {
        let mut stream = closed(false).await;
        stream.write_all(b"more").await.expect("discarded");
        let mut response = [0; 8];
        stream.read_exact(&mut response).await.expect("is there");
        assert_eq!(&response, b"response");
        stream.write_all(b"still more").await.expect("discarded");
        assert!(matches!(stream.read(&mut response).await, Ok(0) | Err(_)));

        let mut strict = closed(true).await;
        assert!(strict.write_all(b"more").await.is_err());
    }
}
