//! Connections to ports of guests ([`innkeeper_model::api::connect`]).

use std::io;

use innkeeper_model::GuestName;
use innkeeper_model::api::connect;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::client::{Upgraded, guest_path, preview_path};
use crate::context::Context;
use crate::escape::Escaper;
use crate::failure::CommandError;
use crate::frames;
use crate::output::Output;
use crate::suggest::suggest;

/// Maximum size of a piece of data, in bytes.
const PIECE: usize = 32 * 1024;

/// A guest whose ports are connected to.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    name: GuestName,
    is_preview: bool,
}

impl Guest {
    /// Names an agent.
    pub(crate) fn agent(name: GuestName) -> Self {
        Self {
            name,
            is_preview: false,
        }
    }

    /// Names a preview's guest.
    pub(crate) fn preview(slug: GuestName) -> Self {
        Self {
            name: slug,
            is_preview: true,
        }
    }

    pub(crate) fn name(&self) -> &GuestName {
        &self.name
    }

    /// Returns the program for guests of its kind.
    pub(crate) fn program(&self) -> &'static str {
        match self.is_preview {
            true => "preview",
            false => "agent",
        }
    }

    /// Returns the API path of the guest, with `rest` appended.
    pub(crate) fn path(&self, rest: &str) -> String {
        match self.is_preview {
            true => preview_path(&self.name, rest),
            false => guest_path(&self.name, rest),
        }
    }

    /// Connects to a port of the guest, which is woken first. Waits up to `wait` seconds for the port.
    pub(crate) async fn connect(
        &self,
        cx: &Context,
        port: u16,
        wait: u64,
    ) -> Result<Upgraded, CommandError> {
        let path = self.path(&format!("/connect/{port}?wait={wait}"));
        let sent = cx.client.upgrade(&path, connect::PROTOCOL, &());
        suggest(&cx.client, &self.name, Box::pin(sent).await).await
    }
}

/// Carries data between a connection and local streams until both directions have ended.
///
/// # Errors
/// When one of them breaks.
pub(crate) async fn carry(
    connection: Upgraded,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let (from_guest, to_guest) = tokio::io::split(connection);
    let outward = send(from, to_guest);
    let inward = receive(from_guest, Sink::Stream(to));
    tokio::try_join!(outward, inward).map(|_| ())
}

/// Carries data between a connection and standard input and output until the guest's data has ended. On a terminal, the guest's
/// data is escaped.
///
/// # Errors
/// When one of them breaks.
pub(crate) async fn carry_standard(connection: Upgraded, output: Output) -> io::Result<()> {
    let (from_guest, to_guest) = tokio::io::split(connection);
    let outward = send(tokio::io::stdin(), to_guest);
    let sink: Sink<tokio::io::Sink> = Sink::Output(output, output.escaper());
    let inward = receive(from_guest, sink);
    let outward = async {
        match outward.await {
            // The writer must outlive the guest's data.
            Ok(_open) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    tokio::select! {
        ended = inward => ended,
        failed = outward => failed,
    }
}

/// Sends local data, and the end of it. Returns the writer, whose end would close the connection.
async fn send<W: AsyncWrite + Unpin>(mut from: impl AsyncRead + Unpin, mut to: W) -> io::Result<W> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        frames::write(&mut to, connect::DATA, &piece[..length]).await?;
        if length == 0 {
            return Ok(to);
        }
    }
}

/// The receiver of a guest's data.
enum Sink<W> {
    Stream(W),
    Output(Output, Escaper),
}

impl<W: AsyncWrite + Unpin> Sink<W> {
    /// Writes bytes, or ends the data (`None`).
    async fn write(&mut self, bytes: Option<&[u8]>) -> io::Result<()> {
        match (self, bytes) {
            (Self::Stream(stream), Some(bytes)) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            (Self::Stream(stream), None) => stream.shutdown().await,
            (Self::Output(output, escaper), bytes) => {
                let written = output.log_bytes(escaper, bytes);
                written.map_err(|error| match error {
                    CommandError::Output(error) => error,
                    other => io::Error::other(other),
                })
            }
        }
    }
}

/// Writes the guest's data, and the end of it.
async fn receive<W: AsyncWrite + Unpin>(
    mut from: impl AsyncRead + Unpin,
    mut to: Sink<W>,
) -> io::Result<()> {
    let mut body = Vec::new();
    loop {
        match (frames::read(&mut from, &mut body).await?, body.is_empty()) {
            (connect::DATA, true) => return to.write(None).await,
            (connect::DATA, false) => to.write(Some(&body)).await?,
            (connect::PROBE, _) => {}
            (kind, _) => {
                let message = format!("unknown frame kind {kind}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
}
