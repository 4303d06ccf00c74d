//! The engine's shared state. Every other file builds on it; it depends only on their data types.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use innkeeper_facilities::Facilities;
use innkeeper_model::{
    EventKind, Explain, Failure, GuestName, Installable, Limits, OperationId, SlotRange, Verb,
};
use innkeeper_store::Store;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::activity::{ActivityConfig, Tracker, Use};
use crate::backoff::Failures;
use crate::demands::Demands;
use crate::disks::Disks;
use crate::idle::{Keepalives, LevelHooks, RestConfig, Resting};
use crate::journal::{Journal, Subject};
use crate::keyed_locks::KeyedLocks;
use crate::oom::OomKills;
use crate::pressure::PressureConfig;
use crate::probe::{Edge, Point, Probe};
use crate::relief::Relief;
use crate::sessions::Sessions;
use crate::staging::Staging;
use crate::warm::{Warm, WarmConfig};

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Flake output that agents boot from by default.
    pub installable: Option<Installable>,
    /// Attribute of a flake reference that names none.
    pub attribute: String,
    /// Default limits of a guest.
    pub limits: Limits,
    /// Whether agents may be created with [`Limits::nesting`].
    pub nesting: bool,
    /// Number of guests that may start concurrently.
    pub concurrent_starts: usize,
    /// Addresses of the slots.
    pub range: SlotRange,
    /// Retention of destroyed agents' files. Zero: they are deleted at once.
    pub retention: Duration,
    /// Thresholds of guests' use.
    pub activity: ActivityConfig,
    /// Time in which a changed system must come up.
    pub boot_timeout: Duration,
    /// When idle guests rest.
    pub rest: RestConfig,
    /// Number of seats: guests without a name that wait at their doors. 0: none.
    pub seats: usize,
    /// Guests that wait with a closure that they have booted.
    pub warm: WarmConfig,
    /// Bands of the host's memory.
    pub pressure: PressureConfig,
}

impl EngineConfig {
    /// [`Self::boot_timeout`] of a host.
    pub const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    pub(crate) store: Store,
    pub(crate) host: Facilities,
    pub(crate) journal: Journal,
    /// Held while a guest is changed.
    pub(crate) guest_locks: KeyedLocks<GuestName>,
    /// Operations that a task drives.
    pub(crate) in_flight: Mutex<HashSet<OperationId>>,
    /// Held for reading while an operation changes the host. `gc` takes it for writing before it removes objects without
    /// an owner: it must not mistake a half-made file tree for an orphan.
    pub(crate) activity: RwLock<()>,
    /// Permits of [`EngineConfig::concurrent_starts`].
    pub(crate) starts: Semaphore,
    /// The starts after a start of the daemon: they leave half of [`Self::starts`] to others.
    pub(crate) staged_starts: Staging,
    /// Reports whether the last attempt to apply the firewall succeeded. No guest gets a network otherwise.
    pub(crate) firewall_applied: AtomicBool,
    pub(crate) failures: Failures,
    /// Held while retained files are purged.
    pub(crate) purge_lock: AsyncMutex<()>,
    /// Number of purges that freed space.
    pub(crate) purges: AtomicU64,
    pub(crate) oom: OomKills,
    /// The facts of the host were reported.
    pub(crate) knows_facts: AtomicBool,
    /// Notified when a seat was taken or removed.
    pub(crate) seats_changed: Notify,
    /// The reason why seats are missing.
    pub(crate) seats_failure: Mutex<Option<Failure>>,
    pub(crate) warm: Warm,
    /// The uses of guests until the last reading.
    pub(crate) uses: Mutex<Tracker>,
    /// The disk space of guests by the last measurement.
    pub(crate) disks: Disks,
    /// Held while the counters of guests are read, so that an older reading never follows a newer one.
    pub(crate) measuring: AsyncMutex<()>,
    /// Guests whose first packet is watched, by their addresses.
    pub(crate) watched: Mutex<HashMap<Ipv4Addr, GuestName>>,
    /// Notified when a peek begins.
    pub(crate) peeked: Notify,
    /// Set once the host turned out to have no freezer: guests are not paused by the daemon's own decision.
    pub(crate) no_freezer: AtomicBool,
    pub(crate) resting: Resting,
    pub(crate) keepalives: Keepalives,
    pub(crate) demands: Demands,
    /// The part of previews in a rest.
    pub(crate) hooks: OnceLock<Box<dyn LevelHooks>>,
    /// The running wakes of guests that did not rest when they were accepted.
    pub(crate) idle_wakes: Mutex<HashSet<OperationId>>,
    /// The first processes of guests whose service manager has responded, or was waited for in vain.
    pub(crate) responsive: Mutex<HashMap<GuestName, u32>>,
    /// Actions against a lack of memory.
    pub(crate) relief: Mutex<Relief>,
    /// Held while a guest's memory is reclaimed.
    pub(crate) reclaims: Semaphore,
    /// Open sessions of users in guests.
    pub(crate) sessions: Arc<Sessions>,
    /// The start of the clock of [`Self::uses`].
    pub(crate) started: Instant,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    probe: Option<Probe>,
}

impl Inner {
    pub(crate) fn new(
        config: EngineConfig,
        store: Store,
        host: Facilities,
        probe: Option<Probe>,
    ) -> Self {
        Self {
            starts: Semaphore::new(config.concurrent_starts.max(1)),
            staged_starts: Staging::new(config.concurrent_starts / 2),
            journal: Journal::new(store.clone()),
            uses: Mutex::new(Tracker::new(config.activity)),
            config,
            store,
            host,
            guest_locks: KeyedLocks::default(),
            in_flight: Mutex::default(),
            activity: RwLock::default(),
            firewall_applied: AtomicBool::new(false),
            failures: Failures::default(),
            purge_lock: AsyncMutex::default(),
            purges: AtomicU64::new(0),
            oom: OomKills::default(),
            disks: Disks::default(),
            knows_facts: AtomicBool::new(false),
            seats_changed: Notify::new(),
            seats_failure: Mutex::default(),
            warm: Warm::default(),
            idle_wakes: Mutex::default(),
            responsive: Mutex::default(),
            relief: Mutex::default(),
            reclaims: Semaphore::new(1),
            sessions: Arc::default(),
            measuring: AsyncMutex::new(()),
            watched: Mutex::default(),
            peeked: Notify::new(),
            no_freezer: AtomicBool::new(false),
            resting: Resting::default(),
            keepalives: Keepalives::default(),
            demands: Demands::default(),
            hooks: OnceLock::new(),
            started: Instant::now(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            probe,
        }
    }

    /// Notes a use of a guest between two measurements.
    pub(crate) fn note_use(&self, guest: &GuestName, by: Use) {
        let now = self.started.elapsed();
        self.uses.lock().used(guest, now, by);
    }

    pub(crate) fn probe(&self, verb: Verb, step: &'static str, edge: Edge) {
        if let Some(probe) = &self.probe {
            probe(Point { verb, step, edge });
        }
    }

    /// Runs a step between its two probe points and records its result.
    pub(crate) async fn run_step<E: Explain>(
        &self,
        verb: Verb,
        subject: &Subject,
        step: &'static str,
        work: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let name = || step.to_owned();
        let journal = &self.journal;
        journal.record(subject, EventKind::StepStarted { step: name() });
        self.probe(verb, step, Edge::Before);
        let started = Instant::now();
        let result = work.await;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.probe(verb, step, Edge::After);
        let kind = match &result {
            Ok(()) => EventKind::StepDone {
                step: name(),
                micros,
            },
            Err(error) => EventKind::StepFailed {
                step: name(),
                failure: error.into(),
            },
        };
        journal.record(subject, kind);
        result
    }

    /// Records the end of an operation, then publishes it.
    pub(crate) async fn finish(
        &self,
        subject: &Subject,
        failure: Option<&Failure>,
        kind: EventKind,
    ) {
        if let Some(id) = subject.operation
            && let Err(error) = self.store.finish_operation(id, failure).await
        {
            warn!(operation = %id, code = %error.code(), %error, "cannot record the end of an operation");
        }
        self.journal.record(subject, kind);
    }
}
