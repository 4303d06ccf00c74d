//! Coalesces concurrent work on the same key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use innkeeper_facilities::ProgressSink;
use innkeeper_model::BuildProgress;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Minimum interval between two progress reports of a build.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A build and its outcome, shared by all waiters.
pub(crate) type Work<T, E> = BoxFuture<'static, Result<T, Arc<E>>>;

/// Builds in flight by key. The map holds them weakly: a build is canceled when its last waiter is dropped.
pub(crate) struct SingleFlight<K, T, E>(Mutex<HashMap<K, InFlight<T, E>>>);

struct InFlight<T, E> {
    outcome: WeakShared<Work<T, E>>,
    progress: watch::Receiver<BuildProgress>,
}

impl<T, E> InFlight<T, E> {
    /// Reports whether the build has waiters and no outcome yet.
    fn is_pending(&self) -> bool {
        self.outcome
            .upgrade()
            .is_some_and(|outcome| outcome.peek().is_none())
    }
}

impl<K, T, E> Default for SingleFlight<K, T, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Clone, E> SingleFlight<K, T, E> {
    /// Waits for the build of a key, and starts it unless it is in flight. Reports its progress to `sink` at most once per
    /// [`REPORT_INTERVAL`], and the last one always.
    pub(crate) async fn join(
        &self,
        key: &K,
        sink: &ProgressSink,
        start: impl FnOnce(watch::Sender<BuildProgress>) -> Work<T, E>,
    ) -> Result<T, Arc<E>> {
        let (mut outcome, mut progress) = self.get_or_start(key, start);
        let mut is_open = true;
        let mut reported = progress.borrow().clone();
        let mut pause: Option<Instant> = None;
        loop {
            let update = async {
                if let Some(end) = pause {
                    sleep_until(end).await;
                }
                progress.changed().await.is_ok()
            };
            tokio::select! {
                // The outcome first: a builder that floods progress must not delay it.
                biased;
                outcome = &mut outcome => {
                    let last = progress.borrow().clone();
                    if last != reported {
                        sink(last);
                    }
                    return outcome;
                }
                is_update = update, if is_open => {
                    is_open = is_update;
                    if is_update {
                        reported.clone_from(&progress.borrow_and_update());
                        sink(reported.clone());
                        pause = Some(Instant::now() + REPORT_INTERVAL);
                    }
                }
            }
        }
    }

    /// Reports whether the build of a key is in flight.
    pub(crate) fn is_in_flight(&self, key: &K) -> bool {
        self.0.lock().get(key).is_some_and(InFlight::is_pending)
    }

    fn get_or_start(
        &self,
        key: &K,
        start: impl FnOnce(watch::Sender<BuildProgress>) -> Work<T, E>,
    ) -> (Shared<Work<T, E>>, watch::Receiver<BuildProgress>) {
        let mut in_flight = self.0.lock();
        // New callers never join a finished build, even if a waiter has not polled its outcome yet.
        in_flight.retain(|_, build| build.is_pending());
        if let Some(build) = in_flight.get(key)
            && let Some(outcome) = build.outcome.upgrade()
        {
            let mut progress = build.progress.clone();
            // Reports the current progress to the new waiter at once.
            progress.mark_changed();
            return (outcome, progress);
        }
        let (sender, progress) = watch::channel(BuildProgress::default());
        let outcome = start(sender).shared();
        if let Some(weak) = outcome.downgrade() {
            let build = InFlight {
                outcome: weak,
                progress: progress.clone(),
            };
            in_flight.insert(key.clone(), build);
        }
        (outcome, progress)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use innkeeper_model::{Installable, StorePath};
    use tokio::sync::oneshot;

    use super::super::ClosureError;
    use super::*;
    use innkeeper_facilities::Built;

    type Work = super::Work<Built, ClosureError>;

    fn installable() -> Installable {
        Installable::parse("/flake#a", "x").expect("valid")
    }

    fn built(fingerprint: &str) -> Built {
        let closure = StorePath::parse("/nix/store/00000000000000000000000000000000-a");
        Built {
            closure: closure.expect("valid"),
            fingerprint: fingerprint.to_owned(),
        }
    }

    fn no_progress() -> ProgressSink {
        Arc::new(|_| {})
    }

    /// Counts started builds, and finishes them on request.
    struct Builder {
        started: AtomicUsize,
        gates: Mutex<Vec<oneshot::Sender<()>>>,
    }

    impl Builder {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                started: AtomicUsize::new(0),
                gates: Mutex::new(Vec::new()),
            })
        }

        fn start(self: &Arc<Self>) -> impl FnOnce(watch::Sender<BuildProgress>) -> Work + use<> {
            let builder = Arc::clone(self);
            move |progress| {
                let number = builder.started.fetch_add(1, Ordering::SeqCst);
                let (gate, opened) = oneshot::channel();
                builder.gates.lock().push(gate);
                async move {
                    progress.send_modify(|now| now.built = 1);
                    opened.await.ok();
                    Ok(built(&number.to_string()))
                }
                .boxed()
            }
        }

        fn finish(&self, number: usize) {
            let gate = self.gates.lock().remove(number);
            gate.send(()).expect("waits");
        }

        fn is_canceled(&self, number: usize) -> bool {
            self.gates.lock()[number].is_closed()
        }
    }

    #[tokio::test]
    async fn join_shares_a_build_in_flight_but_not_a_finished_one() {
        let (builds, builder, key) = (SingleFlight::default(), Builder::new(), installable());
        let no_progress = no_progress();
        let mut first = Box::pin(builds.join(&key, &no_progress, builder.start()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let (sender, reports) = std::sync::mpsc::channel();
        let sink: ProgressSink = Arc::new(move |progress| sender.send(progress).expect("receives"));
        let mut second = Box::pin(builds.join(&key, &sink, builder.start()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(reports.try_recv().expect("a report").built, 1);
        builder.finish(0);
        assert_eq!(second.await.expect("built"), built("0"));
        // The first waiter has not polled yet, but a new one must not get the finished build.
        let mut third = Box::pin(builds.join(&key, &no_progress, builder.start()));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(first.await.expect("built"), built("0"));
        builder.finish(0);
        assert_eq!(third.await.expect("built"), built("1"));
        assert_eq!(builder.started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn build_is_canceled_when_its_last_waiter_is_dropped() {
        let (builds, builder, key) = (SingleFlight::default(), Builder::new(), installable());
        let no_progress = no_progress();
        let mut first = Box::pin(builds.join(&key, &no_progress, builder.start()));
        let mut second = Box::pin(builds.join(&key, &no_progress, builder.start()));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(!builder.is_canceled(0) && builds.is_in_flight(&key));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        assert!(builder.is_canceled(0) && !builds.is_in_flight(&key));
        let mut third = Box::pin(builds.join(&key, &no_progress, builder.start()));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(builder.started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn progress_is_throttled_and_never_delays_the_outcome() {
        let builds = SingleFlight::<_, _, ClosureError>::default();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink: ProgressSink = {
            let reports = Arc::clone(&reports);
            Arc::new(move |progress| reports.lock().push(progress.built))
        };
        let start = |progress: watch::Sender<BuildProgress>| {
            async move {
                for built in 1..=300 {
                    progress.send_modify(|now| now.built = built);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                progress.send_modify(|now| now.built = 5000);
                Ok(built("done"))
            }
            .boxed()
        };
        let started = Instant::now();
        let outcome = builds.join(&installable(), &sink, start).await;
        outcome.expect("built");
        let limit = started.elapsed().as_millis() / REPORT_INTERVAL.as_millis() + 2;
        let reports = reports.lock();
        assert!(reports.len() >= 2, "{reports:?}");
        assert!(reports.len() as u128 <= limit, "{reports:?}, not {limit}");
        assert_eq!(reports.last(), Some(&5000));
    }
}
