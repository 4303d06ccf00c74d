//! Streams between the thread that works on files and the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use innkeeper_model::api::exec::MAX_BODY;
use tokio::sync::mpsc;

/// A request to end a stream early.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The writing end of a stream from a thread to the connection.
#[derive(Debug)]
pub(super) struct PipeWriter {
    chunks: mpsc::Sender<Vec<u8>>,
    stop: Stop,
}

impl PipeWriter {
    /// Creates a stream that holds up to `limit` chunks.
    pub(super) fn new(limit: usize, stop: Stop) -> (Self, mpsc::Receiver<Vec<u8>>) {
        let (chunks, receiver) = mpsc::channel(limit);
        (Self { chunks, stop }, receiver)
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(MAX_BODY)];
        let is_stopped = self.stop.0.load(Ordering::Relaxed);
        if is_stopped || self.chunks.blocking_send(chunk.to_vec()).is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading end of a stream from the connection to a thread.
#[derive(Debug)]
pub(super) struct PipeReader {
    chunks: mpsc::Receiver<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl PipeReader {
    /// Creates a stream that holds up to `limit` chunks.
    pub(super) fn new(limit: usize) -> (mpsc::Sender<Vec<u8>>, Self) {
        let (sender, chunks) = mpsc::channel(limit);
        let reader = Self {
            chunks,
            current: Vec::new(),
            position: 0,
        };
        (sender, reader)
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => (self.current, self.position) = (chunk, 0),
            }
        }
        let rest = &self.current[self.position..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.position += length;
        Ok(length)
    }
}
