//! Notifications to systemd, if it is the service manager (sd_notify(3)).

use std::time::Duration;

use innkeeper_engine::Engine;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// Notifies that the daemon is ready.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Notifies that the daemon is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog as long as the store answers: systemd restarts a daemon whose store does not.
pub(crate) async fn watchdog(engine: Engine, stopping: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half of the limit, as sd_watchdog_enabled(3) advises.
    let mut timer = tokio::time::interval(limit / 2);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = timer.tick() => {}
        }
        match tokio::time::timeout(
            Duration::from_secs(5).min(limit / 2),
            engine.store().last_event_seq(),
        )
        .await
        {
            Ok(Ok(_)) => notify(&[NotifyState::Watchdog]),
            Ok(Err(cause)) => error!(%cause, "the store does not answer"),
            Err(_) => error!("the store does not answer in time"),
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}
