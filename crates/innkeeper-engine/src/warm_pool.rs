//! The warm pool: a few guests of configured closures are kept booted and paused, and a new agent takes one.
//!
//! ```text
//!  boot ──► up ──► paused ──► taken: name, keys, credentials; continued
//!    │       │        ├─ once a minute, it runs for a second
//!    └───────┴────────┴─────► removed: another closure, a lack of memory, disk or slots, another daemon
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use innkeeper_model::api::{Check, Verdict};
use innkeeper_model::{
    Backoff, ClosureSource, Explain, GuestKind, Installable, StorePath, UnitPhase,
};
use innkeeper_store::{NewGuest, Seat};
use tracing::warn;

use crate::EngineError;
use crate::engine::Engine;
use crate::inner::Inner;
use crate::warm::{Found, Shortfall, WarmGuests, busy, short_of_memory};

/// The delays between checks: they grow while guests do not come up.
const DELAYS: Backoff = Backoff::new(Duration::from_secs(30), Duration::from_secs(960));

/// The time that guests that wait run at intervals: all of their services report in it.
const EXERCISE: Duration = Duration::from_secs(1);

/// The subject of the findings in `innkeeper doctor`.
const SUBJECT: &str = "warm pool";

impl Engine {
    /// Keeps warm guests until the engine stops.
    pub(crate) async fn keep_warm(&self) {
        if self.inner.config.warm.guests.is_empty() {
            return;
        }
        let mut failures = 0;
        loop {
            let found = self.fill_warm().await;
            failures = match found.iter().any(Found::has_failed) {
                true => failures + 1,
                false => 0,
            };
            self.report_warm(found);
            let changed = async {
                // A guest that does not come up is not booted again with each create.
                match failures {
                    0 => self.inner.warm.changed.notified().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = changed => {}
                () = tokio::time::sleep(DELAYS.delay(failures)) => {}
            }
        }
    }

    /// Lets warm guests run for a moment at intervals, until the engine stops.
    pub(crate) async fn exercise_warm(&self) {
        if self.inner.config.warm.guests.is_empty() {
            return;
        }
        loop {
            tokio::select! {
                () = self.inner.stopping.cancelled() => return,
                () = tokio::time::sleep(self.inner.config.warm.exercise_interval) => {}
            }
            let seats = self.inner.warm_seats().await.unwrap_or_default();
            let ready = seats.iter().filter(|seat| is_free(seat));
            let exercises = ready.map(async |seat| {
                if let Err(error) = self.inner.exercise(seat.slot, EXERCISE).await {
                    warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
                }
            });
            futures_util::future::join_all(exercises).await;
        }
    }

    /// Reports whether a new guest is one that a warm guest can become: an agent with the default limits.
    pub(crate) fn fits_warm(&self, new: &NewGuest) -> bool {
        let config = &self.inner.config;
        !config.warm.guests.is_empty()
            && new.kind == GuestKind::Agent
            && new.limits == config.limits
    }

    /// Checks that warm guests wait.
    pub(crate) async fn check_warm(&self) -> Result<Vec<Check>, EngineError> {
        let seats = self.inner.warm_seats().await?;
        let found = self.inner.warm.found.lock().clone();
        let mut found = found.into_iter();
        let checks = self.inner.config.warm.guests.iter().map(|guests| {
            let Found { closure, shortfall } = found.next().unwrap_or_default();
            let of_closure = |seat: &&Seat| is_free(seat) && seat.closure == closure;
            let ready = seats.iter().filter(of_closure).count().min(guests.size);
            check(guests, ready, shortfall.as_ref())
        });
        Ok(checks.collect())
    }

    fn report_warm(&self, found: Vec<Found>) {
        let mut former = self.inner.warm.found.lock();
        for (index, now) in found.iter().enumerate() {
            let before = former.get(index).and_then(|one| one.shortfall.as_ref());
            // While it lasts, each attempt would log the same.
            if let Some(shortfall @ Shortfall::Fails(_)) = &now.shortfall
                && before != Some(shortfall)
            {
                let label = self.inner.config.warm.guests[index].label();
                warn!("no warm guest of {label}: {}", shortfall.describe().0);
            }
        }
        *former = found;
    }

    /// Removes warm guests that are not wanted any more, and boots missing ones.
    async fn fill_warm(&self) -> Vec<Found> {
        let mut all = Vec::new();
        for guests in &self.inner.config.warm.guests {
            all.push(match self.warm_closure(guests).await {
                Ok(closure) => Found {
                    closure: Some(closure),
                    shortfall: None,
                },
                Err(shortfall) => Found {
                    closure: None,
                    shortfall: Some(shortfall),
                },
            });
        }
        let wanted = self.wanted(&all);
        if let Err(error) = self.inner.remove_unwanted(&wanted).await {
            warn!(code = %error.code(), "{}", innkeeper_model::chain(&error));
        }
        for found in &mut all {
            if let Some(closure) = &found.closure {
                let count = wanted.get(closure).copied().unwrap_or(0);
                found.shortfall = self.boot_missing(closure, count).await.err();
            }
        }
        all
    }

    /// Returns the number of guests by closure.
    fn wanted(&self, found: &[Found]) -> BTreeMap<StorePath, usize> {
        let mut wanted = BTreeMap::new();
        for (guests, found) in self.inner.config.warm.guests.iter().zip(found) {
            if let Some(closure) = &found.closure {
                *wanted.entry(closure.clone()).or_insert(0) += guests.size;
            }
        }
        wanted
    }

    async fn boot_missing(&self, closure: &StorePath, count: usize) -> Result<(), Shortfall> {
        loop {
            let seats = self.inner.warm_seats().await?;
            let of_closure = |seat: &&Seat| is_free(seat) && seat.closure.as_ref() == Some(closure);
            if seats.iter().filter(of_closure).count() >= count {
                return Ok(());
            }
            self.await_quiet().await;
            if self.inner.stopping.is_cancelled() {
                return Ok(());
            }
            self.inner.require_spare().await?;
            self.inner.make_warm_seat(closure).await?;
        }
    }

    /// Returns the closure of warm guests, which can be booted.
    async fn warm_closure(&self, guests: &WarmGuests) -> Result<StorePath, Shortfall> {
        if !self.can_take_seats() {
            return Err(EngineError::NoSeats.into());
        }
        if self.inner.no_freezer.load(Ordering::Relaxed) {
            return Err(EngineError::WarmNeedsFreezer.into());
        }
        let closure = match &guests.source {
            ClosureSource::Path(path) => path.clone(),
            ClosureSource::Flake(flake) | ClosureSource::MemberFlake(flake) => {
                self.last_build(flake).await?
            }
        };
        let host = &self.inner.host;
        host.closures
            .verify(&closure)
            .await
            .map_err(|error| Shortfall::lasting(&error))?;
        let limits = &self.inner.config.limits;
        match host.units.fits_seat(GuestKind::Agent, &closure, limits) {
            true => Ok(closure),
            false => Err(EngineError::WarmWithNix(closure).into()),
        }
    }

    /// Returns the closure of the last build of a flake.
    async fn last_build(&self, flake: &Installable) -> Result<StorePath, EngineError> {
        let cached = self.inner.store.cached_closure(flake).await?;
        let cached = cached.ok_or_else(|| EngineError::NotBuilt(flake.clone()))?;
        Ok(cached.closure)
    }
}

impl Inner {
    /// Returns the warm seats, also those that a guest has taken and not left.
    async fn warm_seats(&self) -> Result<Vec<Seat>, EngineError> {
        let mut seats = self.store.seats().await?;
        seats.retain(|seat| seat.closure.is_some());
        Ok(seats)
    }

    /// Removes warm seats that have ended, that are not ready, that have another closure, or that are too many.
    async fn remove_unwanted(
        &self,
        wanted: &BTreeMap<StorePath, usize>,
    ) -> Result<(), EngineError> {
        let mut left = wanted.clone();
        for seat in self.warm_seats().await? {
            if seat.guest.is_some() {
                continue;
            }
            let count = seat
                .closure
                .as_ref()
                .and_then(|closure| left.get_mut(closure));
            let is_alive = self.is_seat_alive(seat.slot, UnitPhase::Running).await?;
            match count {
                Some(count) if *count > 0 && seat.ready && is_alive => *count -= 1,
                _ => self.remove_seat(seat.slot).await?,
            }
        }
        Ok(())
    }

    /// Fails unless the host has processors, memory and space to spare.
    async fn require_spare(&self) -> Result<(), Shortfall> {
        if self.is_warm_held() {
            return Err(Shortfall::Waits(
                "guests needed memory, space or slots a moment ago".to_owned(),
            ));
        }
        let load = self.host.load.waiting_percent().ok();
        let memory = self.host.memory.read();
        let used = *self.warm.memory.lock();
        let short = memory
            .ok()
            .and_then(|reading| short_of_memory(&self.config.pressure, &reading, used));
        if let Some(shortfall) = busy(&self.config.warm, load).or(short) {
            return Err(shortfall);
        }
        // Does not purge retained files: nobody waits for this.
        let room = self.host.rootfs.require_room().await;
        room.map_err(|error| Shortfall::Waits(innkeeper_model::chain(&error)))
    }

    /// Records that the host cannot suspend processes.
    pub(crate) fn lacks_freezer(&self) {
        self.no_freezer.store(true, Ordering::Relaxed);
    }
}

fn is_free(seat: &Seat) -> bool {
    seat.ready && seat.guest.is_none()
}

fn check(guests: &WarmGuests, ready: usize, shortfall: Option<&Shortfall>) -> Check {
    let (size, label) = (guests.size, guests.label());
    let counted = format!("{ready} of {size} guests of {label} wait booted");
    let is_short = ready < size;
    let (finding, remedy) = match shortfall.filter(|_| is_short) {
        Some(shortfall) => {
            let (reason, remedy) = shortfall.describe();
            (format!("{counted}: {reason}"), remedy.map(str::to_owned))
        }
        None => (counted, None),
    };
    Check {
        subject: SUBJECT.to_owned(),
        verdict: match shortfall {
            Some(Shortfall::Fails(_)) if is_short => Verdict::Warning,
            _ => Verdict::Ok,
        },
        finding,
        remedy,
    }
}

/// Returns the flakes of warm guests, whose builds they need.
pub(crate) fn flakes(guests: &[WarmGuests]) -> impl Iterator<Item = &Installable> {
    guests.iter().filter_map(|guests| match &guests.source {
        ClosureSource::Flake(flake) => Some(flake),
        ClosureSource::Path(_) | ClosureSource::MemberFlake(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use innkeeper_model::{Code, Failure};

    #[test]
    fn finding_names_the_reason_only_while_guests_are_missing() {
        let path = "/nix/store/n6493hpj13gq9qi78yj3r3gwzljw9phk-agent";
        let guests = WarmGuests {
            source: ClosureSource::Path(StorePath::parse(path).expect("valid")),
            size: 2,
        };
        let failure = Failure::new(Code::Internal, "it fails".to_owned());
        let fails = Shortfall::Fails(failure.with_remedy("Mend it."));
        let waits = Shortfall::Waits("the host is busy".to_owned());
        let of = |ready, shortfall| {
            let check = check(&guests, ready, shortfall);
            (check.verdict, check.finding, check.remedy)
        };
        let counted = |ready| format!("{ready} of 2 guests of {path} wait booted");
        assert_eq!(of(2, Some(&fails)), (Verdict::Ok, counted(2), None));
        let waiting = format!("{}: the host is busy", counted(0));
        assert_eq!(of(0, Some(&waits)), (Verdict::Ok, waiting, None));
        let failing = format!("{}: it fails", counted(1));
        let remedy = Some("Mend it.".to_owned());
        assert_eq!(of(1, Some(&fails)), (Verdict::Warning, failing, remedy));
    }
}
