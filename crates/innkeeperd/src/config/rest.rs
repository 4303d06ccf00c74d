//! The settings of guests that are not in use.

use std::time::Duration;

use innkeeper_engine::{ActivityConfig, KindRest, RestConfig};
use innkeeper_model::{DaemonId, IdlePolicy};
use serde::{Deserialize, Serialize};

/// The measurement of guests' use, and its consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RestSettings {
    /// The traffic of a guest, in bytes per second over ten seconds, from which it is in use. Less is a keep-alive.
    pub bytes_per_second: u64,
    /// The processor time of a guest, in percent of one processor over ten seconds, from which it is in use.
    pub cpu_percent: u32,
    /// Idle agents.
    pub agents: KindSettings,
    /// Idle previews.
    pub previews: KindSettings,
    /// The group of the kernel's packet log (NFLOG) that reports packets to paused guests; 0 means one that follows from the
    /// daemon's identity. No other program on the host may use it.
    pub log_group: u16,
}

/// Idle guests of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KindSettings {
    /// The policy of guests without one of their own: sleep, pause or always_on.
    pub idle: IdlePolicy,
    /// The idle time after which a guest is paused, in seconds; 0 means never.
    pub pause_after_seconds: u64,
    /// The idle time after which a guest is put to sleep, in seconds; 0 means never.
    pub sleep_after_seconds: u64,
}

impl Default for KindSettings {
    fn default() -> Self {
        Self {
            idle: IdlePolicy::Sleep,
            pause_after_seconds: 300,
            sleep_after_seconds: 2100,
        }
    }
}

impl KindSettings {
    fn rest(self) -> KindRest {
        KindRest {
            idle: self.idle,
            pause_after: Duration::from_secs(self.pause_after_seconds),
            sleep_after: Duration::from_secs(self.sleep_after_seconds),
        }
    }

    /// Reports whether a guest would be put to sleep before it is paused.
    fn sleeps_first(self) -> bool {
        (1..=self.pause_after_seconds).contains(&self.sleep_after_seconds)
    }
}

impl Default for RestSettings {
    fn default() -> Self {
        let ActivityConfig {
            bytes_per_second,
            cpu_percent,
        } = ActivityConfig::default();
        Self {
            bytes_per_second,
            cpu_percent,
            agents: KindSettings::default(),
            previews: KindSettings::default(),
            log_group: 0,
        }
    }
}

impl RestSettings {
    /// Returns the thresholds for the engine.
    #[must_use]
    pub fn activity(&self) -> ActivityConfig {
        ActivityConfig {
            bytes_per_second: self.bytes_per_second,
            cpu_percent: self.cpu_percent,
        }
    }

    /// Returns the rules of rest for the engine.
    #[must_use]
    pub fn rest(&self) -> RestConfig {
        RestConfig {
            agents: self.agents.rest(),
            previews: self.previews.rest(),
        }
    }

    /// Returns the group of the packet log for a daemon.
    #[must_use]
    pub fn log_group(&self, daemon: &DaemonId) -> u16 {
        if self.log_group != 0 {
            return self.log_group;
        }
        // Other programs mostly use small numbers.
        let sum = |sum: u16, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte));
        daemon.to_string().bytes().fold(0, sum) | 0x8000
    }

    /// Checks the section. The error is the setting and the problem.
    pub(super) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.bytes_per_second == 0 {
            return Err((
                "rest.bytes_per_second",
                "it must be at least 1, or guests without traffic would be in use",
            ));
        }
        if self.cpu_percent == 0 {
            return Err((
                "rest.cpu_percent",
                "it must be at least 1, or guests without processes that run would be in use",
            ));
        }
        let later = "it must be 0, or more than pause_after_seconds: a guest is paused first";
        for (setting, kind) in [
            ("rest.agents.sleep_after_seconds", self.agents),
            ("rest.previews.sleep_after_seconds", self.previews),
        ] {
            if kind.sleeps_first() {
                return Err((setting, later));
            }
        }
        Ok(())
    }
}
