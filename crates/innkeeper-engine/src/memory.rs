//! Reads the host's memory, and acts when it runs short: [`crate::pressure`] decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use innkeeper_facilities::MemoryReading;
use innkeeper_model::api::GuestView;
use innkeeper_model::{
    DesiredState, EventKind, Explain, Guest, GuestName, GuestState, HostMemory, Level, MemoryBand,
    chain,
};
use tracing::{debug, warn};

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::journal::Subject;
use crate::pressure::{Resident, decide};

/// The interval of readings.
const INTERVAL: Duration = Duration::from_secs(1);

impl Inner {
    /// Fails if the host has too little memory to start another guest. Unknown memory refuses none.
    pub(crate) fn require_memory(&self) -> Result<(), EngineError> {
        let reading = match self.host.memory.read() {
            Ok(reading) => reading,
            Err(error) => {
                debug!(code = %error.code(), "the host's memory is unknown: {}", chain(&error));
                return Ok(());
            }
        };
        let config = &self.config.pressure;
        match config.refuses(&reading) {
            true => Err(EngineError::MemoryLow {
                available_percent: reading.available_percent(),
                refused_below: config.refuse_below_percent,
            }),
            false => Ok(()),
        }
    }

    /// As [`Self::require_memory`], for a guest that somebody waits for: warm guests end first.
    pub(crate) async fn make_memory(&self) -> Result<(), EngineError> {
        match self.require_memory() {
            Err(_) if self.discard_warm().await > 0 => self.require_memory(),
            result => result,
        }
    }

    /// Reports the host's memory.
    pub(crate) fn host_memory(&self) -> Result<HostMemory, EngineError> {
        let reading = self.host.memory.read()?;
        Ok(HostMemory {
            total_bytes: reading.total,
            available_bytes: reading.available,
            available_percent: reading.available_percent(),
            swap_total_bytes: reading.swap_total,
            swap_free_bytes: reading.swap_free,
            stalled_percent: reading.stalled_percent.map(whole),
            band: self.config.pressure.band(&reading),
        })
    }

    /// Records a change of the band in the events.
    fn report_band(&self, reading: &MemoryReading, band: MemoryBand) {
        let reported = self.relief.lock().report(band, Instant::now());
        let Some(band) = reported else { return };
        let percent = reading.available_percent();
        let text = match band {
            MemoryBand::Normal => {
                format!("The host has enough memory again: {percent} % is available.")
            }
            MemoryBand::Pause => {
                format!("Idle guests are paused: {}.", self.shortage(reading, band))
            }
            MemoryBand::Sleep => format!(
                "Idle guests are put to sleep: {}.",
                self.shortage(reading, band)
            ),
            MemoryBand::Refuse => format!(
                "No guest is started: {}. Idle guests are put to sleep.",
                self.shortage(reading, band)
            ),
            MemoryBand::Emergency => format!(
                "Guests in use are put to sleep: {}.",
                self.shortage(reading, band)
            ),
        };
        warn!("{text}");
        self.journal
            .record(&Subject::default(), EventKind::Note { text });
    }

    /// Describes the lack of memory in a band, as a clause.
    fn shortage(&self, reading: &MemoryReading, band: MemoryBand) -> String {
        let (available, config) = (reading.available_percent(), &self.config.pressure);
        let (setting, limit) = match band {
            MemoryBand::Normal | MemoryBand::Pause => {
                ("pause_below_percent", config.pause_below_percent)
            }
            MemoryBand::Sleep => ("sleep_below_percent", config.sleep_below_percent),
            MemoryBand::Refuse => ("refuse_below_percent", config.refuse_below_percent),
            MemoryBand::Emergency => ("emergency_below_percent", config.emergency_below_percent),
        };
        if available >= limit {
            let stalled = whole(reading.stalled_percent.unwrap_or(0.0));
            let limit = config.stalled_percent;
            return format!(
                "all processes waited for memory in {stalled} % of the last ten seconds (pressure.stalled_percent = {limit})"
            );
        }
        format!("{available} % of the host's memory is available (pressure.{setting} = {limit})")
    }
}

impl Engine {
    /// Fails if a guest without processes is to be started and the host's memory runs short.
    pub(crate) async fn require_memory_for(&self, name: &GuestName) -> Result<(), EngineError> {
        let guest = self.guest(name).await?;
        let has_processes = guest.desired == DesiredState::Running && guest.level != Level::Asleep;
        match has_processes {
            true => Ok(()),
            false => self.inner.make_memory().await,
        }
    }

    /// Returns why the daemon paused a guest or put it to sleep, as a clause; `None` if it did not since its start.
    ///
    /// # Errors
    /// When the guest does not exist.
    pub async fn rest_reason(&self, name: &GuestName) -> Result<Option<String>, EngineError> {
        let rests = self.guest(name).await?.rests().is_some();
        let reason = self.inner.relief.lock().reason(name);
        Ok(reason.filter(|_| rests))
    }

    /// Acts on a lack of memory until the engine stops.
    pub async fn follow_memory(&self) {
        let mut failed = false;
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.relieve_memory().await {
                Ok(()) => failed = false,
                // While it lasts, each reading would log the same.
                Err(error) if failed => debug!(code = %error.code(), "{}", chain(&error)),
                Err(error) => {
                    warn!(code = %error.code(), "cannot act on the host's memory: {}", chain(&error));
                    failed = true;
                }
            }
        }
    }

    /// Reads the memory once, and starts what is to be done. Returns before that is done.
    ///
    /// # Errors
    /// When the store or the host cannot be queried.
    pub async fn relieve_memory(&self) -> Result<(), EngineError> {
        let inner = &self.inner;
        let reading = inner.host.memory.read()?;
        let band = inner.config.pressure.band(&reading);
        inner.report_band(&reading, band);
        if band == MemoryBand::Normal {
            inner.relief.lock().forget_reclaimed();
            return Ok(());
        }
        // Nobody uses them. The next reading shows whether that was enough.
        if inner.discard_warm().await > 0 {
            return Ok(());
        }
        let guests = self.residents().await?;
        let residents: Vec<_> = guests
            .values()
            .map(|(_, resident)| resident)
            .cloned()
            .collect();
        let actions = decide(&inner.config.pressure, &reading, &residents);
        let find = |name| guests.get(name);
        for (guest, resident) in actions.sleep.iter().filter_map(find) {
            let because = inner.shortage(&reading, band);
            self.spawn_rest(guest, resident, Level::Asleep, &because);
        }
        for (guest, resident) in actions.pause.iter().filter_map(find) {
            let because = inner.shortage(&reading, MemoryBand::Pause);
            self.spawn_rest(guest, resident, Level::Paused, &because);
        }
        for (guest, _) in actions.reclaim.iter().filter_map(find) {
            self.spawn_reclaim(guest);
        }
        Ok(())
    }

    /// Returns the guests that have processes and can be acted on.
    async fn residents(&self) -> Result<BTreeMap<GuestName, (Guest, Resident)>, EngineError> {
        let now = self.inner.started.elapsed();
        let views = self.list().await?;
        let resting = views.iter().filter(|view| view.guest.rests().is_some());
        let resting: BTreeSet<_> = resting.map(|view| view.guest.name.clone()).collect();
        let is_paused = |view: &&GuestView| view.state == GuestState::Paused;
        let paused = views.iter().filter(is_paused);
        let paused = paused.map(|view| view.guest.name.clone()).collect();
        let mut relief = self.inner.relief.lock();
        relief.refresh(&paused, Instant::now());
        relief.retain_reasons(|guest| resting.contains(guest));
        let uses = self.inner.uses.lock();
        let resident = |view: GuestView| {
            let name = view.guest.name.clone();
            let is_up = matches!(view.state, GuestState::Running | GuestState::Paused);
            let usage = uses.usage(&name);
            // Nobody knows whether a guest without recent readings is in use.
            let usage = usage.filter(|usage| is_up && usage.is_known(now))?;
            if relief.has_failed(&name) {
                return None;
            }
            let resident = Resident {
                is_paused: view.state == GuestState::Paused,
                idle: usage.idle(),
                memory: view.memory_bytes,
                is_exempt: self.wanted_awake(&view.guest).is_some(),
                // One that is paused and runs has a packet to answer, or is about to be frozen.
                is_leaving: relief.is_leaving(&name)
                    || view.guest.level == Level::Paused && view.state == GuestState::Running,
                is_reclaimed: relief.is_reclaimed(&name),
                name: name.clone(),
            };
            Some((name, (view.guest, resident)))
        };
        Ok(views.into_iter().filter_map(resident).collect())
    }

    /// Pauses a guest or puts it to sleep, and records the reason. Leaves a guest alone that is to be paused and has not yet
    /// responded to its last packet.
    fn spawn_rest(&self, guest: &Guest, resident: &Resident, level: Level, because: &str) {
        let inner = &self.inner;
        let is_in_use = resident.idle < inner.config.pressure.idle;
        let use_of_it = match is_in_use {
            true => "it was in use".to_owned(),
            false => format!("it had been idle for {} s", resident.idle.as_secs()),
        };
        let (now, idle) = (inner.started.elapsed(), inner.config.pressure.idle);
        let packets = inner.uses.lock().can_pause(&guest.name, now, idle);
        if level == Level::Paused && packets.is_none() {
            return;
        }
        let reason = format!("{because}, and {use_of_it}");
        let (engine, guest) = (self.clone(), guest.clone());
        self.spawn_relief(guest.name.clone(), async move {
            // One may have been opened since the last reading.
            let has_session = engine.inner.sessions.count(&guest.name) > 0;
            let rested = match is_in_use {
                true => engine.sleep_in_use(&guest).await?,
                false if has_session => false,
                false => engine.rest(&guest, level).await?,
            };
            if rested {
                engine.record_rest(&guest, level, reason);
            }
            if let Some(packets) = packets.filter(|_| rested && level == Level::Paused) {
                engine.continue_if_reached(&guest, packets).await?;
            }
            Ok(rested)
        });
    }

    fn record_rest(&self, guest: &Guest, level: Level, reason: String) {
        let done = match level {
            Level::Asleep => "put to sleep",
            _ => "paused",
        };
        let text = format!("It was {done}: {reason}.");
        let subject = Subject::guest(&guest.name);
        let inner = &self.inner;
        inner.journal.record(&subject, EventKind::Note { text });
        inner.relief.lock().rested(&guest.name, reason);
    }

    /// Reclaims the memory of a paused guest, one guest at a time. A guest that is woken meanwhile does not wait.
    fn spawn_reclaim(&self, guest: &Guest) {
        let (engine, name) = (self.clone(), guest.name.clone());
        self.spawn_relief(guest.name.clone(), async move {
            let inner = &engine.inner;
            // Fails only when it is closed, which never happens.
            let Ok(_permit) = inner.reclaims.acquire().await else {
                return Ok(false);
            };
            let Some(freed) = inner.host.units.reclaim(&name).await? else {
                return Ok(false);
            };
            inner.relief.lock().reclaimed(&name);
            let text = format!(
                "{} MiB of its memory were reclaimed while it is paused.",
                freed >> 20
            );
            let subject = Subject::guest(&name);
            inner.journal.record(&subject, EventKind::Note { text });
            Ok(true)
        });
    }

    /// Runs an action on a guest in a task. `false` means that nothing was done; it is then retried later.
    fn spawn_relief(
        &self,
        name: GuestName,
        action: impl Future<Output = Result<bool, EngineError>> + Send + 'static,
    ) {
        self.inner.relief.lock().begin(&name);
        let engine = self.clone();
        self.spawn(async move {
            let result = action.await;
            if let Err(error) = &result {
                warn!(guest = %name, code = %error.code(), "its memory is not freed: {}", chain(error));
            }
            let succeeded = matches!(result, Ok(true));
            let mut relief = engine.inner.relief.lock();
            relief.end(&name, succeeded, Instant::now());
        });
    }
}

/// Rounds a percentage.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates"
)]
fn whole(percent: f64) -> u64 {
    percent.round() as u64
}
