//! Commands in guests: an upgraded connection that carries frames both ways.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{join, try_join};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use innkeeper_host::unit::ExecSession;
use innkeeper_model::api::{ExecRequest, exec as frame};
use innkeeper_model::{Code, Failure, GuestName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::debug;

use super::Context;
use super::agent::Agent;
use super::answer::{Refusal, body};
use super::previews::One;

pub(super) async fn exec(
    State(context): State<Context>,
    Agent(guest): Agent,
    request: Request,
) -> Result<Response, Refusal> {
    begin(&context, &guest, request).await
}

pub(super) async fn exec_in_preview(
    State(context): State<Context>,
    One(previews, slug): One,
    request: Request,
) -> Result<Response, Refusal> {
    let guest = previews.guest(&slug).await?.guest.name;
    begin(&context, &guest, request).await
}

async fn begin(
    context: &Context,
    guest: &GuestName,
    mut request: Request,
) -> Result<Response, Refusal> {
    let upgrade = wanted_upgrade(&mut request)?;
    let bytes = read_body(request.into_body()).await?;
    let order: ExecRequest = body(&bytes)?;
    let session = context.engine.exec(guest, &order).await?;
    let record = context.engine.guest(guest).await?;
    let engine = context.engine.clone();
    let killed = move |session: &ExecSession| {
        let (kills, all) = session.oom_kills();
        engine.record_oom_kills(&record, all);
        (kills > 0).then(|| format!("{}. {}", record.oom_finding(kills), record.oom_remedy()))
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => converse(connection, session, killed).await,
            Err(error) => debug!(%error, "the caller left before the command began"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(frame::PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn wanted_upgrade(request: &mut Request) -> Result<OnUpgrade, Refusal> {
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value == frame::PROTOCOL);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    match upgrade {
        Some(upgrade) if asked => Ok(upgrade),
        _ => Err(Refusal(Failure::new(
            Code::InvalidRequest,
            format!("this call needs the header Upgrade: {}", frame::PROTOCOL),
        ))),
    }
}

async fn read_body(body: Body) -> Result<Bytes, Refusal> {
    axum::body::to_bytes(body, super::BODY_LIMIT)
        .await
        .map_err(|error| {
            Refusal(Failure::new(
                Code::InvalidRequest,
                format!("the request cannot be read: {error}"),
            ))
        })
}

/// Carries frames until the command has ended and its output is sent, or the caller is gone. In either case,
/// dropping the session kills what is left of the command.
///
/// `killed` returns a note about processes that the kernel killed meanwhile for want of memory.
async fn converse(
    connection: Upgraded,
    mut session: ExecSession,
    killed: impl Fn(&ExecSession) -> Option<String>,
) {
    let (from_caller, to_caller) = tokio::io::split(TokioIo::new(connection));
    let stdin = session.stdin.take();
    let stdout = std::mem::replace(&mut session.stdout, Box::pin(tokio::io::empty()));
    let stderr = session.stderr.take();
    let (frames, outgoing) = mpsc::channel(16);

    let command = async {
        let error = async {
            match stderr {
                Some(stderr) => pump(frame::STDERR, stderr, &frames).await,
                None => Ok(()),
            }
        };
        let output = pump(frame::STDOUT, stdout, &frames);
        // A command may close its outputs and go on.
        let (output, status) = join(try_join(output, error), session.wait()).await;
        output.map(|_| status.unwrap_or(255))
    };
    let input = receive(from_caller, stdin, &session, &frames);
    let sending = tokio::spawn(send(to_caller, outgoing));
    let status = tokio::select! {
        Ok(status) = command => status,
        Gone = input => return,
        else => return,
    };
    if let Some(note) = killed(&session) {
        drop(frames.send((frame::NOTE, note.into_bytes())).await);
    }
    drop(
        frames
            .send((frame::EXIT, status.to_be_bytes().to_vec()))
            .await,
    );
    drop(frames);
    drop(sending.await);
}

/// One frame: its kind and its body.
type Frame = (u8, Vec<u8>);

/// The caller has closed the connection.
struct Gone;

async fn pump(
    kind: u8,
    mut from: impl AsyncRead + Unpin,
    frames: &mpsc::Sender<Frame>,
) -> Result<(), Gone> {
    let mut buffer = vec![0; frame::MAX_BODY / 4];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        frames
            .send((kind, buffer[..length].to_vec()))
            .await
            .map_err(|_| Gone)?;
    }
    Ok(())
}

async fn send(
    mut to: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<Frame>,
) -> std::io::Result<()> {
    while let Some((kind, body)) = frames.recv().await {
        let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        let mut bytes = Vec::with_capacity(5 + body.len());
        bytes.push(kind);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

/// Takes the caller's frames until the caller is gone. The end of the caller's input is not the end of
/// the caller.
async fn receive(
    mut from: impl AsyncRead + Unpin,
    mut stdin: Option<impl AsyncWrite + Unpin>,
    session: &ExecSession,
    frames: &mpsc::Sender<Frame>,
) -> Gone {
    while let Ok((kind, body)) = read_frame(&mut from).await {
        match (kind, body.as_slice()) {
            (frame::STDIN, []) => stdin = None,
            (frame::STDIN, bytes) => {
                let Some(writer) = &mut stdin else {
                    continue;
                };
                let written = async {
                    writer.write_all(bytes).await?;
                    writer.flush().await
                };
                let written: std::io::Result<()> = tokio::select! {
                    written = written => written,
                    Gone = probe(frames) => return Gone,
                };
                // The command has closed its input, and may go on without.
                if written.is_err() {
                    stdin = None;
                }
            }
            (frame::RESIZE, [r1, r0, c1, c0]) => {
                session.resize(
                    u16::from_be_bytes([*r1, *r0]),
                    u16::from_be_bytes([*c1, *c0]),
                );
            }
            _ => return Gone,
        }
    }
    Gone
}

/// How often a caller is looked for whose input the command does not read.
const PROBE: Duration = Duration::from_secs(1);

/// Returns when the caller is gone. While the command does not read its input, the caller's end cannot be
/// read either, because it comes after the input. Sending shows it: an empty piece of output.
async fn probe(frames: &mpsc::Sender<Frame>) -> Gone {
    loop {
        tokio::time::sleep(PROBE).await;
        if frames.send((frame::STDOUT, Vec::new())).await.is_err() {
            return Gone;
        }
    }
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let kind = from.read_u8().await?;
    let length = usize::try_from(from.read_u32().await?).map_err(std::io::Error::other)?;
    if length > frame::MAX_BODY {
        return Err(std::io::Error::other("the frame is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}
