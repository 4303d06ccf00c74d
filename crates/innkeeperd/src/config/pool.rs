//! The settings of guests that are prepared in advance.

use serde::{Deserialize, Serialize};

/// The most guests that may wait at their doors.
const MAX_SIZE: usize = 100;

/// Guests that wait at their doors, so that a create takes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// The number of guests that wait; 0 means none.
    pub size: usize,
}

impl PoolSettings {
    /// Checks the section. The error is the setting and the problem.
    pub(super) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if self.size > MAX_SIZE {
            return Err((
                "pool.size",
                "it must be at most 100: each guest that waits takes a slot",
            ));
        }
        Ok(())
    }
}
