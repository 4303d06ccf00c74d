//! The daemon's stream of events, across restarts of the daemon.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use hyper::body::Incoming;
use innkeeper_model::{Code, Event, Failure, GuestName, Kind, OperationId};
use tokio::time::Instant;

use crate::client::{Client, next_piece};
use crate::failure::{CommandError, not_understood};
use crate::sse::Parser;

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) operation: Option<OperationId>,
    pub(crate) guest: Option<GuestName>,
    /// Only events with a higher number.
    pub(crate) after: i64,
    /// Whether to wait for more.
    pub(crate) follow: bool,
}

impl Filter {
    fn path(&self) -> String {
        let mut path = format!("/v1/events?after={}&follow={}", self.after, self.follow);
        // Writing to a string does not fail.
        if let Some(operation) = self.operation {
            write!(path, "&operation={operation}").ok();
        }
        if let Some(guest) = &self.guest {
            write!(path, "&guest={guest}").ok();
        }
        path
    }
}

/// How long a daemon may be away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From the last sign of life until it is given up.
    pub(crate) limit: Duration,
    /// Between two attempts to reach it.
    pub(crate) pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(60),
            pause: Duration::from_millis(200),
        }
    }
}

/// A stream of events. While it follows, it takes up a broken connection again after the last event seen, so
/// that none is missed and none comes twice.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    client: &'a Client,
    filter: Filter,
    patience: Patience,
    body: Option<Incoming>,
    parser: Parser,
    ready: VecDeque<Event>,
    /// The last sign of life. Nothing before the first one, unless the daemon is known to have been there.
    alive: Option<Instant>,
}

impl<'a> Events<'a> {
    /// A stream that fails at once when the daemon is not there to begin with.
    pub(crate) fn new(client: &'a Client, filter: Filter) -> Self {
        Self {
            client,
            filter,
            patience: Patience::default(),
            body: None,
            parser: Parser::default(),
            ready: VecDeque::new(),
            alive: None,
        }
    }

    /// The events of an operation from its beginning. The daemon accepted it, so it has been there.
    pub(crate) fn of_operation(
        client: &'a Client,
        operation: OperationId,
        patience: Patience,
    ) -> Self {
        let filter = Filter {
            operation: Some(operation),
            ..Filter::default()
        };
        Self::of_something_accepted(client, filter, patience)
    }

    /// All events of a guest, without end. The daemon accepted something that concerns it.
    pub(crate) fn of_guest(client: &'a Client, guest: &GuestName) -> Self {
        let filter = Filter {
            guest: Some(guest.clone()),
            ..Filter::default()
        };
        Self::of_something_accepted(client, filter, Patience::default())
    }

    fn of_something_accepted(client: &'a Client, filter: Filter, patience: Patience) -> Self {
        let filter = Filter {
            follow: true,
            ..filter
        };
        Self {
            patience,
            alive: Some(Instant::now()),
            ..Self::new(client, filter)
        }
    }

    /// The next event; nothing at the end of a stream that does not follow.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, CommandError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.filter.after = self.filter.after.max(event.seq);
                return Ok(Some(event));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if !self.filter.follow => return Ok(None),
                Ok(false) => self.reconnect(ended()).await?,
                Err(CommandError::Failure(failure))
                    if self.filter.follow && failure.code.kind() == Kind::Unavailable =>
                {
                    self.reconnect(failure).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads one piece of the stream; `false` at its end.
    async fn read(&mut self) -> Result<bool, CommandError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.client.stream(&self.filter.path()).await?,
        };
        let Some(piece) = next_piece(self.client, &mut body).await? else {
            return Ok(false);
        };
        self.body = Some(body);
        let messages = self
            .parser
            .push(&piece)
            .map_err(|error| not_understood(&error.to_string()))?;
        for message in messages {
            let event: Event = serde_json::from_str(&message)
                .map_err(|error| not_understood(&format!("event {message}: {error}")))?;
            self.ready.push_back(event);
        }
        self.alive = Some(Instant::now());
        Ok(true)
    }

    /// Waits before the next attempt to connect, or gives up with the reason why the last one failed.
    async fn reconnect(&mut self, failure: Failure) -> Result<(), CommandError> {
        self.body = None;
        self.parser = Parser::default();
        match self.alive {
            Some(alive) if alive.elapsed() < self.patience.limit => {
                tokio::time::sleep(self.patience.pause).await;
                Ok(())
            }
            _ => Err(failure.into()),
        }
    }
}

fn ended() -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        "innkeeperd ended the stream of events",
    )
    .with_remedy("`systemctl status innkeeper` tells whether it runs.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_stands_in_the_query() {
        assert_eq!(Filter::default().path(), "/v1/events?after=0&follow=false");
        let filter = Filter {
            operation: Some(OperationId(7)),
            guest: Some(GuestName::parse("web").expect("a name")),
            after: 12,
            follow: true,
        };
        assert_eq!(
            filter.path(),
            "/v1/events?after=12&follow=true&operation=7&guest=web"
        );
    }
}
