//! Quotas: limits of the agents of one actor.

use std::sync::Arc;

use innkeeper_model::{Code, Cpus, Failure, Guest, GuestName, Limits, MemorySize};
use innkeeper_store::Store;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::api::Caller;
use crate::api_error::ApiError;
use crate::config::{Config, Quota, QuotaSettings};

/// The limits, and the agents that count.
#[derive(Clone)]
pub(crate) struct Quotas {
    store: Store,
    settings: Arc<QuotaSettings>,
    memory: MemorySize,
    cpus: Cpus,
    /// Held from a check until the agent is recorded, so that concurrent requests do not exceed a limit together.
    admitting: Arc<Mutex<()>>,
}

/// An agent that a request creates or changes.
pub(crate) struct Wanted {
    /// The agent that it replaces in the sum.
    replaced: Option<GuestName>,
    memory: Option<MemorySize>,
    cpus: Option<Cpus>,
}

impl Wanted {
    /// A new agent. Omitted limits are those of the configuration.
    pub(crate) fn new(memory: Option<MemorySize>, cpus: Option<Cpus>) -> Self {
        Self {
            replaced: None,
            memory,
            cpus,
        }
    }

    /// A new agent with known limits.
    pub(crate) fn with(limits: &Limits) -> Self {
        Self::new(Some(limits.memory), Some(limits.cpus))
    }

    /// An agent with other limits. Omitted ones stay.
    pub(crate) fn instead_of(
        guest: &Guest,
        memory: Option<MemorySize>,
        cpus: Option<Cpus>,
    ) -> Self {
        Self {
            replaced: Some(guest.name.clone()),
            memory: memory.or(Some(guest.limits.memory)),
            cpus: cpus.or(Some(guest.limits.cpus)),
        }
    }
}

/// The sums that a quota limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    agents: u64,
    memory: u64,
    cpus_percent: u64,
}

impl Sums {
    fn add(&mut self, memory: MemorySize, cpus: Cpus) {
        self.agents += 1;
        self.memory = self.memory.saturating_add(memory.bytes());
        self.cpus_percent += u64::from(cpus.percent());
    }
}

impl Quotas {
    /// Creates the quotas of a configuration.
    pub(crate) fn new(store: Store, config: &Config) -> Self {
        Self {
            store,
            settings: Arc::new(config.quotas.clone()),
            memory: config.guest.memory,
            cpus: config.guest.cpus,
            admitting: Arc::default(),
        }
    }

    /// Refuses a request that would exceed the caller's quota. The caller of this function must hold the result until the
    /// agent is recorded.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`], or the store's errors.
    pub(crate) async fn admit(
        &self,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<Option<OwnedMutexGuard<()>>, ApiError> {
        let actor = caller.actor();
        let (quota, table) = self.settings.of(&actor, caller.role());
        if !caller.is_remote() || quota == Quota::default() {
            return Ok(None);
        }
        let admitting = Arc::clone(&self.admitting).lock_owned().await;
        let mut sums = Sums::default();
        for guest in self.store.guests().await? {
            let counts = guest.owner.as_ref() == Some(&actor);
            if counts && Some(&guest.name) != wanted.replaced.as_ref() {
                sums.add(guest.limits.memory, guest.limits.cpus);
            }
        }
        sums.add(
            wanted.memory.unwrap_or(self.memory),
            wanted.cpus.unwrap_or(self.cpus),
        );
        match excess(quota, sums) {
            None => Ok(Some(admitting)),
            Some((setting, message)) => {
                let failure =
                    Failure::new(Code::QuotaExceeded, format!("{} {message}", caller.label()));
                Err(ApiError(failure.with_remedy(format!(
                    "Destroy an agent of {actor} (`agent list` shows the owners), or raise {table}.{setting} in innkeeperd's configuration."
                ))))
            }
        }
    }
}

/// Returns the setting that the sums exceed, and the problem.
fn excess(quota: Quota, sums: Sums) -> Option<(&'static str, String)> {
    let exceeds = |limit: u32, unit: u64, sum: u64| limit > 0 && sum > u64::from(limit) * unit;
    let Quota {
        agents,
        memory_gib,
        cpus,
    } = quota;
    if exceeds(agents, 1, sums.agents) {
        return Some(("agents", format!("may have {agents} agents at most")));
    }
    if exceeds(memory_gib, 1 << 30, sums.memory) {
        let message = format!("may give {memory_gib} GiB of memory to its agents at most");
        return Some(("memory_gib", message));
    }
    if exceeds(cpus, 100, sums.cpus_percent) {
        return Some((
            "cpus",
            format!("may give {cpus} processors to its agents at most"),
        ));
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
        };
        let sums = |agents, memory, cpus_percent| Sums {
            agents,
            memory,
            cpus_percent,
        };
        let setting = |sums| excess(quota, sums).map(|(setting, _)| setting);
        assert_eq!(setting(sums(2, 4 << 30, 300)), None);
        assert_eq!(setting(sums(3, 0, 0)), Some("agents"));
        assert_eq!(setting(sums(1, (4 << 30) + 1, 0)), Some("memory_gib"));
        assert_eq!(setting(sums(1, 0, 301)), Some("cpus"));
        let unlimited = sums(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(excess(Quota::default(), unlimited), None);
    }
}
