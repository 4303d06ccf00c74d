//! Running time: the clock for everything that expires by age.
//!
//! The wall clock can jump, and continues while the host is off. A TTL that compares wall-clock times would then remove
//! everything at once. Running time advances only while the daemon runs: it is measured with the monotonic clock, which
//! stops while the host is suspended, and a process that was stopped or starved counts at most [`MAX_STEP`] for that.
//!
//! The store's thread records it every [`RECORD_EVERY`] and when it closes. A crash loses the unrecorded part, so a time
//! that was read before can be ahead of the clock afterwards; [`RunningTime::since`] is zero then. That can only delay
//! expiry.

use std::time::{Duration, Instant};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, Transaction};

use crate::error::QueryError;

/// The interval at which running time is recorded.
const RECORD_EVERY: Duration = Duration::from_secs(60);

/// The most that one step of the clock counts. The thread measures at least every [`RECORD_EVERY`]; a longer step means
/// that the process did not run.
const MAX_STEP: Duration = Duration::from_secs(120);

/// The default grace period; see [`Store::set_expiry_grace`](crate::Store::set_expiry_grace).
const DEFAULT_GRACE: Duration = Duration::from_secs(600);

/// A point in running time, from [`Store::running_time`](crate::Store::running_time).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunningTime(Duration);

impl RunningTime {
    /// Returns how long the daemon has run since `earlier`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the running time after this one by `duration`.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl ToSql for RunningTime {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // 292,000 years fit.
        Ok(i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX).into())
    }
}

impl FromSql for RunningTime {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = u64::try_from(value.as_i64()?).map_err(FromSqlError::other)?;
        Ok(Self(Duration::from_micros(micros)))
    }
}

/// Decides what has expired. From [`Store::expiry_clock`](crate::Store::expiry_clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryClock {
    now: RunningTime,
    is_in_grace: bool,
}

impl ExpiryClock {
    /// Reports whether an object that began at `began` is older than `lifetime`. Always false during the grace period
    /// after the daemon's start; see [`Store::set_expiry_grace`](crate::Store::set_expiry_grace).
    #[must_use]
    pub fn has_expired(&self, began: RunningTime, lifetime: Duration) -> bool {
        !self.is_in_grace && self.now.since(began) > lifetime
    }

    /// Returns the time before which everything with this lifetime has expired; `None` while nothing can have expired.
    pub(crate) fn expired_before(&self, lifetime: Duration) -> Option<RunningTime> {
        let before = self.now.0.checked_sub(lifetime).map(RunningTime);
        before.filter(|_| !self.is_in_grace)
    }

    /// Returns the present.
    #[must_use]
    pub fn now(&self) -> RunningTime {
        self.now
    }
}

/// The clock, as the store's thread keeps it.
#[derive(Debug)]
pub(crate) struct Clock {
    /// The running time at the last measurement.
    total: RunningTime,
    measured: Instant,
    recorded: Instant,
    /// The running time of this process alone.
    uptime: Duration,
    grace: Duration,
}

impl Clock {
    /// Continues from the recorded running time.
    pub(crate) fn read(connection: &Connection) -> Result<Self, QueryError> {
        let total =
            connection.query_row("SELECT micros FROM running_time", (), |row| row.get(0))?;
        let now = Instant::now();
        Ok(Self {
            total,
            measured: now,
            recorded: now,
            uptime: Duration::ZERO,
            grace: DEFAULT_GRACE,
        })
    }

    /// Returns the present.
    pub(crate) fn now(&mut self) -> RunningTime {
        self.now_at(Instant::now())
    }

    fn now_at(&mut self, instant: Instant) -> RunningTime {
        let step = instant
            .saturating_duration_since(self.measured)
            .min(MAX_STEP);
        self.measured = instant;
        self.uptime += step;
        self.total = RunningTime(self.total.0.saturating_add(step));
        self.total
    }

    pub(crate) fn expiry(&mut self) -> ExpiryClock {
        let now = self.now();
        ExpiryClock {
            now,
            is_in_grace: self.uptime < self.grace,
        }
    }

    pub(crate) fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Moves the clock forward.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.total = RunningTime(self.now().0.saturating_add(by));
    }

    /// Returns the time until the next recording.
    pub(crate) fn due_in(&self) -> Duration {
        RECORD_EVERY.saturating_sub(self.recorded.elapsed())
    }

    /// Puts the next recording off, even if this one fails: on a full disk, not every message should retry.
    pub(crate) fn begin_recording(&mut self) {
        self.recorded = Instant::now();
    }
}

/// Records the running time.
pub(crate) fn record(transaction: &Transaction<'_>, now: RunningTime) -> Result<(), QueryError> {
    transaction
        .prepare_cached("UPDATE running_time SET micros = ?1")?
        .execute([now])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(start: Instant) -> Clock {
        Clock {
            total: RunningTime(Duration::from_secs(1_000)),
            measured: start,
            recorded: start,
            uptime: Duration::ZERO,
            grace: DEFAULT_GRACE,
        }
    }

    #[test]
    fn step_of_a_stopped_process_is_capped() {
        let start = Instant::now();
        let mut clock = clock(start);
        let began = clock.total;
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(clock.now_at(after(60)).since(began).as_secs(), 60);
        assert_eq!(clock.now_at(after(120)).since(began).as_secs(), 120);
        let two_days = 2 * 86_400;
        assert_eq!(clock.now_at(after(two_days)).since(began).as_secs(), 240);
        assert_eq!(clock.uptime.as_secs(), 240);
        // Neither clock nor uptime goes back.
        assert_eq!(clock.now_at(start).since(began).as_secs(), 240);
    }

    #[test]
    fn expiry_waits_for_the_grace_period() {
        let began = RunningTime(Duration::from_secs(10));
        let mut expiry = ExpiryClock {
            now: RunningTime(Duration::from_secs(100)),
            is_in_grace: true,
        };
        assert!(!expiry.has_expired(began, Duration::from_secs(89)));
        assert_eq!(expiry.expired_before(Duration::from_secs(89)), None);
        expiry.is_in_grace = false;
        let before = RunningTime(Duration::from_secs(11));
        assert_eq!(expiry.expired_before(Duration::from_secs(89)), Some(before));
        assert_eq!(expiry.expired_before(Duration::from_secs(101)), None);
        assert!(expiry.has_expired(began, Duration::from_secs(89)));
        assert!(!expiry.has_expired(began, Duration::from_secs(90)));
        // After a crash, which lost the running time that was not recorded.
        let later = RunningTime(Duration::from_secs(130));
        assert!(!expiry.has_expired(later, Duration::ZERO));
    }

    #[test]
    fn grace_period_ends_while_the_daemon_runs() {
        let start = Instant::now();
        let mut clock = clock(start);
        for minute in 1..=10 {
            assert!(clock.uptime < clock.grace, "minute {minute}");
            clock.now_at(start + Duration::from_secs(60 * minute));
        }
        assert!(clock.uptime >= clock.grace);
    }
}
