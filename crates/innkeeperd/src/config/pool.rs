//! The settings of guests that are prepared in advance.

use innkeeper_engine::{WarmConfig, WarmGuests};
use innkeeper_model::{ClosureSource, Installable, StorePath};
use serde::{Deserialize, Serialize};

/// The most guests that may wait at their doors.
const MAX_SIZE: usize = 100;

/// The most guests that may wait booted.
const MAX_WARM: usize = 100;

/// Guests that wait without a name, so that a create takes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// The number of guests that wait at their doors; 0 means none.
    pub size: usize,
    /// Guests that wait booted and paused, by their closure.
    pub warm: Vec<WarmSettings>,
    /// No warm guest is booted while processes waited for a processor in more than this share of the last ten seconds, in percent;
    /// 100 means always.
    pub busy_percent: u64,
}

/// Guests of one closure that wait booted and paused. Without `flake` and `closure`, those of `nix.flake`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmSettings {
    /// The flake of agents that take them, as for `agent create --flake`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flake: Option<String>,
    /// Their closure, as for `agent create --closure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closure: Option<StorePath>,
    /// Their number.
    pub size: usize,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            size: 0,
            warm: Vec::new(),
            busy_percent: 50,
        }
    }
}

impl PoolSettings {
    /// Checks the section. `flake` and `attribute` are those of `nix`. The error is the setting and the problem.
    pub(super) fn validate(
        &self,
        flake: &str,
        attribute: &str,
    ) -> Result<(), (&'static str, String)> {
        if self.size > MAX_SIZE {
            return Err((
                "pool.size",
                "it must be at most 100: each guest that waits takes a slot".to_owned(),
            ));
        }
        let warm = self.warm.iter();
        if warm.fold(0, |sum: usize, one| sum.saturating_add(one.size)) > MAX_WARM {
            return Err((
                "pool.warm",
                "the sizes must be at most 100 together: each guest that waits takes memory"
                    .to_owned(),
            ));
        }
        if self.busy_percent > 100 {
            return Err(("pool.busy_percent", "it must be at most 100".to_owned()));
        }
        self.warm(flake, attribute).map(drop)
    }

    /// Returns the settings of the warm pool. `flake` and `attribute` are those of `nix`. The error is the setting and the problem.
    pub(crate) fn warm(
        &self,
        flake: &str,
        attribute: &str,
    ) -> Result<WarmConfig, (&'static str, String)> {
        let guests = self.warm.iter().map(|settings| {
            let source = settings.source(flake, attribute);
            Ok(WarmGuests {
                source: source.map_err(|problem| ("pool.warm", problem))?,
                size: settings.size,
            })
        });
        Ok(WarmConfig {
            guests: guests.collect::<Result<_, _>>()?,
            busy_percent: self.busy_percent,
            exercise_interval: WarmConfig::EXERCISE_INTERVAL,
        })
    }
}

impl WarmSettings {
    fn source(&self, default: &str, attribute: &str) -> Result<ClosureSource, String> {
        let flake = match (&self.flake, &self.closure) {
            (Some(_), Some(_)) => {
                return Err(
                    "an entry has a flake or a closure, not both: remove one of them".to_owned(),
                );
            }
            (None, Some(closure)) => return Ok(ClosureSource::Path(closure.clone())),
            (Some(flake), None) => flake,
            (None, None) if default.is_empty() => {
                return Err(
                    "an entry without flake and closure means nix.flake, which is not set: set one of them"
                        .to_owned(),
                );
            }
            (None, None) => default,
        };
        Installable::parse(flake, attribute)
            .map(ClosureSource::Flake)
            .map_err(|error| error.to_string())
    }
}
