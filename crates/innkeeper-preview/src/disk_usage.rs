//! Disk usage of previews, measured in the background: counting the files of many guests takes long, so lists show the last
//! measurement. A database on the host counts too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_engine::Engine;
use innkeeper_facilities::Databases;
use innkeeper_model::{GuestName, chain};
use innkeeper_store::Store;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::debug;

use crate::PreviewError;

/// Age of a measurement after which it is repeated.
const MAX_AGE: Duration = Duration::from_secs(3_600);

/// Interval at which guests without a recent measurement are looked for.
const INTERVAL: Duration = Duration::from_secs(30);

/// Pause after a measurement, in multiples of its duration: measuring takes at most a tenth of a disk's time.
const PAUSES: u32 = 9;

/// A measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    bytes: u64,
    at: Instant,
}

/// The last measurements. Clones share them.
#[derive(Clone)]
pub(crate) struct DiskUsage {
    engine: Engine,
    store: Store,
    databases: Option<Arc<dyn Databases>>,
    measured: Arc<Mutex<BTreeMap<GuestName, Measured>>>,
}

impl DiskUsage {
    pub(crate) fn new(engine: Engine, store: Store, databases: Option<Arc<dyn Databases>>) -> Self {
        Self {
            engine,
            store,
            databases,
            measured: Arc::default(),
        }
    }

    /// Returns the disk space of a preview's file tree and database by the last measurement.
    pub(crate) fn of(&self, slug: &GuestName) -> Option<u64> {
        self.measured
            .lock()
            .get(slug)
            .map(|measured| measured.bytes)
    }

    /// Measures until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            self.measure_due().await;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Measures each preview without a recent measurement.
    pub(crate) async fn measure_due(&self) {
        let Ok(previews) = self.store.previews().await else {
            return;
        };
        let slugs: Vec<GuestName> = previews.into_iter().map(|one| one.record.slug).collect();
        self.measured.lock().retain(|slug, _| slugs.contains(slug));
        for slug in slugs {
            let last = self.measured.lock().get(&slug).copied();
            if last.is_some_and(|last| last.at.elapsed() < MAX_AGE) {
                continue;
            }
            let began = Instant::now();
            match self.measure(&slug).await {
                Ok(Some(bytes)) => {
                    let at = Instant::now();
                    self.measured.lock().insert(slug, Measured { bytes, at });
                }
                // It has no guest yet.
                Ok(None) => {}
                Err(error) => debug!(%slug, "the disk usage is unknown: {}", chain(&error)),
            }
            tokio::time::sleep(began.elapsed() * PAUSES).await;
        }
    }

    /// Returns the bytes of a preview's file tree and database. `None` if it has no guest.
    async fn measure(&self, slug: &GuestName) -> Result<Option<u64>, PreviewError> {
        let Some(files) = self.engine.disk_usage(slug).await? else {
            return Ok(None);
        };
        let database = match &self.databases {
            Some(databases) => databases.size(slug).await?,
            None => None,
        };
        Ok(Some(files.saturating_add(database.unwrap_or(0))))
    }
}

#[cfg(test)]
mod tests;
