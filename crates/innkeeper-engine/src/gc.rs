//! Garbage collection: removes orphans, objects with Innkeeper's naming that belong to no guest.

use std::collections::BTreeSet;

use innkeeper_facilities::{Found, FoundSnapshot};
use innkeeper_model::api::{GcReport, GcRequest, Orphan};
use innkeeper_model::{Failure, Guest, GuestName, Ownership, Snapshot};

use crate::EngineError;
use crate::engine::Engine;
use crate::observe::{ResourceRef, everything};

impl Engine {
    /// Finds orphans, and removes them unless the request is a dry run. Lists objects of other daemons and never removes
    /// them. Removes unmarked objects only on request.
    ///
    /// # Errors
    /// When the host or the store cannot be queried. The report contains failures to remove single orphans.
    pub async fn gc(&self, request: GcRequest) -> Result<GcReport, EngineError> {
        let mut orphans = Vec::new();
        for (resource, found) in self.orphans().await? {
            let result = if removes(request, found.ownership) {
                self.sweep(resource, &found).await
            } else {
                Ok(false)
            };
            orphans.push(Orphan {
                resource: resource.kind().to_owned(),
                object: found.object,
                removed: matches!(result, Ok(true)),
                ownership: found.ownership,
                failure: result.err().as_ref().map(Failure::from),
            });
        }
        Ok(GcReport {
            dry_run: request.dry_run,
            orphans,
            failures: Vec::new(),
        })
    }

    /// Returns orphans, and the objects of other daemons.
    pub(crate) async fn orphans(&self) -> Result<Vec<(ResourceRef<'_>, Found)>, EngineError> {
        // While an operation is in flight, its half-made objects look like orphans.
        let idle = self.inner.activity.try_write().is_ok();
        // Query the host before the store: a guest's record is older than its objects.
        let mut all = everything(&self.inner.host).await?;
        let guests = self.inner.store.guests().await?;
        let seats = self.inner.seats().await?;
        let names = guests.iter().map(|guest| &guest.name);
        let known: BTreeSet<&GuestName> = names.chain(&seats).collect();
        all.retain(|(_, found)| match &found.guest {
            _ if found.ownership == Ownership::Other => true,
            Some(guest) => !known.contains(guest),
            None => idle,
        });
        if idle {
            let rootfs: ResourceRef<'_> = &*self.inner.host.rootfs;
            let snapshots = self.unknown_snapshots(&guests).await?;
            all.extend(snapshots.into_iter().map(|found| (rootfs, found)));
            let retained = self.unknown_retained().await?;
            all.extend(retained.into_iter().map(|found| (rootfs, found)));
        }
        Ok(all)
    }

    /// Returns retained files without a record.
    async fn unknown_retained(&self) -> Result<Vec<Found>, EngineError> {
        let mut all = self.inner.host.rootfs.retained().await?;
        let recorded = self.inner.store.retained_ids().await?;
        all.retain(|found| !recorded.contains(&found.id));
        Ok(all
            .into_iter()
            .map(|found| Found::ours(None, found.object))
            .collect())
    }

    /// Returns existing guests' snapshots without a record. Other guests' snapshots are removed with their trees.
    async fn unknown_snapshots(&self, guests: &[Guest]) -> Result<Vec<Found>, EngineError> {
        let all = self.inner.host.rootfs.snapshots().await?;
        let recorded = self.inner.store.snapshots().await?;
        let of_idle_guest = |found: &FoundSnapshot| {
            let guest = guests.iter().find(|guest| guest.name == found.guest);
            // A pending snapshot or deletion is no orphan.
            guest.is_some_and(|guest| guest.file_work.is_none())
        };
        Ok(all
            .into_iter()
            .filter(|found| of_idle_guest(found) && !is_recorded(found, &recorded))
            .map(|found| Found {
                guest: None,
                object: found.object,
                ownership: found.ownership,
            })
            .collect())
    }

    /// Reports whether a snapshot of that name was recorded meanwhile.
    async fn is_recorded_snapshot(&self, found: &Found) -> Result<bool, EngineError> {
        let all = self.inner.host.rootfs.snapshots().await?;
        let recorded = self.inner.store.snapshots().await?;
        let snapshot = all.iter().find(|one| one.object == found.object);
        Ok(snapshot.is_some_and(|snapshot| is_recorded(snapshot, &recorded)))
    }

    /// Reports whether retained files of that name were recorded meanwhile.
    async fn is_recorded_files(&self, found: &Found) -> Result<bool, EngineError> {
        let all = self.inner.host.rootfs.retained().await?;
        let recorded = self.inner.store.retained_ids().await?;
        let files = all.iter().find(|one| one.object == found.object);
        Ok(files.is_some_and(|files| recorded.contains(&files.id)))
    }

    /// Removes an orphan unless it has an owner by now. Returns true if it is gone.
    async fn sweep(&self, resource: ResourceRef<'_>, found: &Found) -> Result<bool, EngineError> {
        match &found.guest {
            Some(guest) => {
                let _guest = self.inner.guest_locks.lock(guest).await;
                if self.inner.store.guest(guest).await?.is_some()
                    || self.inner.seats().await?.contains(guest)
                {
                    return Ok(false);
                }
                resource.sweep(found).await?;
            }
            None => {
                let Ok(_idle) = self.inner.activity.try_write() else {
                    return Ok(false);
                };
                if self.is_recorded_snapshot(found).await? || self.is_recorded_files(found).await? {
                    return Ok(false);
                }
                resource.sweep(found).await?;
            }
        }
        Ok(true)
    }
}

/// Reports whether a garbage collection removes objects of that ownership. Another daemon's objects are never removed.
#[must_use]
pub fn removes(request: GcRequest, ownership: Ownership) -> bool {
    let may = match ownership {
        Ownership::Ours => true,
        Ownership::Unmarked => request.unmarked,
        Ownership::Other => false,
    };
    may && !request.dry_run
}

fn is_recorded(found: &FoundSnapshot, recorded: &[Snapshot]) -> bool {
    recorded
        .iter()
        .any(|one| (&one.guest, &one.label) == (&found.guest, &found.label))
}
