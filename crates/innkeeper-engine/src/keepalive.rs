//! Keepalives: a user keeps a guest awake for a time.

use std::time::Duration;

use innkeeper_model::{GuestName, MAX_KEEPALIVE};

use crate::EngineError;
use crate::engine::Engine;

impl Engine {
    /// Keeps a guest awake for a time, at most [`MAX_KEEPALIVE`]: the daemon does not let it rest by its own decision. A guest
    /// that rests is woken. Replaces an earlier keepalive; zero ends it.
    ///
    /// # Errors
    /// When the time is too long, or the guest does not exist, is stopped, or does not wake.
    pub async fn keep_awake(
        &self,
        name: &GuestName,
        time: Duration,
        actor: &str,
    ) -> Result<(), EngineError> {
        if time > MAX_KEEPALIVE {
            let most = MAX_KEEPALIVE.as_secs();
            return Err(EngineError::Invalid(format!(
                "a keepalive lasts at most {most} seconds"
            )));
        }
        let time = (!time.is_zero()).then_some(time);
        // Before the wake: the guest must not rest again in between.
        self.inner.store.set_keepalive(name, time).await?;
        self.inner.keepalives.set(name, time);
        if time.is_some() {
            self.awaken(name, actor).await?;
        }
        Ok(())
    }

    /// Reads the keepalives that an earlier daemon recorded.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn resume_keepalives(&self) -> Result<(), EngineError> {
        for (name, left) in self.inner.store.keepalives().await? {
            self.inner.keepalives.set(&name, Some(left));
        }
        Ok(())
    }

    /// Returns how long a keepalive keeps a guest awake from now; `None` without one.
    #[must_use]
    pub fn kept_awake(&self, name: &GuestName) -> Option<Duration> {
        self.inner.keepalives.left(name)
    }
}
