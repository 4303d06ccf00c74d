//! The body of a request, on its way to innkeeperd: each piece as it arrives.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream::poll_fn;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The number of bytes that are read after the response, so that its sender receives the response: a web server that cannot
/// send a body to its end may discard the response to it.
const MAX_REST: usize = 32 << 20;

/// Limits for the pieces of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Timeout for the next piece.
    pub(crate) piece: Duration,
    /// Timeout for innkeeperd to take a piece.
    pub(crate) stall: Duration,
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Uploaded {
    /// It was read to its end, or its receiver did not want the rest.
    Ended,
    /// The client sent nothing for too long, or is gone.
    Broken,
}

/// Returns a body that passes on another one, and the task that does so. The task goes on when the body is dropped, and reads
/// the rest.
pub(crate) fn pass_on(body: Body, pace: Pace) -> (Body, JoinHandle<Uploaded>) {
    let (sender, mut receiver) = mpsc::channel(1);
    let task = tokio::spawn(read(body, sender, pace));
    (
        Body::from_stream(poll_fn(move |cx| receiver.poll_recv(cx))),
        task,
    )
}

/// Reads the body of a request that is not passed on, in a task of its own. `held` is dropped at its end.
pub(crate) fn discard(body: Body, pace: Pace, held: impl Send + 'static) {
    if !body.is_end_stream() {
        tokio::spawn(async move {
            discard_rest(body, pace.piece).await;
            drop(held);
        });
    }
}

async fn read(
    mut body: Body,
    sender: mpsc::Sender<Result<Bytes, Interrupted>>,
    pace: Pace,
) -> Uploaded {
    loop {
        let data = match timeout(pace.piece, body.frame()).await {
            Ok(None) => return Uploaded::Ended,
            // Trailers are not passed on.
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(_))) | Err(_) => {
                // The receiver must not take this for the end.
                drop(timeout(pace.stall, sender.send(Err(Interrupted))).await);
                return Uploaded::Broken;
            }
        };
        if data.is_empty() {
            continue;
        }
        match timeout(pace.stall, sender.send(Ok(data))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => {
                drop(sender);
                discard_rest(body, pace.piece).await;
                return Uploaded::Ended;
            }
        }
    }
}

/// Reads up to [`MAX_REST`] bytes, and for as long as one piece may take.
async fn discard_rest(mut body: Body, limit: Duration) {
    let rest = async {
        let mut length = 0;
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > MAX_REST {
                break;
            }
        }
    };
    drop(timeout(limit, rest).await);
}

/// The body ended early.
#[derive(Debug, thiserror::Error)]
#[error("the request's body ended early")]
struct Interrupted;
