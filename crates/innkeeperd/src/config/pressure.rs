//! The settings of a lack of memory on the host.

use std::time::Duration;

use innkeeper_engine::PressureConfig;
use serde::{Deserialize, Serialize};

/// Bands of the host's available memory, in percent of all memory, and their conditions. Zero turns a band off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PressureSettings {
    /// Idle guests are paused below this, and the memory of paused ones is reclaimed.
    pub pause_below_percent: u8,
    /// Idle guests are put to sleep below this, the longest idle first.
    pub sleep_below_percent: u8,
    /// No guest is started below this.
    pub refuse_below_percent: u8,
    /// Guests in use are put to sleep below this, too.
    pub emergency_below_percent: u8,
    /// Idle guests are also paused when all processes waited for memory in this share of the last ten seconds, in percent.
    pub stalled_percent: u8,
    /// The time without use after which a guest counts as idle here, in seconds.
    pub idle_seconds: u64,
    /// Moves the memory of paused guests to swap or zram.
    pub reclaim: bool,
}

impl Default for PressureSettings {
    fn default() -> Self {
        Self {
            pause_below_percent: 15,
            sleep_below_percent: 10,
            refuse_below_percent: 5,
            emergency_below_percent: 0,
            stalled_percent: 20,
            idle_seconds: 60,
            reclaim: true,
        }
    }
}

impl PressureSettings {
    /// Returns the bands for the engine.
    #[must_use]
    pub fn pressure(&self) -> PressureConfig {
        PressureConfig {
            pause_below_percent: self.pause_below_percent.into(),
            sleep_below_percent: self.sleep_below_percent.into(),
            refuse_below_percent: self.refuse_below_percent.into(),
            emergency_below_percent: self.emergency_below_percent.into(),
            stalled_percent: self.stalled_percent.into(),
            idle: Duration::from_secs(self.idle_seconds),
            reclaim: self.reclaim,
        }
    }

    /// Checks the section. The error is the setting and the problem.
    pub(super) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let percentages = [
            ("pressure.pause_below_percent", self.pause_below_percent),
            ("pressure.sleep_below_percent", self.sleep_below_percent),
            ("pressure.refuse_below_percent", self.refuse_below_percent),
            (
                "pressure.emergency_below_percent",
                self.emergency_below_percent,
            ),
            ("pressure.stalled_percent", self.stalled_percent),
        ];
        for (setting, percent) in percentages {
            if percent > 100 {
                return Err((setting, "it must be between 0 and 100"));
            }
        }
        if self.emergency_below_percent > self.sleep_below_percent {
            return Err((
                "pressure.emergency_below_percent",
                "it must be at most pressure.sleep_below_percent: idle guests are put to sleep before those in use",
            ));
        }
        if self.idle_seconds < LEAST_IDLE {
            return Err((
                "pressure.idle_seconds",
                "it must be at least 10: a guest's use is measured over ten seconds",
            ));
        }
        Ok(())
    }
}

/// The shortest time after which a guest can count as idle, in seconds.
const LEAST_IDLE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_bands_are_those_of_the_engine() {
        let settings = PressureSettings::default();
        assert_eq!(settings.pressure(), PressureConfig::default());
        assert_eq!(settings.validate(), Ok(()));
    }

    #[test]
    fn impossible_bands_are_rejected() {
        let valid = PressureSettings::default();
        let rejected = [
            PressureSettings {
                pause_below_percent: 101,
                ..valid
            },
            PressureSettings {
                emergency_below_percent: 11,
                ..valid
            },
            PressureSettings {
                idle_seconds: 9,
                ..valid
            },
        ];
        for settings in rejected {
            assert!(settings.validate().is_err(), "{settings:?}");
        }
    }
}
