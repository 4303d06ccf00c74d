//! Many deliveries over some connections at the same time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::client::{Answered, Client};
use super::payload::Sent;

/// What became of one delivery.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// Its place in the list.
    pub(crate) index: usize,
    /// The answer; nothing when the connection broke.
    pub(crate) answered: Option<Answered>,
    /// From the first byte sent to the last one received.
    pub(crate) took: Duration,
}

impl Shot {
    /// The answer's status; 0 when the connection broke.
    pub(crate) fn status(&self) -> u16 {
        self.answered.as_ref().map_or(0, |answered| answered.status)
    }
}

/// A storm under way.
pub(crate) struct Storm {
    answered: Arc<AtomicUsize>,
    workers: Vec<tokio::task::JoinHandle<Vec<Shot>>>,
    start: Instant,
}

/// Sends each delivery once, in about their order.
pub(crate) fn storm(address: SocketAddr, all: &Arc<Vec<Sent>>, connections: usize) -> Storm {
    let next = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(AtomicUsize::new(0));
    let worker = || {
        let (all, next, count) = (Arc::clone(all), Arc::clone(&next), Arc::clone(&answered));
        tokio::spawn(async move {
            let mut client = Client::new(address);
            let mut shots = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(sent) = all.get(index) else {
                    return shots;
                };
                let start = Instant::now();
                let answered = client.deliver(sent).await.ok();
                let took = start.elapsed();
                shots.push(Shot {
                    index,
                    answered,
                    took,
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
    /// Waits until so many have been answered.
    pub(crate) async fn reaches(&self, count: usize) {
        while self.answered.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits for its end, and returns what became of each delivery and how long all took.
    pub(crate) async fn passes(self) -> (Vec<Shot>, Duration) {
        let mut shots = Vec::new();
        for worker in self.workers {
            shots.extend(worker.await.expect("ends"));
        }
        (shots, self.start.elapsed())
    }
}

/// How many a second were answered with 202, and the median and the 99th percentile of their times.
pub(crate) fn figures(shots: &[Shot], took: Duration) -> (f64, Duration, Duration) {
    let mut times: Vec<_> = shots
        .iter()
        .filter(|shot| shot.status() == 202)
        .map(|shot| shot.took)
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
