//! Counters in the text format of Prometheus, on an address of their own that no proxy leads to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::credentials::Credentials;

/// The media type of the format, version 0.0.4.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The result of a request, as its metric names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Forwarded,
    Unauthorized,
    Limited,
    Busy,
    Unavailable,
    Slow,
    NotFound,
    Health,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Forwarded,
        Self::Unauthorized,
        Self::Limited,
        Self::Busy,
        Self::Unavailable,
        Self::Slow,
        Self::NotFound,
        Self::Health,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Unauthorized => "unauthorized",
            Self::Limited => "limited",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Slow => "slow",
            Self::NotFound => "not_found",
            Self::Health => "health",
        }
    }
}

/// The decision about a visitor's request, as its metric names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visited {
    Passed,
    Redirected,
    Login,
    Refused,
    Unavailable,
}

impl Visited {
    const ALL: [Self; 5] = [
        Self::Passed,
        Self::Redirected,
        Self::Login,
        Self::Refused,
        Self::Unavailable,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Redirected => "redirected",
            Self::Login => "login",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The counters. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    requests: Arc<[AtomicU64; Outcome::ALL.len()]>,
    visits: Arc<[AtomicU64; Visited::ALL.len()]>,
    in_progress: Arc<AtomicU64>,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub(crate) struct InProgress(Arc<AtomicU64>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request.
    pub(crate) fn count(&self, outcome: Outcome) {
        for (counted, counter) in Outcome::ALL.iter().zip(self.requests.iter()) {
            if *counted == outcome {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a visitor's request to a preview that is not public.
    pub(crate) fn count_visit(&self, visited: Visited) {
        for (counted, counter) in Visited::ALL.iter().zip(self.visits.iter()) {
            if *counted == visited {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a request that innkeeperd responds to, until the result is dropped.
    pub(crate) fn begin(&self) -> InProgress {
        self.in_progress.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(&self.in_progress))
    }

    fn text(&self, credentials: &Credentials) -> String {
        let mut text = String::new();
        metric(
            &mut text,
            "requests_total",
            "counter",
            "Requests by their result.",
        );
        for (outcome, counter) in Outcome::ALL.iter().zip(self.requests.iter()) {
            let count = counter.load(Ordering::Relaxed);
            let result = outcome.as_str();
            line(
                &mut text,
                format_args!("requests_total{{result=\"{result}\"}}"),
                count,
            );
        }
        metric(
            &mut text,
            "visits_total",
            "counter",
            "Requests to previews that are not public, by the decision.",
        );
        for (visited, counter) in Visited::ALL.iter().zip(self.visits.iter()) {
            let result = visited.as_str();
            line(
                &mut text,
                format_args!("visits_total{{result=\"{result}\"}}"),
                counter.load(Ordering::Relaxed),
            );
        }
        let gauges = [
            (
                "requests_in_progress",
                "Requests and tunnels that innkeeperd responds to now.",
                Some(self.in_progress.load(Ordering::Relaxed)),
            ),
            (
                "failing_addresses",
                "Addresses whose requests had no valid token lately.",
                u64::try_from(credentials.failing_addresses()).ok(),
            ),
            (
                "tokens",
                "Tokens of innkeeperd; absent while they are not known.",
                credentials
                    .tokens()
                    .and_then(|count| u64::try_from(count).ok()),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                metric(&mut text, name, "gauge", help);
                line(&mut text, format_args!("{name}"), value);
            }
        }
        text
    }
}

/// Writes the head of a metric.
fn metric(text: &mut String, name: &str, kind: &str, help: &str) {
    let name = format!("innkeeper_gateway_{name}");
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

fn line(text: &mut String, name: std::fmt::Arguments<'_>, value: u64) {
    text.push_str(&format!("innkeeper_gateway_{name} {value}\n"));
}

/// Returns the service of the address for metrics.
pub(crate) fn router(metrics: Metrics, credentials: Arc<Credentials>) -> Router {
    Router::new()
        .route("/metrics", get(show))
        .with_state((metrics, credentials))
}

async fn show(
    State((metrics, credentials)): State<(Metrics, Arc<Credentials>)>,
) -> impl IntoResponse {
    ([(CONTENT_TYPE, FORMAT)], metrics.text(&credentials))
}
