//! Diagnosis: read-only checks from the kernel to each guest.

use std::time::Duration;

use innkeeper_model::api::{Check, DoctorReport, Verdict};
use innkeeper_model::{
    DesiredState, Guest, GuestState, Ownership, Retained, Snapshot, UnitPhase, Verb,
};

use crate::EngineError;
use crate::engine::Engine;
use crate::plan::{Goal, plan};

/// The time in which the rules follow a change of the host.
const RULES_FOLLOW: Duration = Duration::from_secs(1);

impl Engine {
    /// Checks the host, then each guest, then orphans.
    ///
    /// # Errors
    /// When the store cannot be read. A failed query of the host is a finding.
    pub async fn doctor(&self) -> Result<DoctorReport, EngineError> {
        let host = &self.inner.host;
        let mut checks = host.features.check().await;
        checks.extend(host.memory.check().await);
        checks.extend(host.closures.check().await);
        checks.extend(host.rootfs.check().await);
        checks.extend(host.secrets.check().await);
        checks.extend(host.network.check().await);
        checks.extend(self.check_firewall().await);
        checks.extend(host.units.check().await);
        checks.extend(self.check_pools().await?);
        for guest in self.inner.store.guests().await? {
            checks.push(self.check_guest(&guest).await);
        }
        checks.extend(self.check_snapshots().await?);
        checks.extend(self.check_retained().await?);
        checks.extend(self.check_orphans().await);
        Ok(DoctorReport { checks })
    }

    /// Returns the parts of the host that do not work, of those that all guests need: `database`, `firewall`, `nix`, `disk`.
    pub async fn failing_parts(&self) -> Vec<&'static str> {
        let host = &self.inner.host;
        let mut failing = Vec::new();
        if self.inner.store.identity().await.is_err() {
            failing.push("database");
        }
        if has_broken(&self.check_firewall().await) {
            failing.push("firewall");
        }
        if has_broken(&host.closures.check().await) {
            failing.push("nix");
        }
        if has_broken(&host.rootfs.check().await) {
            failing.push("disk");
        }
        failing
    }

    /// Checks the rules. They follow a change, such as one of the name servers, within a moment, so a broken finding is
    /// checked again.
    async fn check_firewall(&self) -> Vec<Check> {
        let firewall = &self.inner.host.firewall;
        let checks = firewall.check().await;
        if !has_broken(&checks) {
            return checks;
        }
        tokio::time::sleep(RULES_FOLLOW).await;
        firewall.check().await
    }

    async fn check_guest(&self, guest: &Guest) -> Check {
        let subject = format!("guest {}", guest.name);
        let mut observed = match self.inner.observe(guest).await {
            Ok(observed) => observed,
            Err(error) => return broken(subject, innkeeper_model::chain(&error), None),
        };
        let state = GuestState::of(guest, observed.unit, observed.frozen);
        // It is frozen again when it has responded to a packet.
        observed.frozen |= self.inner.is_peeking(guest);
        let missing: Vec<&str> = plan(Goal::of(guest), guest.file_work.as_ref(), &observed)
            .concat()
            .iter()
            .map(|step| step.as_str())
            .collect();
        if let Some(fault) = &guest.fault {
            return broken(subject, format!("{state}: {fault}"), fault.remedy.clone());
        }
        let own = guest.own_system.as_ref();
        let own_failure = own.and_then(|own| own.failure.as_ref());
        if missing.is_empty()
            && let Some(failure) = guest.wake_failure.as_ref().or(own_failure)
        {
            return Check {
                verdict: Verdict::Warning,
                ..broken(
                    subject,
                    format!("{state}; {failure}"),
                    failure.remedy.clone(),
                )
            };
        }
        if missing.is_empty() {
            return Check {
                subject,
                verdict: Verdict::Ok,
                finding: match (guest.desired, observed.unit) {
                    (DesiredState::Running, Some(UnitPhase::Running)) => {
                        format!("{state}; closure pinned, network complete")
                    }
                    _ => state.to_string(),
                },
                remedy: None,
            };
        }
        let busy = self.is_busy(guest).await;
        Check {
            verdict: if busy { Verdict::Ok } else { Verdict::Broken },
            finding: format!("{state}; still to do: {}", missing.join(", ")),
            remedy: (!busy).then(|| "innkeeperd repairs it at its next reconciliation; `innkeeper events` shows the progress.".to_owned()),
            subject,
        }
    }

    /// Checks that every recorded snapshot exists.
    async fn check_snapshots(&self) -> Result<Vec<Check>, EngineError> {
        let recorded = self.inner.store.snapshots().await?;
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let found = match self.inner.host.rootfs.snapshots().await {
            Ok(found) => found,
            Err(error) => {
                let finding = innkeeper_model::chain(&error);
                return Ok(vec![broken("snapshots".to_owned(), finding, None)]);
            }
        };
        let exists = |one: &Snapshot| {
            found
                .iter()
                .any(|found| (&found.guest, &found.label) == (&one.guest, &one.label))
        };
        let missing = recorded.into_iter().filter(|one| !exists(one));
        let check = |Snapshot { guest, label, .. }| {
            let remedy = format!("`agent snapshot {guest} --delete {label}` deletes its record.");
            broken(
                format!("guest {guest}"),
                format!("its snapshot '{label}' is gone from the host"),
                Some(remedy),
            )
        };
        Ok(missing.map(check).collect())
    }

    /// Checks that all retained files exist, and reports their size.
    async fn check_retained(&self) -> Result<Vec<Check>, EngineError> {
        let recorded = self.inner.store.retained().await?;
        if recorded.is_empty() {
            return Ok(Vec::new());
        }
        let subject = "destroyed agents".to_owned();
        let found = match self.inner.host.rootfs.retained().await {
            Ok(found) => found,
            Err(error) => {
                let finding = innkeeper_model::chain(&error);
                return Ok(vec![broken(subject, finding, None)]);
            }
        };
        let missing = recorded
            .iter()
            .map(|files| &files.record)
            .find(|record| !record.removing && found.iter().all(|found| found.id != record.id));
        let space = self.inner.retained_space().await?;
        let (agents, mebibytes) = (space.agents, space.bytes >> 20);
        Ok(vec![match missing {
            None => Check {
                subject,
                verdict: Verdict::Ok,
                finding: format!(
                    "files of {agents} are kept, {mebibytes} MiB; they are removed when space is needed"
                ),
                remedy: None,
            },
            Some(Retained { id, name, .. }) => Check {
                subject,
                verdict: Verdict::Warning,
                finding: format!("the files {id} of {name} are gone from the host"),
                remedy: Some("They were removed outside of Innkeeper; `agent list --all` shows them until their time is over.".to_owned()),
            },
        }])
    }

    async fn is_busy(&self, guest: &Guest) -> bool {
        let operations = self
            .inner
            .store
            .running_operations()
            .await
            .unwrap_or_default();
        operations
            .iter()
            // A backup freezes guests for a moment.
            .any(|one| one.guest.as_ref() == Some(&guest.name) || one.verb == Verb::Backup)
    }

    async fn check_orphans(&self) -> Vec<Check> {
        let subject = "orphans".to_owned();
        let mut orphans = self.orphans().await;
        if let Ok(orphans) = &mut orphans {
            orphans.retain(|(_, found)| found.ownership != Ownership::Other);
        }
        match orphans {
            Err(error) => vec![broken(subject, innkeeper_model::chain(&error), None)],
            Ok(orphans) if orphans.is_empty() => vec![Check {
                subject,
                verdict: Verdict::Ok,
                finding: "none".to_owned(),
                remedy: None,
            }],
            Ok(orphans) => orphans
                .into_iter()
                .map(|(resource, found)| {
                    let object = format!("{} {}", resource.kind(), found.object);
                    if found.ownership == Ownership::Unmarked {
                        return Check {
                            verdict: Verdict::Warning,
                            ..broken(
                                subject.clone(),
                                format!("{object} has Innkeeper's naming and no daemon's mark"),
                                Some("`innkeeper gc --unmarked` removes it. Make sure first that no other Innkeeper on this host made it.".to_owned()),
                            )
                        };
                    }
                    broken(
                        subject.clone(),
                        format!("{object} belongs to no guest"),
                        Some("`innkeeper gc` removes it.".to_owned()),
                    )
                })
                .collect(),
        }
    }
}

fn has_broken(checks: &[Check]) -> bool {
    let mut verdicts = checks.iter().map(|check| check.verdict);
    verdicts.any(|verdict| verdict == Verdict::Broken)
}

fn broken(subject: String, finding: String, remedy: Option<String>) -> Check {
    Check {
        subject,
        verdict: Verdict::Broken,
        finding,
        remedy,
    }
}
