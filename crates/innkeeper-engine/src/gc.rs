//! Removes what has our naming and belongs to no guest.

use std::collections::BTreeSet;

use innkeeper_host::facilities::{Found, FoundSnapshot};
use innkeeper_model::api::{GcReport, GcRequest, Orphan};
use innkeeper_model::{Failure, Guest, GuestName, Ownership, Snapshot};

use crate::EngineError;
use crate::engine::Engine;
use crate::observe::{ResourceRef, everything};

impl Engine {
    /// Finds orphans, and removes them unless the request is a dry run. Objects of other daemons are listed and never
    /// removed; those without any daemon's mark, only on request.
    ///
    /// # Errors
    /// When the host or the store cannot be asked. A failure to remove one orphan stands in the report.
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

    /// What has our naming and belongs to no guest of ours, and what belongs to other daemons.
    pub(crate) async fn orphans(&self) -> Result<Vec<(ResourceRef<'_>, Found)>, EngineError> {
        // While an operation is at work, what it has half made looks like a left-over.
        let quiet = self.inner.at_work.try_write().is_ok();
        // The host is asked before the store: a record is there before anything of its guest is.
        let mut all = everything(&self.inner.host).await?;
        let guests = self.inner.store.guests().await?;
        let known: BTreeSet<&GuestName> = guests.iter().map(|guest| &guest.name).collect();
        all.retain(|(_, found)| match &found.guest {
            _ if found.ownership == Ownership::Other => true,
            Some(guest) => !known.contains(guest),
            None => quiet,
        });
        if quiet {
            let rootfs: ResourceRef<'_> = &*self.inner.host.rootfs;
            let snapshots = self.unknown_snapshots(&guests).await?;
            all.extend(snapshots.into_iter().map(|found| (rootfs, found)));
            let retained = self.unknown_retained().await?;
            all.extend(retained.into_iter().map(|found| (rootfs, found)));
        }
        Ok(all)
    }

    /// Files of destroyed agents of which the store has no record.
    async fn unknown_retained(&self) -> Result<Vec<Found>, EngineError> {
        let mut all = self.inner.host.rootfs.retained().await?;
        let recorded = self.inner.store.retained_ids().await?;
        all.retain(|found| !recorded.contains(&found.id));
        Ok(all
            .into_iter()
            .map(|found| Found::ours(None, found.object))
            .collect())
    }

    /// Snapshots of guests that there are, of which nobody knows. Of other guests all goes together.
    async fn unknown_snapshots(&self, guests: &[Guest]) -> Result<Vec<Found>, EngineError> {
        let all = self.inner.host.rootfs.snapshots().await?;
        let recorded = self.inner.store.snapshots().await?;
        let of_idle_guest = |found: &FoundSnapshot| {
            let guest = guests.iter().find(|guest| guest.name == found.guest);
            // What is still to be taken, or to be deleted, is not left over.
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

    /// Whether somebody has taken a snapshot in the place of one that was left over.
    async fn is_recorded_snapshot(&self, found: &Found) -> Result<bool, EngineError> {
        let all = self.inner.host.rootfs.snapshots().await?;
        let recorded = self.inner.store.snapshots().await?;
        let snapshot = all.iter().find(|one| one.object == found.object);
        Ok(snapshot.is_some_and(|snapshot| is_recorded(snapshot, &recorded)))
    }

    /// Whether files of that name are those of a destroyed agent by now.
    async fn is_recorded_files(&self, found: &Found) -> Result<bool, EngineError> {
        let all = self.inner.host.rootfs.retained().await?;
        let recorded = self.inner.store.retained_ids().await?;
        let files = all.iter().find(|one| one.object == found.object);
        Ok(files.is_some_and(|files| recorded.contains(&files.id)))
    }

    /// Removes an orphan, unless it belongs to somebody by now. Says whether it is gone.
    async fn sweep(&self, resource: ResourceRef<'_>, found: &Found) -> Result<bool, EngineError> {
        match &found.guest {
            Some(guest) => {
                let _guest = self.inner.locks.lock(guest).await;
                if self.inner.store.guest(guest).await?.is_some() {
                    return Ok(false);
                }
                resource.sweep(found).await?;
            }
            None => {
                let Ok(_nobody_works) = self.inner.at_work.try_write() else {
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

/// Whether a request for garbage collection removes an orphan. Another daemon's objects are not even asked for.
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
