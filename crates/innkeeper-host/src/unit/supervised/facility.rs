//! The facility traits of supervised units.

use std::time::Duration;

use async_trait::async_trait;
use innkeeper_facilities::{
    Console, ExecSession, FacilityError, Found, Prepared, Resource, UnitSeen, Units,
};
use innkeeper_model::api::{Check, ExecRequest};
use innkeeper_model::{Guest, GuestKind, GuestName, Limits, Ownership, StorePath};
use tokio::sync::broadcast;

use super::super::error::UnitError;
use super::super::supervisor::Supervisor;
use super::super::{cgroup, checks, journal, seats};
use super::SupervisedUnits;
use crate::tree::blocking;

#[async_trait]
impl<S: Supervisor> Resource for SupervisedUnits<S> {
    fn kind(&self) -> &'static str {
        "unit"
    }

    async fn observe(&self) -> Result<Vec<Found>, FacilityError> {
        Ok(self.found().await?)
    }

    async fn remove(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(Self::remove(self, guest).await?)
    }

    async fn sweep(&self, found: &Found) -> Result<(), FacilityError> {
        match &found.guest {
            Some(guest) if found.ownership == Ownership::Unmarked => {
                Ok(self.remove_unmarked(guest).await?)
            }
            Some(guest) => Ok(Self::remove(self, guest).await?),
            // All observed objects belong to a guest.
            None => Ok(()),
        }
    }

    async fn check(&self) -> Vec<Check> {
        let config = self.config();
        let programs = [
            &*config.nspawn,
            "nsenter".as_ref(),
            "setpriv".as_ref(),
            "setsid".as_ref(),
        ];
        let mut found = checks::programs(&programs);
        found.extend(self.supervisor.check());
        found.push(self.guests.filters.check());
        found
    }
}

#[async_trait]
impl<S: Supervisor> Units for SupervisedUnits<S> {
    fn supervisor(&self) -> &'static str {
        self.supervisor.name()
    }

    async fn phases(&self) -> Result<Vec<UnitSeen>, FacilityError> {
        let mut seen = Vec::new();
        for guest in self.all().await? {
            match self.look(&guest).await {
                Ok(unit) => seen.extend(unit),
                // A failure of one guest must not hide the others.
                Err(error) => tracing::warn!(%guest, "{}", innkeeper_model::chain(&error)),
            }
        }
        Ok(seen)
    }

    async fn phase(&self, guest: &GuestName) -> Result<Option<UnitSeen>, FacilityError> {
        match self.foreign(guest).await? {
            None if !self.is_taken(guest) => Ok(self.look(guest).await?),
            _ => Ok(None),
        }
    }

    async fn prepare(&self, guest: &Guest) -> Result<Option<Prepared>, FacilityError> {
        Ok(Self::prepare(self, guest).await?.map(Prepared::new))
    }

    async fn ensure(
        &self,
        guest: &Guest,
        prepared: Option<Prepared>,
    ) -> Result<UnitSeen, FacilityError> {
        let ready = prepared.and_then(Prepared::downcast);
        Ok(Self::ensure(self, guest, ready).await?)
    }

    fn fits_seat(&self, kind: GuestKind, closure: &StorePath, limits: &Limits) -> bool {
        seats::fits(kind, closure, limits)
    }

    async fn take_seat(&self, seat: &GuestName, guest: &Guest) -> Result<(), FacilityError> {
        Ok(Self::take_seat(self, seat, guest).await?)
    }

    async fn release(
        &self,
        guest: &GuestName,
        own: Option<&StorePath>,
    ) -> Result<(), FacilityError> {
        let cgroup = self.supervisor.groups(guest).guest;
        self.supervisor.confine(guest)?;
        let mounts = self.supervisor.mounts();
        Ok(self.guests.release(guest, own, &cgroup, mounts).await?)
    }

    async fn stop(&self, guest: &GuestName) -> Result<(), FacilityError> {
        Ok(Self::stop(self, guest).await?)
    }

    async fn freeze(&self, guest: &GuestName) -> Result<bool, FacilityError> {
        let freezer = self.supervisor.groups(guest).freezer;
        Ok(cgroup::freeze(&freezer).await.map_err(UnitError::from)?)
    }

    async fn thaw(&self, guest: &GuestName) -> Result<(), FacilityError> {
        let groups = self.supervisor.groups(guest);
        // A daemon that was killed may have left it permitted.
        cgroup::forbid_swap(&groups.memory).map_err(UnitError::from)?;
        Ok(cgroup::thaw(&groups.freezer).map_err(UnitError::from)?)
    }

    async fn reclaim(&self, guest: &GuestName) -> Result<Option<u64>, FacilityError> {
        let groups = self.supervisor.groups(guest);
        let reclaimed = blocking(move || cgroup::reclaim(&groups.memory, &groups.freezer));
        Ok(reclaimed.await.map_err(UnitError::from)?)
    }

    fn oom_kills(&self, guest: &GuestName) -> u64 {
        cgroup::oom_kills(&self.supervisor.groups(guest).memory)
    }

    fn memory(&self, guest: &GuestName) -> Option<u64> {
        cgroup::memory(&self.supervisor.groups(guest).memory)
    }

    fn cpu_time(&self, guest: &GuestName) -> Option<Duration> {
        cgroup::cpu_time(&self.supervisor.groups(guest).cpu)
    }

    async fn host_is_stopping(&self) -> bool {
        self.supervisor.host_is_stopping().await
    }

    fn endings(&self) -> broadcast::Receiver<GuestName> {
        self.guests.endings.subscribe()
    }

    async fn console(
        &self,
        guest: &Guest,
        lines: usize,
        follow: bool,
    ) -> Result<Console, FacilityError> {
        let end = follow.then(|| self.end(&guest.name));
        let lifetime = journal::lifetime(guest);
        // The lines of a seat belong to no guest's lifetime. They have those of its invocation, and no other guest's.
        let is_own = self.config().unit_name(&guest.name) == guest.name;
        let lifetime = is_own.then_some(lifetime.as_str());
        let console = self.supervisor.console(&guest.name, lifetime, lines, end);
        Ok(console.await?)
    }

    async fn exec(
        &self,
        guest: &GuestName,
        request: &ExecRequest,
    ) -> Result<ExecSession, FacilityError> {
        Ok(Self::exec(self, guest, request).await?)
    }
}
