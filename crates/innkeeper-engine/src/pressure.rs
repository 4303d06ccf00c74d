//! Decides what is done about a lack of memory on the host, from its memory and its guests. Pure.
//!
//! | available memory | action |
//! | --- | --- |
//! | below `pause_below_percent`, or processes wait for memory | idle guests are paused, and the memory of paused ones is reclaimed |
//! | below `sleep_below_percent` | as many idle guests are put to sleep as are needed to get above it, the longest idle first |
//! | below `refuse_below_percent` | no guest is started |
//! | below `emergency_below_percent` | guests in use are put to sleep, too |

use std::time::Duration;

use innkeeper_facilities::MemoryReading;
use innkeeper_model::{GuestName, MemoryBand};

use crate::sleep_order::{Candidate, WORTHWHILE, sleep_order};

/// The bands of available memory, in percent of all memory, and their conditions. Zero turns a band off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PressureConfig {
    /// Idle guests are paused and reclaimed below this.
    pub pause_below_percent: u64,
    /// They are put to sleep below this.
    pub sleep_below_percent: u64,
    /// No guest is started below this.
    pub refuse_below_percent: u64,
    /// Guests in use are put to sleep below this.
    pub emergency_below_percent: u64,
    /// Idle guests are also paused and reclaimed when all processes together waited for memory for this share of the last ten
    /// seconds.
    pub stalled_percent: u64,
    /// The time without use after which a guest counts as idle here.
    pub idle: Duration,
    /// Memory of paused guests is reclaimed.
    pub reclaim: bool,
}

impl Default for PressureConfig {
    fn default() -> Self {
        Self {
            pause_below_percent: 15,
            sleep_below_percent: 10,
            refuse_below_percent: 5,
            emergency_below_percent: 0,
            stalled_percent: 20,
            idle: Duration::from_secs(60),
            reclaim: true,
        }
    }
}

impl PressureConfig {
    /// Returns the band of a reading.
    pub(crate) fn band(&self, reading: &MemoryReading) -> MemoryBand {
        let is_below = |percent: u64| percent > 0 && is_below(reading, percent);
        let stalls = reading.stalled_percent.unwrap_or(0.0);
        let is_stalled = self.stalled_percent > 0 && stalls >= percent(self.stalled_percent);
        if is_below(self.emergency_below_percent) {
            MemoryBand::Emergency
        } else if is_below(self.refuse_below_percent) {
            MemoryBand::Refuse
        } else if is_below(self.sleep_below_percent) {
            MemoryBand::Sleep
        } else if is_below(self.pause_below_percent) || is_stalled {
            MemoryBand::Pause
        } else {
            MemoryBand::Normal
        }
    }

    /// Reports whether idle guests are paused because too little memory is available, or processes wait for it.
    pub(crate) fn is_short(&self, reading: &MemoryReading) -> bool {
        self.band(reading) != MemoryBand::Normal
    }

    /// Reports whether no guest may be started.
    pub(crate) fn refuses(&self, reading: &MemoryReading) -> bool {
        self.refuse_below_percent > 0 && is_below(reading, self.refuse_below_percent)
    }
}

fn is_below(reading: &MemoryReading, percent: u64) -> bool {
    reading.available < share(reading, percent)
}

/// Returns a share of all memory in bytes.
fn share(reading: &MemoryReading, percent: u64) -> u64 {
    let bytes = u128::from(reading.total) * u128::from(percent) / 100;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A percentage of a setting, which is at most 100.
fn percent(setting: u64) -> f64 {
    f64::from(u8::try_from(setting).unwrap_or(u8::MAX))
}

/// A guest with processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) name: GuestName,
    /// Its processes are frozen.
    pub(crate) is_paused: bool,
    /// The time since its last use.
    pub(crate) idle: Duration,
    /// Its memory in bytes. `None` where that cannot be read.
    pub(crate) memory: Option<u64>,
    /// It stays awake, whatever its use is.
    pub(crate) is_exempt: bool,
    /// It is being paused or put to sleep because of an earlier decision.
    pub(crate) is_leaving: bool,
    /// Its memory was reclaimed since it was paused.
    pub(crate) is_reclaimed: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    /// Guests to pause.
    pub(crate) pause: Vec<GuestName>,
    /// Paused guests whose memory is to be reclaimed.
    pub(crate) reclaim: Vec<GuestName>,
    /// Guests to put to sleep.
    pub(crate) sleep: Vec<GuestName>,
}

/// Decides what is to be done now. Actions of earlier decisions count as done.
pub(crate) fn decide(
    config: &PressureConfig,
    reading: &MemoryReading,
    residents: &[Resident],
) -> Actions {
    let band = config.band(reading);
    let mut actions = Actions::default();
    if band >= MemoryBand::Sleep {
        actions.sleep = to_sleep(config, reading, band, residents);
    }
    if band >= MemoryBand::Pause {
        let stays = |one: &&Resident| !one.is_leaving && !actions.sleep.contains(&one.name);
        let names = |chosen: &dyn Fn(&Resident) -> bool| {
            let chosen = residents.iter().filter(stays).filter(|one| chosen(one));
            chosen.map(|one| one.name.clone()).collect()
        };
        let is_idle = |one: &Resident| !one.is_exempt && one.idle >= config.idle;
        let (pause, reclaim) = (
            names(&|one| !one.is_paused && is_idle(one)),
            names(&|one| {
                let is_large = one.memory.is_some_and(|bytes| bytes >= WORTHWHILE);
                config.reclaim && one.is_paused && !one.is_reclaimed && is_large
            }),
        );
        (actions.pause, actions.reclaim) = (pause, reclaim);
    }
    actions
}

/// Returns the guests to put to sleep: as many as are needed to get above the band.
fn to_sleep(
    config: &PressureConfig,
    reading: &MemoryReading,
    band: MemoryBand,
    residents: &[Resident],
) -> Vec<GuestName> {
    let goal = match band {
        MemoryBand::Emergency => config.emergency_below_percent,
        _ => 0,
    };
    let goal = share(reading, goal.max(config.sleep_below_percent));
    let leaving = residents.iter().filter(|one| one.is_leaving);
    // One whose memory is unknown may be enough.
    let freed = |one: &Resident| one.memory.unwrap_or(u64::MAX);
    let mut available = leaving
        .map(freed)
        .fold(reading.available, u64::saturating_add);
    let free: Vec<_> = residents.iter().filter(|one| !one.is_leaving).collect();
    let candidates: Vec<_> = free
        .iter()
        .filter(|one| !one.is_exempt)
        .map(|one| Candidate {
            name: one.name.clone(),
            idle: one.idle,
            memory: one.memory,
        })
        .collect();
    let least = match band {
        MemoryBand::Emergency => Duration::ZERO,
        _ => config.idle,
    };
    let mut chosen = Vec::new();
    for candidate in sleep_order(&candidates, least) {
        // Those with little memory end only when starts are refused.
        let is_worthwhile = candidate.is_worthwhile() || band >= MemoryBand::Refuse;
        if available >= goal || !is_worthwhile {
            break;
        }
        let resident = free.iter().find(|one| one.name == candidate.name);
        available = available.saturating_add(resident.map_or(0, |one| freed(one)));
        chosen.push(candidate.name.clone());
    }
    chosen
}

#[cfg(test)]
mod tests;
