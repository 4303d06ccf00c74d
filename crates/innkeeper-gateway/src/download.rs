//! The body of innkeeperd's response, on its way to the client: each piece as it arrives.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use innkeeper_service::server::Link;

/// The content type of events. A client resumes them after the last one that it received.
const EVENTS: &[u8] = b"text/event-stream";

/// Returns the body of a response. `held` is dropped at its end. Events end when the program stops; other bodies are
/// canceled after the grace period, so that no client takes a part for the whole.
pub(crate) fn body(
    incoming: Incoming,
    headers: &HeaderMap,
    link: &Link,
    held: impl Send + Unpin + 'static,
) -> Body {
    let kind = headers.get(header::CONTENT_TYPE);
    let are_events = kind.is_some_and(|kind| kind.as_bytes().starts_with(EVENTS));
    let end: Option<End> = are_events.then(|| {
        let mut link = link.clone();
        let end: End = Box::pin(async move { link.stopped().await });
        end
    });
    Body::new(Download {
        incoming,
        end,
        _held: held,
    })
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Download<H> {
    incoming: Incoming,
    /// Ready when the body has to end.
    end: Option<End>,
    _held: H,
}

impl<H: Unpin> HttpBody for Download<H> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        match &mut self.end {
            Some(end) => end.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
