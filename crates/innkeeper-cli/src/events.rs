//! The daemon's event stream, with reconnection after a restart of the daemon.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use hyper::body::Incoming;
use innkeeper_model::{Code, Event, Failure, GuestName, Kind, OperationId};
use tokio::time::Instant;

use crate::client::Client;
use crate::failure::{CommandError, unexpected_response};
use crate::sse::Parser;

/// Selection of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) operation: Option<OperationId>,
    pub(crate) guest: Option<GuestName>,
    /// Select events with a higher number.
    pub(crate) after: i64,
    /// Wait for new events.
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

/// Timeout and interval of reconnection attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReconnectPolicy {
    /// Time from the last received data until the connection is given up.
    pub(crate) timeout: Duration,
    /// Pause between two attempts.
    pub(crate) interval: Duration,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            interval: Duration::from_millis(200),
        }
    }
}

/// A stream of events. If it follows, it resumes a broken connection after the last received event, so that no event is
/// lost or repeated.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    client: &'a Client,
    filter: Filter,
    policy: ReconnectPolicy,
    body: Option<Incoming>,
    parser: Parser,
    ready: VecDeque<Event>,
    /// Time of the last received data. `None` before the first data: then a failed connection is not retried.
    last_received: Option<Instant>,
}

impl<'a> Events<'a> {
    /// Creates a stream that fails at once if the first connection fails.
    pub(crate) fn new(client: &'a Client, filter: Filter) -> Self {
        Self {
            client,
            filter,
            policy: ReconnectPolicy::default(),
            body: None,
            parser: Parser::default(),
            ready: VecDeque::new(),
            last_received: None,
        }
    }

    /// Follows an accepted operation from its beginning. Retries the first connection too.
    pub(crate) fn of_operation(
        client: &'a Client,
        operation: OperationId,
        policy: ReconnectPolicy,
    ) -> Self {
        let filter = Filter {
            operation: Some(operation),
            ..Filter::default()
        };
        Self::following(client, filter, policy)
    }

    /// Follows a guest from its first event, without end. Retries the first connection too.
    pub(crate) fn of_guest(client: &'a Client, guest: &GuestName) -> Self {
        let filter = Filter {
            guest: Some(guest.clone()),
            ..Filter::default()
        };
        Self::following(client, filter, ReconnectPolicy::default())
    }

    fn following(client: &'a Client, filter: Filter, policy: ReconnectPolicy) -> Self {
        let filter = Filter {
            follow: true,
            ..filter
        };
        Self {
            policy,
            last_received: Some(Instant::now()),
            ..Self::new(client, filter)
        }
    }

    /// Returns the next event, or `None` at the end of a stream that does not follow.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, CommandError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.filter.after = self.filter.after.max(event.seq);
                return Ok(Some(event));
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if !self.filter.follow => return Ok(None),
                Ok(false) => self.reconnect(stream_ended(self.client)).await?,
                Err(CommandError::Failure(failure))
                    if self.filter.follow && failure.code.kind() == Kind::Unavailable =>
                {
                    self.reconnect(failure).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a chunk of the stream. Returns `false` at its end.
    async fn read(&mut self) -> Result<bool, CommandError> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.client.stream(&self.filter.path()).await?,
        };
        let Some(chunk) = self.client.next_chunk(&mut body).await? else {
            return Ok(false);
        };
        self.body = Some(body);
        let messages = self
            .parser
            .push(&chunk)
            .map_err(|error| unexpected_response(&error.to_string()))?;
        for message in messages {
            let event: Event = serde_json::from_str(&message)
                .map_err(|error| unexpected_response(&format!("event {message}: {error}")))?;
            self.ready.push_back(event);
        }
        self.last_received = Some(Instant::now());
        Ok(true)
    }

    /// Waits before the next connection attempt, or returns `failure` after the timeout.
    async fn reconnect(&mut self, failure: Failure) -> Result<(), CommandError> {
        self.body = None;
        self.parser = Parser::default();
        match self.last_received {
            Some(last) if last.elapsed() < self.policy.timeout => {
                tokio::time::sleep(self.policy.interval).await;
                Ok(())
            }
            _ => Err(failure.into()),
        }
    }
}

fn stream_ended(client: &Client) -> Failure {
    Failure::new(
        Code::DaemonUnreachable,
        "innkeeperd closed the event stream",
    )
    .with_remedy(client.check_remedy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_query_contains_only_set_fields() {
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
