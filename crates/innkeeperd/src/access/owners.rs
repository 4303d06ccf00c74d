//! The names and roles of actors, for lists.

use std::collections::BTreeMap;

use innkeeper_model::access::{Role, TokenRecord, TokenState};
use jiff::Timestamp;

use super::Tokens;
use crate::api_error::ApiError;

/// An actor with a token, also with one that is not valid any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The login of a person, or the name of a token.
    pub(crate) name: String,
    /// The role of its valid token.
    pub(crate) role: Option<Role>,
}

impl Tokens {
    /// Returns the actors with a token, by their text form.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn owners(&self) -> Result<BTreeMap<String, Owner>, ApiError> {
        Ok(owners(&self.list().await?, Timestamp::now()))
    }
}

/// Returns the actors of tokens. The last record of a person has the newest login.
fn owners(records: &[TokenRecord], now: Timestamp) -> BTreeMap<String, Owner> {
    let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
    for record in records {
        let (actor, name) = match &record.person {
            Some(person) => (person.id.to_string(), person.login.to_string()),
            None => (format!("token:{}", record.id), record.name.to_string()),
        };
        let role = (record.state(now) == TokenState::Valid).then_some(record.role);
        let before = owners.get(&actor).and_then(|owner| owner.role);
        let role = role.max(before);
        owners.insert(actor, Owner { name, role });
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_has_the_role_of_its_valid_tokens() {
        let record = |id: i64, more: serde_json::Value| -> TokenRecord {
            let mut record = serde_json::json!({
                "id": id, "name": format!("t{id}"), "role": "developer", "repo": null,
                "created_by": "uid:0", "created_at": "2026-11-01T00:00:00Z", "expires_at": null,
                "last_used_at": null, "revoked_at": null,
            });
            for (key, value) in more.as_object().expect("fields") {
                record[key] = value.clone();
            }
            serde_json::from_value(record).expect("a record")
        };
        let person = serde_json::json!({ "id": 583_231, "login": "octocat" });
        let past = "2026-11-02T00:00:00Z";
        let records = [
            record(1, serde_json::json!({})),
            record(2, serde_json::json!({ "revoked_at": past })),
            record(
                3,
                serde_json::json!({ "person": person, "kind": "browser", "role": "admin" }),
            ),
            record(
                4,
                serde_json::json!({ "person": person, "kind": "device", "expires_at": past }),
            ),
        ];
        let found = owners(&records, "2026-11-03T00:00:00Z".parse().expect("a time"));
        let owner = |name: &str, role| Owner {
            name: name.to_owned(),
            role,
        };
        let expected = [
            ("github:583231", owner("octocat", Some(Role::Admin))),
            ("token:1", owner("t1", Some(Role::Developer))),
            ("token:2", owner("t2", None)),
        ];
        let expected = expected.map(|(actor, owner)| (actor.to_owned(), owner));
        assert_eq!(found, BTreeMap::from(expected));
    }
}
