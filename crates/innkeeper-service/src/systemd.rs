//! Notifications to systemd, if it is the service manager (sd_notify(3)).

use std::fmt::Display;

use sd_notify::NotifyState;
use tracing::warn;

/// Notifies that requests are answered. `address` is where, if the configuration leaves that open: port 0 stands for any.
pub fn ready(address: Option<impl Display>) {
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
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock"),
    }
}

/// Notifies that the program is stopping.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog as long as the runtime makes progress.
pub async fn watchdog() {
    watchdog_while(async || true).await;
}

/// Feeds the watchdog as long as the program passes a check of its own, which must take less than a quarter of the limit.
pub async fn watchdog_while(check: impl AsyncFn() -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // At most half of the limit, as sd_watchdog_enabled(3) advises; a check may fail once.
    let mut timer = tokio::time::interval(limit / 4);
    loop {
        timer.tick().await;
        if check().await {
            notify(&[NotifyState::Watchdog]);
        } else {
            warn!("the program does not answer itself");
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}
