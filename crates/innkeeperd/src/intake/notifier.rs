//! Notifications about pending deliveries.

use tokio::sync::watch;

/// Notifies that deliveries may be pending. Clones notify the same subscribers.
///
/// A notification has no content, so none is lost without a subscriber: pending deliveries are in the store
/// ([`Store::pending_pull_requests`](innkeeper_store::Store::pending_pull_requests)). A subscriber subscribes, then reads
/// the store, and reads it again after each [`watch::Receiver::changed`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Notifier(watch::Sender<()>);

impl Notifier {
    /// Wakes all subscribers. Pending deliveries must be in the store before.
    pub(crate) fn notify(&self) {
        self.0.send_replace(());
    }

    /// Subscribes to later notifications. Unread notifications are coalesced.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn unread_notifications_are_coalesced() {
        let notifier = Notifier::default();
        notifier.notify();
        let mut subscriber = notifier.subscribe();
        assert!(!subscriber.has_changed().expect("open"), "sent before");
        notifier.clone().notify();
        notifier.notify();
        subscriber.changed().await.expect("open");
        assert!(!subscriber.has_changed().expect("open"), "coalesced");
    }
}
