//! Builds of closures.

use innkeeper_facilities::{Built, Effort, ProgressSink};
use innkeeper_model::{EventKind, Failure, Installable, StorePath, Trust};

use crate::EngineError;
use crate::inner::Inner;
use crate::journal::Subject;

impl Inner {
    /// Runs a build that belongs to no guest, and records its end.
    pub(crate) async fn run_build(
        &self,
        subject: &Subject,
        work: impl Future<Output = Result<(String, StorePath), Failure>>,
    ) {
        let (failure, kind) = match work.await {
            Ok((what, closure)) => {
                let built = EventKind::Built { what, closure };
                self.journal.record(subject, built);
                (None, EventKind::Finished)
            }
            Err(failure) => (Some(failure.clone()), EventKind::Failed { failure }),
        };
        self.finish(subject, failure.as_ref(), kind).await;
    }

    /// Builds a flake output. Without `force`, a valid closure of an earlier build is reused. A member's build neither
    /// reads nor changes the host's cache.
    pub(crate) async fn build_closure(
        &self,
        progress: ProgressSink,
        installable: &Installable,
        trust: Trust,
        force: bool,
        effort: Effort,
    ) -> Result<StorePath, EngineError> {
        let closures = &self.host.closures;
        if trust == Trust::Member {
            let built = closures
                .build(installable, trust, None, effort, progress)
                .await?;
            return Ok(built.closure);
        }
        let cached = self.store.cached_closure(installable).await?;
        let cached = cached.map(|cached| Built {
            closure: cached.closure,
            fingerprint: cached.fingerprint,
        });
        if let (false, Some(built)) = (force, &cached)
            && closures.verify(&built.closure).await.is_ok()
        {
            return Ok(built.closure.clone());
        }
        let built = closures
            .build(installable, trust, cached.as_ref(), effort, progress)
            .await?;
        self.store
            .cache_closure(installable, &built.closure, &built.fingerprint)
            .await?;
        if cached.is_none_or(|cached| cached.closure != built.closure) {
            self.warm.changed.notify_one();
        }
        Ok(built.closure)
    }
}
