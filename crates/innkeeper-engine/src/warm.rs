//! The warm pool's settings and state, and why it is not full. Data and pure functions.

use std::time::{Duration, Instant};

use innkeeper_facilities::MemoryReading;
use innkeeper_model::{ClosureSource, Explain, Failure, StorePath};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::EngineError;
use crate::pressure::PressureConfig;

/// The memory of a warm guest, in bytes, until one has been measured.
const GUEST_MEMORY: u64 = 256 << 20;

/// Settings of the warm pool.
#[derive(Clone, Debug, Default)]
pub struct WarmConfig {
    /// The guests to keep.
    pub guests: Vec<WarmGuests>,
    /// The host boots none while processes waited for a processor in more than this share of the last ten seconds, in percent.
    pub busy_percent: u64,
    /// The interval at which guests that wait run for a moment.
    pub exercise_interval: Duration,
}

impl WarmConfig {
    /// [`Self::exercise_interval`] of a host. The watchdogs of systemd's own services end them after three minutes; the services
    /// report at least every 90 seconds.
    pub const EXERCISE_INTERVAL: Duration = Duration::from_secs(60);
}

/// Guests of one closure that wait without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmGuests {
    /// A store path, or a flake whose last build counts.
    pub source: ClosureSource,
    /// Their number.
    pub size: usize,
}

impl WarmGuests {
    /// Returns the flake or the store path as users write it.
    pub(crate) fn label(&self) -> String {
        match &self.source {
            ClosureSource::Path(path) => path.to_string(),
            ClosureSource::Flake(flake) | ClosureSource::MemberFlake(flake) => flake.to_string(),
        }
    }
}

/// The state of the warm pool.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// Notified when a seat was taken or removed, or a closure was built.
    pub(crate) changed: Notify,
    /// The time of the last removal that made room for others.
    pub(crate) held: Mutex<Option<Instant>>,
    /// The most memory that a warm guest used, in bytes; 0 before one was measured.
    pub(crate) memory: Mutex<u64>,
    /// The result of the last attempt for each of [`WarmConfig::guests`].
    pub(crate) found: Mutex<Vec<Found>>,
}

/// The result of an attempt to keep guests of one closure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Their closure, if it is known.
    pub(crate) closure: Option<StorePath>,
    /// Why some are missing.
    pub(crate) shortfall: Option<Shortfall>,
}

impl Found {
    /// Reports whether a guest could not be booted.
    pub(crate) fn has_failed(&self) -> bool {
        self.closure.is_some() && matches!(self.shortfall, Some(Shortfall::Fails(_)))
    }
}

/// The reason why warm guests are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shortfall {
    /// It passes by itself: the reason, as a clause.
    Waits(String),
    /// It does not.
    Fails(Failure),
}

impl From<EngineError> for Shortfall {
    fn from(error: EngineError) -> Self {
        Self::Fails(Failure::from(&error))
    }
}

impl Shortfall {
    /// Describes the reason, and returns the remedy.
    pub(crate) fn describe(&self) -> (String, Option<&str>) {
        match self {
            Self::Waits(reason) => (reason.clone(), None),
            Self::Fails(failure) => (failure.to_string(), failure.remedy.as_deref()),
        }
    }

    /// Returns the failure of an error that lasts.
    pub(crate) fn lasting(error: &impl Explain) -> Self {
        Self::Fails(Failure::from(error))
    }
}

/// Returns why the host is too busy to boot a guest that nobody waits for; `None` if it is not. An unknown load counts as none.
pub(crate) fn busy(config: &WarmConfig, waiting_percent: Option<f64>) -> Option<Shortfall> {
    let limit = config.busy_percent;
    let waiting = waiting_percent?;
    let limit_percent = f64::from(u8::try_from(limit).unwrap_or(u8::MAX));
    // 100 turns the limit off.
    (limit < 100 && waiting > limit_percent).then(|| {
        Shortfall::Waits(format!(
            "the host is busy: processes waited for a processor in {waiting:.0} % of the last ten seconds (pool.busy_percent = {limit})"
        ))
    })
}

/// Returns why the host has too little memory for another warm guest; `None` if it has enough: idle guests would be paused afterwards.
/// `used` is the most that one used; 0 if that is unknown.
pub(crate) fn short_of_memory(
    config: &PressureConfig,
    reading: &MemoryReading,
    used: u64,
) -> Option<Shortfall> {
    let used = if used == 0 { GUEST_MEMORY } else { used };
    let afterwards = MemoryReading {
        available: reading.available.saturating_sub(used),
        ..*reading
    };
    config.is_short(&afterwards).then(|| {
        Shortfall::Waits(format!(
            "memory is short: {} % is available, and another guest takes {} MiB (pressure.pause_below_percent = {})",
            reading.available_percent(),
            used >> 20,
            config.pause_below_percent
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_host_boots_no_guest_that_nobody_waits_for() {
        let config = |busy_percent| WarmConfig {
            busy_percent,
            ..WarmConfig::default()
        };
        assert_eq!(busy(&config(50), Some(50.0)), None);
        assert!(busy(&config(50), Some(50.1)).is_some());
        assert!(busy(&config(0), Some(0.1)).is_some());
        assert_eq!(busy(&config(100), Some(100.0)), None);
        assert_eq!(busy(&config(0), None), None, "the load is unknown");
    }

    #[test]
    fn warm_guest_leaves_the_memory_above_all_bands() {
        let config = PressureConfig::default();
        let short = |available_percent: u64, used: u64| {
            let reading = MemoryReading {
                total: 100 << 30,
                available: available_percent << 30,
                swap_total: 0,
                swap_free: 0,
                stalled_percent: None,
            };
            short_of_memory(&config, &reading, used).is_some()
        };
        assert!(!short(17, 2 << 30));
        assert!(short(17, 3 << 30));
        assert!(short(15, 0), "its use is estimated before the first one");
        assert!(!short(16, 0));
    }
}
