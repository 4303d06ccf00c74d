//! The connection to the guest's side of a copy.

use std::convert::Infallible;
use std::io;

use innkeeper_copy::GUEST_PROGRAM;
use innkeeper_model::Failure;
use innkeeper_model::api::{ExecRequest, exec};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::meter::Meter;
use crate::client::Upgraded;
use crate::context::Context;
use crate::failure::{CommandError, unexpected_response};
use crate::frames;
use crate::suggest::suggest;
use crate::tunnel::Guest;

/// Maximum size of the guest's messages that are kept, in bytes.
const MAX_MESSAGES: usize = 64 * 1024;

/// The guest's side of a copy.
pub(super) struct Session<'a> {
    cx: &'a Context,
    reader: ReadHalf<Upgraded>,
    writer: WriteHalf<Upgraded>,
}

/// The end of the guest's side.
#[derive(Debug)]
pub(super) enum Ended {
    /// It has exited.
    Exited {
        /// Its exit status.
        status: i32,
        /// Its messages: after a failure, the last line is the error.
        messages: String,
    },
    /// This machine's side has ended before it.
    Left,
    /// The connection broke, or the command did not start.
    Failed(CommandError),
}

impl<'a> Session<'a> {
    /// Starts the guest's side, after the guest is woken.
    pub(super) async fn start(
        cx: &'a Context,
        guest: &Guest,
        user: Option<String>,
        verb: &[&str],
        paths: Vec<String>,
    ) -> Result<Self, CommandError> {
        let mut command: Vec<String> = vec![GUEST_PROGRAM.to_owned()];
        command.extend(verb.iter().map(|&word| word.to_owned()));
        command.extend(paths);
        let request = ExecRequest {
            command,
            tty: false,
            size: None,
            environment: Vec::new(),
            user,
            detached: false,
        };
        let path = guest.path("/exec");
        let sent = cx.client.upgrade(&path, exec::PROTOCOL, &request);
        let connection = suggest(&cx.client, guest.name(), Box::pin(sent).await).await?;
        let (reader, writer) = tokio::io::split(connection);
        Ok(Self { cx, reader, writer })
    }

    /// Sends a stream to the guest's side until that ends.
    pub(super) async fn send(self, chunks: mpsc::Receiver<Vec<u8>>, meter: &Meter) -> Ended {
        let Self { cx, reader, writer } = self;
        let (unused, _output) = mpsc::channel(1);
        tokio::select! {
            ended = read(cx, reader, &unused, None) => ended,
            never = write(writer, chunks, meter) => match never {},
        }
    }

    /// Receives the stream of the guest's side until that ends.
    pub(super) async fn receive(self, chunks: mpsc::Sender<Vec<u8>>, meter: &Meter) -> Ended {
        let Self {
            cx,
            reader,
            mut writer,
        } = self;
        // An error is left to `read`: the guest's side may have exited already.
        drop(frames::write(&mut writer, exec::STDIN, &[]).await);
        // The writer lives as long: its end would close the connection.
        let ended = read(cx, reader, &chunks, Some(meter)).await;
        drop(writer);
        ended
    }
}

/// Writes a stream as the guest's input, and the end of it. An error is left to [`read`], which returns the cause.
async fn write(
    mut writer: WriteHalf<Upgraded>,
    mut chunks: mpsc::Receiver<Vec<u8>>,
    meter: &Meter,
) -> Infallible {
    let written: io::Result<()> = async {
        while let Some(chunk) = chunks.recv().await {
            frames::write(&mut writer, exec::STDIN, &chunk).await?;
            meter.count(chunk.len());
        }
        frames::write(&mut writer, exec::STDIN, &[]).await
    }
    .await;
    drop(written);
    std::future::pending().await
}

/// Reads the frames of the guest's side until it exits. With a meter, its output is a stream for `chunks`.
async fn read(
    cx: &Context,
    mut reader: ReadHalf<Upgraded>,
    chunks: &mpsc::Sender<Vec<u8>>,
    meter: Option<&Meter>,
) -> Ended {
    let mut body = Vec::new();
    let mut messages = Vec::new();
    loop {
        let kind = match frames::read(&mut reader, &mut body).await {
            Ok(kind) => kind,
            Err(error) => return Ended::Failed(cx.client.lost(&error).into()),
        };
        match kind {
            exec::STDOUT => {
                // The daemon probes the connection with empty bodies.
                let Some(meter) = meter.filter(|_| !body.is_empty()) else {
                    continue;
                };
                meter.count(body.len());
                if chunks.send(std::mem::take(&mut body)).await.is_err() {
                    return Ended::Left;
                }
            }
            exec::STDERR => {
                messages.extend_from_slice(&body);
                // The error is at the end.
                let surplus = messages.len().saturating_sub(MAX_MESSAGES);
                messages.drain(..surplus);
            }
            exec::NOTE => cx.output.note(&String::from_utf8_lossy(&body)),
            exec::EXIT => {
                let Ok(status) = <[u8; 4]>::try_from(body.as_slice()) else {
                    return Ended::Failed(unexpected_response("exit status of wrong size").into());
                };
                return Ended::Exited {
                    status: i32::from_be_bytes(status),
                    messages: String::from_utf8_lossy(&messages).into_owned(),
                };
            }
            exec::FAILURE => {
                return Ended::Failed(match serde_json::from_slice::<Failure>(&body) {
                    Ok(failure) => failure.into(),
                    Err(error) => unexpected_response(&format!("invalid failure: {error}")).into(),
                });
            }
            kind => {
                let problem = format!("unknown frame kind {kind}");
                return Ended::Failed(unexpected_response(&problem).into());
            }
        }
    }
}
