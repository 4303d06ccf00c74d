//! Places where a test can kill the daemon.

use std::sync::Arc;

use crate::previews::Inner;

/// Called before and after every step of a preview's life with its name, such as
/// `preview:ensure-database:before`. The crash tests find the steps by themselves with it.
pub type Probe = Arc<dyn Fn(&str) + Send + Sync>;

impl Inner {
    /// Does a step between its two probes.
    pub(crate) async fn step<T, E>(
        &self,
        name: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.probe(name, "before");
        let result = step.await;
        self.probe(name, "after");
        result
    }

    fn probe(&self, step: &str, edge: &str) {
        if let Some(probe) = &self.probe {
            probe(&format!("preview:{step}:{edge}"));
        }
    }
}
