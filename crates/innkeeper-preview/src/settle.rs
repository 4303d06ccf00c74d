//! The timer that makes routes faster once they have not changed for a while.

use std::sync::Arc;
use std::time::Duration;

use innkeeper_facilities::Routes;
use innkeeper_model::chain;
use tokio::time::MissedTickBehavior;
use tracing::warn;

/// Time between two looks at the routes.
const INTERVAL: Duration = Duration::from_secs(10);

/// Settles routes until the daemon stops. Logs the first of several failures: routes work without it.
pub(crate) async fn run(routes: Arc<dyn Routes>) {
    let mut timer = tokio::time::interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        timer.tick().await;
        let outcome = routes.settle().await;
        if let Err(error) = &outcome
            && !has_failed
        {
            warn!(
                "routes that have not changed stay slower, and this is retried: {}",
                chain(error)
            );
        }
        has_failed = outcome.is_err();
    }
}
