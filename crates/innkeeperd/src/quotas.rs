//! Quotas: limits of the agents of one actor.

mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use innkeeper_engine::Engine;
use innkeeper_model::{Code, Cpus, Failure, Guest, GuestName, Limits, MemorySize};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::api::Caller;
use crate::api_error::ApiError;
use crate::config::{Config, Named, Quota, QuotaSettings, StorageDriver};

/// The limits, and the agents that count.
#[derive(Clone)]
pub(crate) struct Quotas {
    engine: Engine,
    settings: Arc<QuotaSettings>,
    memory: MemorySize,
    cpus: Cpus,
    /// The disk space of a new agent, in bytes: that of its volume, and nothing in a directory.
    disk: u64,
    /// Held from a check until the agent is recorded, so that concurrent requests do not exceed a limit together.
    admitting: Arc<Mutex<()>>,
}

/// An agent that a request creates or changes.
pub(crate) struct Wanted {
    /// The agent that it replaces in the sum.
    replaced: Option<GuestName>,
    /// The agent whose disk space it has.
    sized_like: Option<GuestName>,
    memory: Option<MemorySize>,
    cpus: Option<Cpus>,
}

impl Wanted {
    /// A new agent. Omitted limits are those of the configuration.
    pub(crate) fn new(memory: Option<MemorySize>, cpus: Option<Cpus>) -> Self {
        Self {
            replaced: None,
            sized_like: None,
            memory,
            cpus,
        }
    }

    /// A new agent with known limits.
    pub(crate) fn with(limits: &Limits) -> Self {
        Self::new(Some(limits.memory), Some(limits.cpus))
    }

    /// A copy of an agent.
    pub(crate) fn copy_of(origin: &Guest) -> Self {
        Self {
            sized_like: Some(origin.name.clone()),
            ..Self::with(&origin.limits)
        }
    }

    /// An agent with other limits. Omitted ones stay.
    pub(crate) fn instead_of(
        guest: &Guest,
        memory: Option<MemorySize>,
        cpus: Option<Cpus>,
    ) -> Self {
        Self {
            replaced: Some(guest.name.clone()),
            sized_like: Some(guest.name.clone()),
            memory: memory.or(Some(guest.limits.memory)),
            cpus: cpus.or(Some(guest.limits.cpus)),
        }
    }
}

/// The disk space of guests, in bytes.
type Disks = BTreeMap<GuestName, u64>;

/// The sums that a quota limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    agents: u64,
    memory: u64,
    cpus_percent: u64,
    disk: u64,
}

impl Sums {
    fn add(&mut self, memory: MemorySize, cpus: Cpus, disk: u64) {
        self.agents += 1;
        self.memory = self.memory.saturating_add(memory.bytes());
        self.cpus_percent += u64::from(cpus.percent());
        self.disk = self.disk.saturating_add(disk);
    }
}

impl Quotas {
    /// Creates the quotas of a configuration.
    pub(crate) fn new(engine: Engine, config: &Config) -> Self {
        let disk = match config.storage.driver {
            StorageDriver::LvmThin => config.storage.size.bytes(),
            StorageDriver::Dir => 0,
        };
        Self {
            engine,
            settings: Arc::new(config.quotas.clone()),
            memory: config.guest.memory,
            cpus: config.guest.cpus,
            disk,
            admitting: Arc::default(),
        }
    }

    /// Refuses a request that would exceed the caller's quota. The caller of this function must hold the result until the
    /// agent is recorded.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`], or the errors of the store and the storage.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        let (actor, name) = (caller.actor(), caller.name());
        let named = Named {
            actor: &actor,
            name: name.as_deref(),
        };
        let (quota, table) = self.settings.of(named, caller.role());
        if !caller.is_remote() || quota == Quota::default() {
            return Ok(None);
        }
        let admitting = Arc::clone(&self.admitting).lock_owned().await;
        let disks = match quota.disk_gib {
            0 => Disks::new(),
            _ => self.engine.disk_space().await?,
        };
        let mut sums = Sums::default();
        for guest in self.engine.store().guests().await? {
            let counts = guest.owner.as_ref() == Some(&actor);
            if counts && Some(&guest.name) != wanted.replaced.as_ref() {
                let disk = self.disk_of(&disks, &guest.name);
                sums.add(guest.limits.memory, guest.limits.cpus, disk);
            }
        }
        let disk = (wanted.sized_like.as_ref()).map(|like| self.disk_of(&disks, like));
        sums.add(
            wanted.memory.unwrap_or(self.memory),
            wanted.cpus.unwrap_or(self.cpus),
            disk.unwrap_or(self.disk),
        );
        match excess(quota, sums) {
            None => Ok(Some(admitting)),
            Some((setting, message)) => {
                let failure =
                    Failure::new(Code::QuotaExceeded, format!("{} {message}", caller.label()));
                Err(ApiError(failure.with_remedy(format!(
                    "Destroy an agent of {actor} (`innkeeper usage` shows the use, `agent list` the owners), or raise {table}.{setting} in innkeeperd's configuration."
                ))))
            }
        }
    }

    /// Refuses to create a preview beyond the caller's quota. As for [`Self::admit`], the caller of this function must hold the
    /// result until the preview is recorded.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`], or the store's errors.
    pub(crate) async fn admit_preview(
        &self,
        caller: &Caller,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        let (actor, name) = (caller.actor(), caller.name());
        let named = Named {
            actor: &actor,
            name: name.as_deref(),
        };
        let (Quota { previews, .. }, table) = self.settings.of(named, caller.role());
        if !caller.is_remote() || previews == 0 {
            return Ok(None);
        }
        let admitting = Arc::clone(&self.admitting).lock_owned().await;
        let recorded = self.engine.store().previews().await?.into_iter();
        let own = recorded.filter(|preview| preview.record.owner.as_ref() == Some(&actor));
        if own.count() < previews as usize {
            return Ok(Some(admitting));
        }
        let message = format!("{} may have {previews} previews at most", caller.label());
        let failure = Failure::new(Code::QuotaExceeded, message);
        Err(ApiError(failure.with_remedy(format!(
            "Destroy a preview of {actor}, or raise {table}.previews in innkeeperd's configuration."
        ))))
    }

    /// Returns the disk space of an agent, also of one whose volume does not exist yet.
    fn disk_of(&self, disks: &Disks, agent: &GuestName) -> u64 {
        disks.get(agent).copied().unwrap_or(self.disk)
    }
}

/// A GiB, in bytes.
const GIB: u64 = 1 << 30;

/// Returns the limit in units of the sum; `None` for no limit.
fn limit(setting: u32, unit: u64) -> Option<u64> {
    (setting > 0).then(|| u64::from(setting) * unit)
}

/// Returns the setting that the sums exceed, and the problem.
fn excess(quota: Quota, sums: Sums) -> Option<(&'static str, String)> {
    let exceeds = |setting, unit, sum: u64| limit(setting, unit).is_some_and(|limit| sum > limit);
    let Quota {
        agents,
        memory_gib,
        cpus,
        disk_gib,
        previews: _,
    } = quota;
    if exceeds(agents, 1, sums.agents) {
        return Some(("agents", format!("may have {agents} agents at most")));
    }
    if exceeds(memory_gib, GIB, sums.memory) {
        let message = format!("may give {memory_gib} GiB of memory to its agents at most");
        return Some(("memory_gib", message));
    }
    if exceeds(cpus, 100, sums.cpus_percent) {
        return Some((
            "cpus",
            format!("may give {cpus} processors to its agents at most"),
        ));
    }
    if exceeds(disk_gib, GIB, sums.disk) {
        let message = format!("may give {disk_gib} GiB of disk space to its agents at most");
        return Some(("disk_gib", message));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_to_the_limits_are_admitted() {
        let quota = Quota {
            agents: 2,
            memory_gib: 4,
            cpus: 3,
            disk_gib: 5,
            previews: 0,
        };
        let sums = |agents, memory, cpus_percent, disk| Sums {
            agents,
            memory,
            cpus_percent,
            disk,
        };
        let setting = |sums| excess(quota, sums).map(|(setting, _)| setting);
        assert_eq!(setting(sums(2, 4 * GIB, 300, 5 * GIB)), None);
        assert_eq!(setting(sums(3, 0, 0, 0)), Some("agents"));
        assert_eq!(setting(sums(1, 4 * GIB + 1, 0, 0)), Some("memory_gib"));
        assert_eq!(setting(sums(1, 0, 301, 0)), Some("cpus"));
        assert_eq!(setting(sums(1, 0, 0, 5 * GIB + 1)), Some("disk_gib"));
        let unlimited = sums(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(excess(Quota::default(), unlimited), None);
    }
}
