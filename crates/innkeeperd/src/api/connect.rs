//! Connections to ports of guests, as frames over an upgraded connection.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::response::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use innkeeper_engine::EngineError;
use innkeeper_model::api::connect as frame;
use innkeeper_model::{Code, Failure, GuestName};
use innkeeper_preview::Previews;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify};
use tracing::debug;
use utoipa::IntoParams;

use super::agent::Agent;
use super::exec::{read_frame, requested_upgrade, switching};
use super::previews::OnePreview;
use super::{Caller, Context};
use crate::api_error::ApiError;

/// Maximum number of attempts to connect to a guest that is paused each time.
const ATTEMPTS: u32 = 10;

/// Pause between attempts while the caller waits for the port.
const PAUSE: Duration = Duration::from_millis(100);

/// Interval of probes for a caller whose data the guest does not read.
const PROBE: Duration = Duration::from_secs(1);

/// The port in a call's path.
pub(super) struct Port(u16);

impl FromRequestParts<Context> for Port {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, ApiError> {
        let parameters = Path::<HashMap<String, String>>::from_request_parts(parts, context).await;
        let port = parameters.ok().and_then(|Path(parameters)| {
            let port = parameters.get("port")?.parse().ok()?;
            (port > 0).then_some(Self(port))
        });
        port.ok_or_else(|| {
            let message = "the path does not end with the number of a port";
            ApiError(
                Failure::new(Code::InvalidRequest, message)
                    .with_remedy("Use a number from 1 to 65535."),
            )
        })
    }
}

/// The time to wait for the port.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Seconds to wait for the port to open, at most 60.
    #[serde(default)]
    wait: u64,
}

impl Wait {
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.wait.min(frame::MAX_WAIT))
    }
}

pub(super) async fn connect(
    State(context): State<Context>,
    caller: Caller,
    Agent(guest): Agent,
    Port(port): Port,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let guest = Guest {
        name: &guest,
        previews: None,
    };
    begin(&context, guest, port, &wait, request, &caller).await
}

pub(super) async fn connect_to_preview(
    State(context): State<Context>,
    caller: Caller,
    OnePreview(previews, slug): OnePreview,
    Port(port): Port,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let name = previews.guest(&slug).await?.guest.name;
    let guest = Guest {
        name: &name,
        previews: Some(&previews),
    };
    begin(&context, guest, port, &wait, request, &caller).await
}

/// A guest. `previews` are given for a preview's.
#[derive(Clone, Copy)]
struct Guest<'a> {
    name: &'a GuestName,
    previews: Option<&'a Previews>,
}

async fn begin(
    context: &Context,
    guest: Guest<'_>,
    port: u16,
    wait: &Wait,
    mut request: Request,
    caller: &Caller,
) -> Result<Response, ApiError> {
    let upgrade = requested_upgrade(&mut request, frame::PROTOCOL)?;
    // Before the wake: a guest in use is not paused again by itself.
    let open = context.engine.open_session(guest.name);
    let stream = connect_awake(context, guest, port, wait.deadline(), &caller.actor()).await?;
    let ended = caller.ended();
    tokio::spawn(async move {
        // The guest is in use until the end.
        let _open = open;
        let carried = async { carry(upgrade.await.map_err(io::Error::other)?, stream).await };
        tokio::select! {
            carried = carried => if let Err(error) = carried {
                debug!(%error, port, "a connection to a guest broke");
            },
            () = ended => {}
        }
    });
    Ok(switching(frame::PROTOCOL))
}

/// Connects to a guest after waking it; again if a user pauses it in between, or until the port is open.
async fn connect_awake(
    context: &Context,
    guest: Guest<'_>,
    port: u16,
    deadline: Instant,
    actor: &str,
) -> Result<TcpStream, ApiError> {
    let mut attempts = 0;
    loop {
        match guest.previews {
            Some(previews) => previews.awaken_guest(guest.name, actor).await?,
            None => context.engine.awaken(guest.name, actor).await?,
        };
        match context.engine.connect(guest.name, port).await {
            Err(EngineError::Resting { .. }) if attempts < ATTEMPTS => attempts += 1,
            Err(EngineError::PortClosed { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            stream => {
                let stream = TcpStream::from_std(stream?);
                return stream.map_err(|error| {
                    let message = format!("cannot use a connection: {error}");
                    ApiError(Failure::new(Code::Internal, message))
                });
            }
        }
    }
}

/// Carries data both ways until both directions have ended, or one side is gone.
async fn carry(connection: Upgraded, guest: TcpStream) -> io::Result<()> {
    let (from_caller, to_caller) = tokio::io::split(TokioIo::new(connection));
    let (from_guest, to_guest) = guest.into_split();
    let (to_caller, ended) = (Mutex::new(to_caller), Notify::new());
    let outward = async {
        send(from_guest, &to_caller).await?;
        ended.notified().await;
        to_caller.lock().await.shutdown().await
    };
    tokio::select! {
        carried = outward => carried,
        Err(gone) = receive(from_caller, to_guest, &to_caller, &ended) => Err(gone),
    }
}

/// Sends the guest's data, and the end of it.
async fn send(
    mut from: impl AsyncRead + Unpin,
    to: &Mutex<impl AsyncWrite + Unpin>,
) -> io::Result<()> {
    let mut buffer = vec![0; frame::MAX_BODY / 2];
    loop {
        let length = from.read(&mut buffer).await?;
        write_frame(&mut *to.lock().await, frame::DATA, &buffer[..length]).await?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// Passes the caller's data on. Reads until the caller is gone, which is an error also after the end of its data: the other
/// direction may wait for the guest.
async fn receive(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    to_caller: &Mutex<impl AsyncWrite + Unpin>,
    ended: &Notify,
) -> io::Result<()> {
    let mut to = Some(to);
    loop {
        let (kind, body) = read_frame(&mut from).await?;
        match (&mut to, kind, body.as_slice()) {
            (Some(writer), frame::DATA, []) => {
                writer.shutdown().await?;
                to = None;
                ended.notify_one();
            }
            (Some(writer), frame::DATA, body) => {
                tokio::select! {
                    written = writer.write_all(body) => written?,
                    Err(gone) = probe(to_caller) => return Err(gone),
                }
            }
            _ => return Err(io::Error::other("the caller sent an unexpected frame")),
        }
    }
}

/// Returns when the caller is gone. While the guest does not read, the end of the connection behind the caller's data cannot
/// be read either.
async fn probe(to_caller: &Mutex<impl AsyncWrite + Unpin>) -> io::Result<()> {
    loop {
        tokio::time::sleep(PROBE).await;
        write_frame(&mut *to_caller.lock().await, frame::PROBE, &[]).await?;
    }
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), kind: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(kind);
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    to.write_all(&bytes).await?;
    to.flush().await
}
