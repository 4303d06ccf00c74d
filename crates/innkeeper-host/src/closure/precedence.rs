//! Builds in the background give way to builds that somebody waits for. Otherwise these would wait for the slow builders of the
//! same derivations.

use tokio::sync::watch;

/// The builds that somebody waits for.
#[derive(Debug)]
pub(crate) struct Precedence(watch::Sender<usize>);

impl Default for Precedence {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Precedence {
    /// Counts a build that somebody waits for, until the result is dropped.
    pub(crate) fn claim(&self) -> Claim<'_> {
        self.0.send_modify(|count| *count += 1);
        Claim(self)
    }

    /// Completes while somebody waits for a build.
    pub(crate) async fn lost(&self) {
        let mut claims = self.0.subscribe();
        drop(claims.wait_for(|count| *count > 0).await);
    }
}

/// The precedence of one build.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Precedence);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn precedence_is_lost_while_somebody_waits() {
        let precedence = Precedence::default();
        assert!(precedence.lost().now_or_never().is_none());
        let (one, two) = (precedence.claim(), precedence.claim());
        drop(one);
        assert!(precedence.lost().now_or_never().is_some());
        drop(two);
        assert!(precedence.lost().now_or_never().is_none());
    }
}
