//! The report of quotas and their use.

use std::collections::{BTreeMap, BTreeSet};

use innkeeper_model::GuestName;
use innkeeper_model::access::{ActorUse, Amount, QuotaReport, RepoUse, Role};
use innkeeper_model::preview::RepoName;

use super::{GIB, Quotas, Sums, limit};
use crate::access::Owner;
use crate::api::Caller;
use crate::api_error::ApiError;
use crate::config::{Named, Quota};

impl Quotas {
    /// Returns the quotas that a caller may see, with their use. `owners` are the actors with a token, and `hidden` the
    /// previews that the caller may not see.
    ///
    /// # Errors
    /// The store or the storage cannot be read.
    pub(crate) async fn report(
        &self,
        caller: &Caller,
        owners: &BTreeMap<String, Owner>,
        hidden: &BTreeSet<GuestName>,
    ) -> Result<QuotaReport, ApiError> {
        let disks = self.engine.disk_space().await?;
        let mut used: BTreeMap<String, (Sums, u64)> = BTreeMap::new();
        if caller.is_remote() {
            used.insert(caller.actor(), Default::default());
        }
        for preview in self.engine.store().previews().await? {
            if let Some(owner) = preview.record.owner {
                used.entry(owner).or_default().1 += 1;
            }
        }
        for guest in self.engine.store().guests().await? {
            if let Some(owner) = guest.owner {
                let disk = self.disk_of(&disks, &guest.name);
                let (sums, _) = used.entry(owner).or_default();
                sums.add(guest.limits.memory, guest.limits.cpus, disk);
            }
        }
        let sees_all = caller.role() >= Role::Operator;
        used.retain(|actor, _| sees_all || *actor == caller.actor());
        Ok(QuotaReport {
            actors: (used.into_iter())
                .map(|(actor, (sums, previews))| {
                    let owner = owners.get(&actor);
                    self.actor(actor, owner, sums, previews)
                })
                .collect(),
            repositories: self.repositories(hidden).await?,
        })
    }

    fn actor(
        &self,
        actor: String,
        owner: Option<&Owner>,
        sums: Sums,
        own_previews: u64,
    ) -> ActorUse {
        let name = owner.map(|owner| owner.name.clone());
        let role = owner.and_then(|owner| owner.role);
        let named = Named {
            actor: &actor,
            name: name.as_deref(),
        };
        let (quota, table) = role.map(|role| self.settings.of(named, role)).unzip();
        let Quota {
            agents,
            memory_gib,
            cpus,
            disk_gib,
            previews,
        } = quota.unwrap_or_default();
        let amount = |used, setting, unit| Amount {
            used,
            limit: limit(setting, unit),
        };
        ActorUse {
            name,
            role,
            table,
            agents: amount(sums.agents, agents, 1),
            memory_bytes: amount(sums.memory, memory_gib, GIB),
            cpu_percent: amount(sums.cpus_percent, cpus, 100),
            disk_bytes: amount(sums.disk, disk_gib, GIB),
            previews: amount(own_previews, previews, 1),
            actor,
        }
    }

    /// Returns the use of the repositories with a quota. One of whose previews the caller sees none is left out.
    async fn repositories(&self, hidden: &BTreeSet<GuestName>) -> Result<Vec<RepoUse>, ApiError> {
        let store = self.engine.store();
        let guests: BTreeSet<GuestName> = (store.guests().await?.into_iter())
            .map(|guest| guest.name)
            .collect();
        let mut previews: BTreeMap<RepoName, u64> = BTreeMap::new();
        for preview in store.previews().await? {
            let record = preview.record;
            if !hidden.contains(&record.slug) {
                let number = previews.entry(record.repo).or_default();
                *number += u64::from(guests.contains(&record.slug));
            }
        }
        let limits = self.settings.repositories.iter();
        let with_use = limits.filter_map(|(repo, quota)| {
            Some(RepoUse {
                repo: repo.clone(),
                previews: Amount {
                    used: *previews.get(repo)?,
                    limit: limit(quota.previews, 1),
                },
            })
        });
        Ok(with_use.collect())
    }
}
