//! Work on the same thing at the same time is done once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use innkeeper_facilities::ProgressSink;
use innkeeper_model::BuildProgress;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The pause between two reports of a build's progress.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// A build and what comes of it, for all who wait.
pub(crate) type Work<T, E> = BoxFuture<'static, Result<T, Arc<E>>>;

/// The builds that go on, each by what is built. A build lives as long as somebody waits for it: the map
/// holds it weakly, so that it ends when the last one who waits is dropped.
pub(crate) struct Flights<K, T, E>(Mutex<HashMap<K, Flight<T, E>>>);

struct Flight<T, E> {
    outcome: WeakShared<Work<T, E>>,
    progress: watch::Receiver<BuildProgress>,
}

impl<T, E> Flight<T, E> {
    /// Whether somebody waits and there is nothing yet.
    fn goes_on(&self) -> bool {
        self.outcome
            .upgrade()
            .is_some_and(|outcome| outcome.peek().is_none())
    }
}

impl<K, T, E> Default for Flights<K, T, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, T: Clone, E> Flights<K, T, E> {
    /// Waits for a build, which `start` begins unless it goes on already. Reports its progress to `sink` at most once per
    /// [`REPORT_INTERVAL`], and the last one always.
    pub(crate) async fn join(
        &self,
        what: &K,
        sink: &ProgressSink,
        start: impl FnOnce(watch::Sender<BuildProgress>) -> Work<T, E>,
    ) -> Result<T, Arc<E>> {
        let (mut outcome, mut progress) = self.board(what, start);
        let mut is_open = true;
        let mut reported = progress.borrow().clone();
        let mut pause: Option<Instant> = None;
        loop {
            let news = async {
                if let Some(end) = pause {
                    sleep_until(end).await;
                }
                progress.changed().await.is_ok()
            };
            tokio::select! {
                // A builder decides how often there is progress: that must not delay the outcome.
                biased;
                outcome = &mut outcome => {
                    let last = progress.borrow().clone();
                    if last != reported {
                        sink(last);
                    }
                    return outcome;
                }
                is_news = news, if is_open => {
                    is_open = is_news;
                    if is_news {
                        reported.clone_from(&progress.borrow_and_update());
                        sink(reported.clone());
                        pause = Some(Instant::now() + REPORT_INTERVAL);
                    }
                }
            }
        }
    }

    /// Whether a build goes on.
    pub(crate) fn goes_on(&self, what: &K) -> bool {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.get(what).is_some_and(Flight::goes_on)
    }

    fn board(
        &self,
        what: &K,
        start: impl FnOnce(watch::Sender<BuildProgress>) -> Work<T, E>,
    ) -> (Shared<Work<T, E>>, watch::Receiver<BuildProgress>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended belongs to the past, even if somebody has not looked at its outcome yet.
        flights.retain(|_, flight| flight.goes_on());
        if let Some(flight) = flights.get(what)
            && let Some(outcome) = flight.outcome.upgrade()
        {
            let mut progress = flight.progress.clone();
            // Who comes later hears at once how far it is.
            progress.mark_changed();
            return (outcome, progress);
        }
        let (sender, progress) = watch::channel(BuildProgress::default());
        let outcome = start(sender).shared();
        if let Some(weak) = outcome.downgrade() {
            let flight = Flight {
                outcome: weak,
                progress: progress.clone(),
            };
            flights.insert(what.clone(), flight);
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

    fn deaf() -> ProgressSink {
        Arc::new(|_| {})
    }

    /// A build that ends when it is told to, and counts its beginnings.
    struct Site {
        started: AtomicUsize,
        gates: Mutex<Vec<oneshot::Sender<()>>>,
    }

    impl Site {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                started: AtomicUsize::new(0),
                gates: Mutex::new(Vec::new()),
            })
        }

        fn start(self: &Arc<Self>) -> impl FnOnce(watch::Sender<BuildProgress>) -> Work + use<> {
            let site = Arc::clone(self);
            move |progress| {
                let number = site.started.fetch_add(1, Ordering::SeqCst);
                let (gate, open) = oneshot::channel();
                site.gates.lock().expect("gates").push(gate);
                async move {
                    progress.send_modify(|now| now.built = 1);
                    open.await.ok();
                    Ok(built(&number.to_string()))
                }
                .boxed()
            }
        }

        fn open(&self, number: usize) {
            self.gates
                .lock()
                .expect("gates")
                .remove(number)
                .send(())
                .expect("waits");
        }

        fn is_abandoned(&self, number: usize) -> bool {
            self.gates.lock().expect("gates")[number].is_closed()
        }
    }

    #[tokio::test]
    async fn those_who_come_during_a_build_share_it_and_those_after_do_not() {
        let (flights, site, installable) = (Flights::default(), Site::new(), installable());
        let deaf = deaf();
        let mut first = Box::pin(flights.join(&installable, &deaf, site.start()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let (heard, hears) = std::sync::mpsc::channel();
        let sink: ProgressSink = Arc::new(move |news| heard.send(news).expect("hears"));
        let mut second = Box::pin(flights.join(&installable, &sink, site.start()));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(hears.try_recv().expect("news").built, 1);
        site.open(0);
        assert_eq!(second.await.expect("built"), built("0"));
        // The first has not looked yet; a newcomer must not get what is over.
        let mut third = Box::pin(flights.join(&installable, &deaf, site.start()));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(first.await.expect("built"), built("0"));
        site.open(0);
        assert_eq!(third.await.expect("built"), built("1"));
        assert_eq!(site.started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_build_ends_when_the_last_one_who_waits_is_dropped() {
        let (flights, site, installable) = (Flights::default(), Site::new(), installable());
        let deaf = deaf();
        let mut first = Box::pin(flights.join(&installable, &deaf, site.start()));
        let mut second = Box::pin(flights.join(&installable, &deaf, site.start()));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(!site.is_abandoned(0) && flights.goes_on(&installable));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        assert!(site.is_abandoned(0) && !flights.goes_on(&installable));
        let mut third = Box::pin(flights.join(&installable, &deaf, site.start()));
        assert!(futures_util::poll!(&mut third).is_pending());
        assert_eq!(site.started.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn progress_is_reported_ten_times_a_second_and_never_delays_the_outcome() {
        let flights = Flights::<_, _, ClosureError>::default();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink: ProgressSink = {
            let reports = Arc::clone(&reports);
            Arc::new(move |news| reports.lock().expect("reports").push(news.built))
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
        let outcome = flights.join(&installable(), &sink, start).await;
        outcome.expect("built");
        let most = started.elapsed().as_millis() / REPORT_INTERVAL.as_millis() + 2;
        let reports = reports.lock().expect("reports");
        assert!(reports.len() >= 2, "{reports:?}");
        assert!(reports.len() as u128 <= most, "{reports:?}, not {most}");
        assert_eq!(reports.last(), Some(&5000));
    }
}
