//! Notifications to systemd, if it is the service manager (sd_notify(3)).

use std::net::SocketAddr;

use sd_notify::NotifyState;
use tracing::warn;

/// Notifies that requests are answered, and on which address: port 0 in the configuration stands for any.
pub(crate) fn ready(address: Option<SocketAddr>) {
    let listening = address.map(|address| format!("X_INNKEEPER_LISTEN={address}"));
    let listening = listening.as_deref().map(NotifyState::Custom);
    notify(
        &[NotifyState::Ready]
            .into_iter()
            .chain(listening)
            .collect::<Vec<_>>(),
    );
}

/// Notifies that the configuration is reloaded; [`ready`] ends that state.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock"),
    }
}

/// Notifies that the program is stopping.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog as long as the runtime makes progress.
pub(crate) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half of the limit, as sd_watchdog_enabled(3) advises.
    let mut timer = tokio::time::interval(limit / 2);
    loop {
        timer.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}
