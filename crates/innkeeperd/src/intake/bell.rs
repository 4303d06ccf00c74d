//! Waking whoever acts on deliveries.

use tokio::sync::watch;

/// Rings when there may be work: deliveries are on disk that were not acted on. Clones ring the same bell.
///
/// It says no more than that, so nothing is lost when it rings while nobody listens: what is pending stands
/// in the store ([`Store::pending_pull_requests`](innkeeper_store::Store::pending_pull_requests)). Whoever
/// listens does so first, then looks, then waits for [`watch::Receiver::changed`], then looks again.
#[derive(Clone, Debug, Default)]
pub struct Bell(watch::Sender<()>);

impl Bell {
    /// Wakes all who listen. What they are to find must be in the store before.
    pub fn ring(&self) {
        self.0.send_replace(());
    }

    /// Listens from now on. Several rings that nobody waited for count as one.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ring_is_not_lost_while_nobody_waits() {
        let bell = Bell::default();
        bell.ring();
        let mut listener = bell.listen();
        assert!(!listener.has_changed().expect("there"), "rang before");
        bell.clone().ring();
        bell.ring();
        listener.changed().await.expect("rang");
        assert!(!listener.has_changed().expect("there"), "two are one");
    }
}
