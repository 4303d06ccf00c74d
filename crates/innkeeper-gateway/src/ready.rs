//! The state of the host, for `/readyz`.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use innkeeper_model::access::ReadyReport;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::forward::Daemon;

/// The time for which a state is remembered: strangers may request it as often as they like.
const AGE: Duration = Duration::from_secs(5);

/// Timeout for innkeeperd's response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum length of innkeeperd's response, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// The state as innkeeperd reported it last.
#[derive(Debug, Default)]
pub(crate) struct Ready(Mutex<Option<(Instant, Vec<String>)>>);

impl Ready {
    /// Returns the parts that do not work. innkeeperd receives one request in five seconds at most.
    pub(crate) async fn failing(&self, daemon: &Daemon) -> Vec<String> {
        let mut state = self.0.lock().await;
        if let Some((at, failing)) = &*state
            && at.elapsed() < AGE
        {
            return failing.clone();
        }
        let asked = timeout(TIMEOUT, ask(daemon)).await;
        let failing = asked
            .ok()
            .flatten()
            .unwrap_or_else(|| vec!["daemon".to_owned()]);
        *state = Some((Instant::now(), failing.clone()));
        failing
    }
}

/// Returns the parts that do not work by innkeeperd's report. `None` when it does not report.
async fn ask(daemon: &Daemon) -> Option<Vec<String>> {
    let response = daemon.get("/v1/ready").await.ok()?;
    let status = response.status();
    if status != StatusCode::OK && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let body = http_body_util::Limited::new(response.into_body(), MAX_LENGTH);
    let body = http_body_util::BodyExt::collect(body).await.ok()?;
    let report: ReadyReport = serde_json::from_slice(&body.to_bytes()).ok()?;
    match report.ready {
        true => Some(Vec::new()),
        false => Some(report.failing),
    }
}
