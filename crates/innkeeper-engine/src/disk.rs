//! Measures the disk space of guests' files in the background: counting the files of many guests takes long, so lists show the
//! last measurement.

use std::time::{Duration, Instant};

use innkeeper_model::{Explain, GuestKind, GuestName, chain};
use tracing::debug;

use crate::EngineError;
use crate::engine::Engine;

/// Interval at which agents without a recent measurement are looked for.
const INTERVAL: Duration = Duration::from_secs(30);

/// Pause after a measurement, in multiples of its duration: measuring agents takes at most a tenth of a disk's time.
const PAUSES: u32 = 9;

impl Engine {
    /// Measures the disk space of a guest's file tree, in bytes, as far as it can be counted within a short time; `None`
    /// without a tree.
    ///
    /// # Errors
    /// When the tree cannot be read.
    pub async fn disk_usage(&self, name: &GuestName) -> Result<Option<u64>, EngineError> {
        // Before the measurement: the files may be those of a later guest of the same name.
        let guest = self.inner.store.guest(name).await?;
        let bytes = self.inner.host.rootfs.bytes(name).await?;
        if let Some(guest) = guest {
            self.inner.disks.record(&guest, bytes);
        }
        Ok(bytes)
    }

    /// Measures the disk space of agents until the engine stops. That of previews is measured together with their databases.
    pub async fn measure_disks(&self) {
        let measure = async {
            loop {
                self.measure_due_disks().await;
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = self.inner.stopping.cancelled() => {}
            () = measure => {}
        }
    }

    /// Measures each agent without a recent measurement.
    async fn measure_due_disks(&self) {
        let Ok(guests) = self.inner.store.guests().await else {
            return;
        };
        let names = guests.iter().map(|guest| guest.name.clone()).collect();
        self.inner.disks.retain(&names);
        for guest in guests {
            if guest.kind != GuestKind::Agent || self.inner.disks.is_recent(&guest) {
                continue;
            }
            let began = Instant::now();
            if let Err(error) = self.disk_usage(&guest.name).await {
                debug!(guest = %guest.name, code = %error.code(), "the disk usage is unknown: {}", chain(&error));
            }
            tokio::time::sleep(began.elapsed() * PAUSES).await;
        }
    }
}
