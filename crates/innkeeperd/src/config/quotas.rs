//! The section `[quotas]`.

use std::collections::BTreeMap;

use innkeeper_model::access::Role;
use serde::{Deserialize, Serialize};

/// Limits of the agents that one actor of another machine may have at a time. Users of the host have none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaSettings {
    /// Of each token with the role developer.
    pub developer: Quota,
    /// Of each token with the role operator.
    pub operator: Quota,
    /// Of each token with the role admin.
    pub admin: Quota,
    /// Of single actors, such as `[quotas.actors."token:7"]`, in place of those of their role.
    pub actors: BTreeMap<String, Quota>,
}

/// Limits of one actor. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// The number of its agents.
    pub agents: u32,
    /// The sum of its agents' memory limits, in GiB.
    pub memory_gib: u32,
    /// The sum of its agents' processors.
    pub cpus: u32,
}

impl QuotaSettings {
    /// Returns the limits of an actor with a role, and the name of their table.
    pub(crate) fn of(&self, actor: &str, role: Role) -> (Quota, String) {
        if let Some(quota) = self.actors.get(actor) {
            return (*quota, format!("quotas.actors.\"{actor}\""));
        }
        let quota = match role {
            // Creates no agents.
            Role::Viewer => Quota::default(),
            Role::Developer => self.developer,
            Role::Operator => self.operator,
            Role::Admin => self.admin,
        };
        (quota, format!("quotas.{role}"))
    }
}
