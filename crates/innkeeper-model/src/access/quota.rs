//! Quotas, and what counts against them, as the API shows them.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::preview::RepoName;

/// Quotas with their use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaReport {
    /// The owners of agents and previews: all of them for root, members of the group and the role operator; others see themselves.
    pub actors: Vec<ActorUse>,
    /// The repositories with a quota that the caller may see.
    pub repositories: Vec<RepoUse>,
}

/// The use of one owner of agents and previews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActorUse {
    /// The actor: `uid:1000` for a user of the host, `token:7`, `file:ci`, `github:583231`.
    pub actor: String,
    /// The login of a person, or the name of a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The role of its valid token. `None` for a user of the host, and if no token is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The table of the configuration with its limits, such as `quotas.developer`. `None` without a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// The number of its agents.
    pub agents: Amount,
    /// The sum of their memory limits, in bytes.
    pub memory_bytes: Amount,
    /// The sum of their processors, in percent of one processor.
    pub cpu_percent: Amount,
    /// The sum of the sizes of their volumes, in bytes; of files in a directory, their space at the last measurement.
    pub disk_bytes: Amount,
    /// The number of the previews that it created by command.
    pub previews: Amount,
}

/// The use of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RepoUse {
    /// The repository.
    pub repo: RepoName,
    /// The number of its previews with a guest.
    pub previews: Amount,
}

/// A sum with its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Amount {
    /// The sum.
    pub used: u64,
    /// The limit. `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}
