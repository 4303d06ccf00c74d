//! A load generator: many deliveries over concurrent connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::{Client, Response};
use super::payload::RawDelivery;

/// The result of sending one delivery.
#[derive(Clone, Debug)]
pub(crate) struct SendResult {
    /// Its index in the list of deliveries.
    pub(crate) index: usize,
    /// The response. `None` if the connection failed.
    pub(crate) response: Option<Response>,
    /// Time from the first byte sent to the last one received.
    pub(crate) duration: Duration,
}

impl SendResult {
    /// Returns the response's status, or 0 if the connection failed.
    pub(crate) fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status)
    }
}

/// A running storm of deliveries.
pub(crate) struct Storm {
    answered: Arc<AtomicUsize>,
    workers: Vec<tokio::task::JoinHandle<Vec<SendResult>>>,
    start: Instant,
}

/// Starts to send each delivery once, approximately in order.
pub(crate) fn storm(address: SocketAddr, all: &Arc<Vec<RawDelivery>>, connections: usize) -> Storm {
    let next = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(AtomicUsize::new(0));
    let worker = || {
        let (all, next, count) = (Arc::clone(all), Arc::clone(&next), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut client = Client::new(address);
            let mut results = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(sent) = all.get(index) else {
                    return results;
                };
                let start = Instant::now();
                let response = client.deliver(sent).await.ok();
                let duration = start.elapsed();
                results.push(SendResult {
                    index,
                    response,
                    duration,
                });
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let workers = (0..connections).map(|_| worker()).collect();
    Storm {
        answered,
        workers,
        start: Instant::now(),
    }
}

impl Storm {
    /// Waits until `count` deliveries have been answered.
    pub(crate) async fn wait_for(&self, count: usize) {
        while self.answered.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for the end, and returns the results and the total duration.
    pub(crate) async fn finish(self) -> (Vec<SendResult>, Duration) {
        let mut results = Vec::new();
        for worker in self.workers {
            results.extend(worker.await.expect("ends"));
        }
        (results, self.start.elapsed())
    }
}

/// Returns the rate of accepted deliveries per second, and the median and the 99th percentile of their durations.
pub(crate) fn figures(results: &[SendResult], took: Duration) -> (f64, Duration, Duration) {
    let mut times: Vec<_> = results
        .iter()
        .filter(|result| result.status() == 202)
        .map(|result| result.duration)
        .collect();
    times.sort();
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let percentile = |percent: usize| {
        let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default()
    };
    let rate = f64::from(count) / took.as_secs_f64();
    (rate, percentile(50), percentile(99))
}
