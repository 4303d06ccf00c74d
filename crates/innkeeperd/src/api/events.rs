//! The stream of events: first the stored ones, then new ones.

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
use utoipa::IntoParams;

use super::private::Sight;
use super::response::{end, name};
use super::{Caller, Context, visible};
use crate::api_error::ApiError;

/// The events that a call selects.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// The operation. The stream ends with it.
    operation: Option<i64>,
    /// The guest.
    guest: Option<String>,
    /// The number of the last event that the client has received.
    after: Option<i64>,
    /// True to receive new events too.
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(
    State(context): State<Context>,
    caller: Caller,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Frame, Infallible>>>, ApiError> {
    let last_seen = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let operation = query.operation.map(OperationId);
    let mut is_own = false;
    if let Some(id) = operation {
        // Fails for an unknown operation: its stream would never end.
        let operation = visible::require_operation(&context, &caller, id).await?;
        is_own = operation.actor == caller.actor();
    }
    let end = end(&context, &caller);
    let (sender, receiver) = mpsc::channel(64);
    let event_stream = EventStream {
        engine: context.engine.clone(),
        sight: Sight::of(&context),
        caller,
        operation,
        is_own,
        guest: query.guest.as_deref().map(name).transpose()?,
        follow: query.follow,
        after: last_seen.or(query.after).unwrap_or(0),
        sender,
    };
    tokio::spawn(async move {
        tokio::select! {
            () = end => {}
            _ = event_stream.run() => {}
        }
    });
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default()))
}

/// The number of events that are read from the store at a time.
const PAGE: usize = 256;

struct EventStream {
    engine: Engine,
    sight: Sight,
    caller: Caller,
    operation: Option<OperationId>,
    /// True if the caller requested the operation.
    is_own: bool,
    guest: Option<GuestName>,
    follow: bool,
    after: i64,
    sender: mpsc::Sender<Result<Frame, Infallible>>,
}

/// The end of the stream: the client is gone, the operation has ended, or the store cannot be read.
struct End;

impl EventStream {
    async fn run(mut self) -> Result<(), End> {
        // Subscribes before it reads the store: events in between would be lost.
        let mut live = self.engine.journal().subscribe();
        self.catch_up().await?;
        while self.follow {
            match live.recv().await {
                Ok(event) if event.seq == 0 || event.seq > self.after => {
                    if self.matches(&event) {
                        self.send(&event).await?;
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.catch_up().await?,
                Err(RecvError::Closed) => return Err(End),
            }
        }
        Ok(())
    }

    /// Sends the stored events, and ends the stream if the operation has ended.
    async fn catch_up(&mut self) -> Result<(), End> {
        // Read before the events: if the operation has ended, they include its last event, unless the daemon was
        // killed just before that event was written.
        let ended = self.ended().await?;
        loop {
            let filter = EventFilter {
                after: self.after,
                operation: self.operation,
                guest: self.guest.clone(),
                limit: PAGE,
                newest: false,
            };
            let page = self.engine.store().events(filter).await.map_err(|_| End)?;
            for event in &page {
                self.send(event).await?;
                self.after = event.seq;
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

    /// Returns the last event of the operation if it has ended.
    async fn ended(&self) -> Result<Option<Event>, End> {
        let Some(id) = self.operation else {
            return Ok(None);
        };
        let operation = self.engine.operation(id).await.map_err(|_| End)?;
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

    fn matches(&self, event: &Event) -> bool {
        let same_operation = self.operation.is_none() || event.operation == self.operation;
        let same_guest = self.guest.is_none() || event.guest == self.guest;
        same_operation && same_guest
    }

    /// Sends an event that the caller may see.
    async fn send(&mut self, event: &Event) -> Result<(), End> {
        // The caller may see its operation, whatever its guest.
        if self.operation.is_none() {
            let store = self.engine.store();
            let sees = visible::sees_event(store, &self.caller, event.guest.as_ref());
            if !sees.await.map_err(|_| End)? {
                return Ok(());
            }
        }
        if !self.is_own {
            let (guest, id) = (event.guest.as_ref(), event.operation);
            let sees = self.sight.operation(&self.caller, guest, id);
            match sees.await.map_err(|_| End)? {
                true => {}
                // The rest of an operation is that of a guest that is gone or has been closed.
                false if self.operation.is_some() => return Err(End),
                false => return Ok(()),
            }
        }
        let frame = Frame::default().json_data(event).map_err(|_| End)?;
        let frame = match event.seq {
            0 => frame,
            seq => {
                self.after = seq;
                frame.id(seq.to_string())
            }
        };
        self.sender.send(Ok(frame)).await.map_err(|_| End)?;
        if self.operation.is_some() && event.kind.is_final() {
            return Err(End);
        }
        Ok(())
    }
}
