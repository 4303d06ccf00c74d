//! The stream of events: what is stored first, then what happens.

use std::convert::Infallible;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use futures_util::Stream;
use innkeeper_engine::Engine;
use innkeeper_model::{Event, EventKind, Failure, GuestName, OperationId, OperationState};
use innkeeper_store::EventFilter;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Context;
use super::answer::{Refusal, name};

#[derive(Deserialize)]
pub(super) struct EventQuery {
    operation: Option<i64>,
    guest: Option<String>,
    after: Option<i64>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(
    State(context): State<Context>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, Refusal> {
    let last_seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let operation = query.operation.map(OperationId);
    if let Some(id) = operation {
        // A stream about nothing would never end.
        context.engine.operation(id).await?;
    }
    let (sender, receiver) = mpsc::channel(64);
    let telling = Telling {
        engine: context.engine.clone(),
        operation,
        guest: query.guest.as_deref().map(name).transpose()?,
        follow: query.follow,
        after: last_seen.or(query.after).unwrap_or(0),
        sender,
    };
    let stopping = context.stopping;
    tokio::spawn(async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            _ = telling.tell() => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()))
}

/// How many events are read from the store at a time.
const PAGE: usize = 256;

struct Telling {
    engine: Engine,
    operation: Option<OperationId>,
    guest: Option<GuestName>,
    follow: bool,
    after: i64,
    sender: mpsc::Sender<Result<Frame, Infallible>>,
}

/// Nobody listens any more, the stream is at its end, or the store cannot be read: the connection ends.
struct Over;

impl Telling {
    async fn tell(mut self) -> Result<(), Over> {
        // Listens before it reads, so that nothing falls between the two.
        let mut live = self.engine.journal().subscribe();
        self.catch_up().await?;
        while self.follow {
            match live.recv().await {
                Ok(event) if event.seq == 0 || event.seq > self.after => {
                    if self.concerns_us(&event) {
                        self.send(&event).await?;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.catch_up().await?,
                Err(RecvError::Closed) => return Err(Over),
            }
        }
        Ok(())
    }

    /// Tells what is stored; ends the stream if the operation has ended.
    async fn catch_up(&mut self) -> Result<(), Over> {
        // Asked before the events are read: if it has ended by now, its last event is among them, unless
        // the daemon was killed just before it was written.
        let ended = self.ended().await?;
        loop {
            let filter = EventFilter {
                after: self.after,
                operation: self.operation,
                guest: self.guest.clone(),
                limit: PAGE,
                newest: false,
            };
            let page = self.engine.store().events(filter).await.map_err(|_| Over)?;
            for event in &page {
                self.send(event).await?;
            }
            if page.len() < PAGE {
                break;
            }
        }
        match ended {
            Some(event) => self.send(&event).await,
            None => Ok(()),
        }
    }

    /// The last event of an operation that has ended.
    async fn ended(&self) -> Result<Option<Event>, Over> {
        let Some(id) = self.operation else {
            return Ok(None);
        };
        let operation = self.engine.operation(id).await.map_err(|_| Over)?;
        let kind = match operation.state {
            OperationState::Running => return Ok(None),
            OperationState::Done => EventKind::Finished,
            OperationState::Failed => EventKind::Failed {
                failure: operation.failure.unwrap_or_else(|| {
                    Failure::new(innkeeper_model::Code::Internal, "no cause was recorded")
                }),
            },
        };
        Ok(Some(Event {
            seq: 0,
            time: operation.finished_at.unwrap_or(operation.started_at),
            operation: Some(id),
            guest: operation.guest,
            kind,
        }))
    }

    fn concerns_us(&self, event: &Event) -> bool {
        let same_operation = self.operation.is_none() || event.operation == self.operation;
        let same_guest = self.guest.is_none() || event.guest == self.guest;
        same_operation && same_guest
    }

    async fn send(&mut self, event: &Event) -> Result<(), Over> {
        let frame = Frame::default().json_data(event).map_err(|_| Over)?;
        let frame = match event.seq {
            0 => frame,
            seq => {
                self.after = seq;
                frame.id(seq.to_string())
            }
        };
        self.sender.send(Ok(frame)).await.map_err(|_| Over)?;
        if self.operation.is_some() && event.kind.is_final() {
            return Err(Over);
        }
        Ok(())
    }
}
