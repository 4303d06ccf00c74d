//! The section `[quotas]`.

use std::collections::BTreeMap;

use innkeeper_model::access::Role;
use innkeeper_model::preview::RepoName;
use serde::{Deserialize, Serialize};

/// Limits of the agents that one actor of another machine may have at a time, and of the previews of one repository. Users of
/// the host have none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaSettings {
    /// Of each token with the role developer.
    pub developer: Quota,
    /// Of each token with the role operator.
    pub operator: Quota,
    /// Of each token with the role admin.
    pub admin: Quota,
    /// Of single actors in place of those of their role, by actor (`[quotas.actors."token:7"]`), by the name of a token
    /// (`[quotas.actors.ci]`), or by the login of a person.
    pub actors: BTreeMap<String, Quota>,
    /// Of single repositories, such as `[quotas.repositories."octo/web"]`.
    pub repositories: BTreeMap<RepoName, RepositoryQuota>,
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
    /// The sum of the sizes of its agents' volumes, in GiB; of the space of files in a directory.
    pub disk_gib: u32,
    /// The number of the previews that it created.
    pub previews: u32,
}

/// Limits of one repository. 0 means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RepositoryQuota {
    /// The number of its previews.
    pub previews: u32,
}

/// An actor with the names by which a table may refer to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) actor: &'a str,
    /// The name of its token, or the login of the person.
    pub(crate) name: Option<&'a str>,
}

impl QuotaSettings {
    /// Returns the limits of an actor with a role, and the name of their table.
    pub(crate) fn of(&self, named: Named<'_>, role: Role) -> (Quota, String) {
        if let Some(found) = self.of_actor(named) {
            return found;
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

    fn of_actor(&self, Named { actor, name }: Named<'_>) -> Option<(Quota, String)> {
        let by_name = |key: &str| name.is_some_and(|name| name.eq_ignore_ascii_case(key));
        let exact = self.actors.get_key_value(actor);
        let (key, quota) = exact.or_else(|| self.actors.iter().find(|(key, _)| by_name(key)))?;
        Some((*quota, format!("quotas.actors.\"{key}\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_an_actor_is_found_by_its_number_first() {
        let agents = |agents| Quota {
            agents,
            ..Quota::default()
        };
        let tables = [("token:7", 1), ("CI", 2), ("octocat", 3)];
        let settings = QuotaSettings {
            developer: agents(9),
            actors: (tables.iter())
                .map(|(key, number)| ((*key).to_owned(), agents(*number)))
                .collect(),
            ..QuotaSettings::default()
        };
        let of = |actor, name| {
            let (quota, table) = settings.of(Named { actor, name }, Role::Developer);
            (quota.agents, table)
        };
        assert_eq!(
            of("token:7", Some("ci")),
            (1, "quotas.actors.\"token:7\"".to_owned())
        );
        assert_eq!(
            of("token:8", Some("ci")),
            (2, "quotas.actors.\"CI\"".to_owned())
        );
        assert_eq!(of("github:1", Some("Octocat")).0, 3);
        for name in [None, Some("alice")] {
            assert_eq!(of("token:9", name), (9, "quotas.developer".to_owned()));
        }
    }
}
