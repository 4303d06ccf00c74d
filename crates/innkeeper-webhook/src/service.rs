//! What systemd is told, where there is one (sd_notify(3)).

use std::net::SocketAddr;

use sd_notify::NotifyState;
use tracing::warn;

/// Says that requests are answered, and on which address: with port 0 that is news.
pub(crate) fn ready(address: Option<SocketAddr>) {
    let listening = address.map(|address| format!("X_INNKEEPER_LISTEN={address}"));
    let listening = listening.as_deref().map(NotifyState::Custom);
    tell(
        &[NotifyState::Ready]
            .into_iter()
            .chain(listening)
            .collect::<Vec<_>>(),
    );
}

/// Says that the configuration is read again; [`ready`] ends that.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "there is no clock"),
    }
}

/// Says that the program is stopping.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the watchdog that the program is alive, as long as the runtime turns.
pub(crate) async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half of the limit, as sd_watchdog_enabled(3) advises.
    let mut timer = tokio::time::interval(limit / 2);
    loop {
        timer.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd was not told");
    }
}
