//! Commands in guests, over an upgraded connection that carries frames in both directions.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{join, try_join};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use innkeeper_engine::EngineError;
use innkeeper_facilities::ExecSession;
use innkeeper_model::api::{ExecRequest, exec as frame};
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::Previews;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::debug;

use super::agent::Agent;
use super::previews::OnePreview;
use super::response::body;
use super::{Caller, Context};
use crate::api_error::ApiError;

/// The maximum number of attempts to run a command in a guest that is paused each time.
const ATTEMPTS: u32 = 10;

pub(super) async fn exec(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    request: Request,
) -> Result<Response, ApiError> {
    begin(&context, &guest, None, request, &caller).await
}

pub(super) async fn exec_in_preview(
    State(context): State<Context>,
    caller: Caller,
    OnePreview(previews, slug): OnePreview,
    request: Request,
) -> Result<Response, ApiError> {
    let guest = previews.guest(&slug).await?.guest.name;
    begin(&context, &guest, Some(&previews), request, &caller).await
}

/// `previews` are given for a preview's guest.
async fn begin(
    context: &Context,
    guest: &GuestName,
    previews: Option<&Previews>,
    mut request: Request,
    caller: &Caller,
) -> Result<Response, ApiError> {
    let upgrade = requested_upgrade(&mut request, frame::PROTOCOL)?;
    let bytes = read_body(request.into_body()).await?;
    let exec: ExecRequest = body(&bytes)?;
    // Before the wake: a guest in use is not paused again by itself.
    let open = context.engine.open_session(guest);
    let session = exec_awake(context, guest, previews, &exec, &caller.actor()).await?;
    let record = context.engine.guest(guest).await?;
    let engine = context.engine.clone();
    let killed = move |session: &ExecSession| {
        let (kills, all) = session.command.oom_kills();
        engine.record_oom_kills(&record, all);
        (kills > 0).then(|| format!("{}. {}", record.oom_finding(kills), record.oom_remedy()))
    };
    let ended = caller.ended();
    tokio::spawn(async move {
        // The guest is in use until the end.
        let _open = open;
        match upgrade.await {
            Ok(connection) => tokio::select! {
                () = transfer(connection, session, killed) => {}
                () = ended => {}
            },
            Err(error) => debug!(%error, "the client disconnected before the command started"),
        }
    });
    Ok(switching(frame::PROTOCOL))
}

/// Returns the response that switches the connection to a protocol.
pub(super) fn switching(protocol: &'static str) -> Response {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(protocol)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Runs a command in a guest after waking it; again if a user pauses it in between.
async fn exec_awake(
    context: &Context,
    guest: &GuestName,
    previews: Option<&Previews>,
    exec: &ExecRequest,
    actor: &str,
) -> Result<ExecSession, ApiError> {
    let engine = &context.engine;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match previews {
            Some(previews) => previews.awaken_guest(guest, actor).await?,
            None => engine.awaken(guest, actor).await?,
        };
        engine.await_services(guest).await;
        match engine.exec(guest, exec).await {
            Err(EngineError::Resting { .. }) if attempts < ATTEMPTS => {}
            result => return Ok(result?),
        }
    }
}

/// Returns the upgrade of a request that asks for a protocol.
pub(super) fn requested_upgrade(
    request: &mut Request,
    protocol: &str,
) -> Result<OnUpgrade, ApiError> {
    let is_requested = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|value| value == protocol);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    match upgrade {
        Some(upgrade) if is_requested => Ok(upgrade),
        _ => Err(ApiError(Failure::new(
            Code::InvalidRequest,
            format!("this call needs the header Upgrade: {protocol}"),
        ))),
    }
}

async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, super::BODY_LIMIT)
        .await
        .map_err(|error| {
            ApiError(Failure::new(
                Code::InvalidRequest,
                format!("the request cannot be read: {error}"),
            ))
        })
}

/// Transfers frames until the command has ended and its output is sent, or the client is gone. In either case, dropping
/// the session kills the rest of the command.
///
/// `killed` returns a note about processes that the kernel killed in the meantime for lack of memory.
async fn transfer(
    connection: Upgraded,
    mut session: ExecSession,
    killed: impl Fn(&ExecSession) -> Option<String>,
) {
    let (from_client, to_client) = tokio::io::split(TokioIo::new(connection));
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
        // A command may close its outputs and continue.
        let (output, status) = join(try_join(output, error), session.command.wait()).await;
        output.map(|_| status.unwrap_or(255))
    };
    let input = receive(from_client, stdin, &session, &frames);
    let sending = tokio::spawn(send(to_client, outgoing));
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

/// The kind and the body of a frame.
type Frame = (u8, Vec<u8>);

/// The client has closed the connection.
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

/// Processes the client's frames until the client is gone. After the end of its input, the client still receives output.
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
                // The command has closed its input, and may continue without it.
                if written.is_err() {
                    stdin = None;
                }
            }
            (frame::RESIZE, [r1, r0, c1, c0]) => {
                session.command.resize(
                    u16::from_be_bytes([*r1, *r0]),
                    u16::from_be_bytes([*c1, *c0]),
                );
            }
            _ => return Gone,
        }
    }
    Gone
}

/// The interval of probes for a client whose input the command does not read.
const PROBE: Duration = Duration::from_secs(1);

/// Returns when the client is gone. While the command does not read its input, the end of the connection behind that
/// input cannot be read either. So this sends empty pieces of output until sending fails.
async fn probe(frames: &mpsc::Sender<Frame>) -> Gone {
    loop {
        tokio::time::sleep(PROBE).await;
        if frames.send((frame::STDOUT, Vec::new())).await.is_err() {
            return Gone;
        }
    }
}

pub(super) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Frame> {
    let kind = from.read_u8().await?;
    let length = usize::try_from(from.read_u32().await?).map_err(std::io::Error::other)?;
    if length > frame::MAX_BODY {
        return Err(std::io::Error::other("the frame is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}
