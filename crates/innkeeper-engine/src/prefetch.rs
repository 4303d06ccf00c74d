//! Builds of closures before somebody requests them.

use innkeeper_facilities::{Effort, ProgressSink};
use innkeeper_model::{
    ClosureSource, DesiredState, Failure, GuestKind, Installable, OperationId, StorePath, Trust,
    Verb,
};

use crate::EngineError;
use crate::backup::OperationLog;
use crate::engine::Engine;
use crate::warm_pool;

impl Engine {
    /// Returns the flake outputs that agents boot from: that of the configuration, those of warm guests, then those of the agents, each once. Flakes of
    /// members are left out: their builds are not kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agent_flakes(&self) -> Result<Vec<Installable>, EngineError> {
        let mut flakes = Vec::from_iter(self.inner.config.installable.clone());
        for flake in warm_pool::flakes(&self.inner.config.warm.guests) {
            if !flakes.contains(flake) {
                flakes.push(flake.clone());
            }
        }
        for guest in self.inner.store.guests().await? {
            let is_agent = guest.kind == GuestKind::Agent && guest.desired != DesiredState::Absent;
            if let (true, ClosureSource::Flake(flake)) = (is_agent, &guest.source)
                && !flakes.contains(flake)
            {
                flakes.push(flake.clone());
            }
        }
        Ok(flakes)
    }

    /// Checks that the host has resources for work that nobody waits for: memory, and space for another guest and for
    /// a build.
    ///
    /// # Errors
    /// When it has not, or when the engine is stopping.
    pub async fn require_spare_resources(&self) -> Result<(), EngineError> {
        self.refuse_when_stopping()?;
        self.inner.require_memory()?;
        let host = &self.inner.host;
        // Does not purge retained files: nobody waits for this.
        host.rootfs.require_room().await?;
        Ok(host.closures.require_space().await?)
    }

    /// Builds a flake output at low priority, if it has changed since its last build. Dropping the future ends the build.
    ///
    /// # Errors
    /// As `agent build`.
    pub async fn build_in_background(
        &self,
        installable: &Installable,
        progress: ProgressSink,
    ) -> Result<StorePath, EngineError> {
        let (trust, effort) = (Trust::Host, Effort::Background);
        self.inner
            .build_closure(progress, installable, trust, true, effort)
            .await
    }

    /// Continues the operation of this kind that the former daemon has left, and returns it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn resume_operation<F>(
        &self,
        verb: Verb,
        work: impl FnOnce(OperationLog) -> F + Send + 'static,
    ) -> Result<Option<OperationId>, EngineError>
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let running = self.inner.store.running_operations().await?;
        let found = running
            .into_iter()
            .find(|one| one.verb == verb && one.guest.is_none());
        let Some(operation) = found else {
            return Ok(None);
        };
        self.spawn_operation(operation.id, verb, work);
        Ok(Some(operation.id))
    }
}
