//! The identity of repositories. GitHub identifies them by number: names change, and can be reused by other repositories.
//! Previews, deliveries and tokens are recorded under the current name of their repository, and follow its renames.
//!
//! When another repository takes over a name, the name of the former one is unknown until GitHub is queried. Until then,
//! its rows have a name that GitHub assigns to no repository ([`UNKNOWN_OWNER`]).

use innkeeper_model::GuestName;
use innkeeper_model::preview::{DeliveryEvent, RepoName};
use rusqlite::{Connection, Transaction};

use super::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};
use crate::sql::{deliveries, previews, repositories, tokens};

/// The owner of repositories whose name is unknown. No owner on GitHub ends with a hyphen.
const UNKNOWN_OWNER: &str = "renamed-";

/// The part of a former name that its placeholder keeps, in bytes.
const KEPT_NAME: usize = 60;

/// The repository that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoIdentity {
    /// GitHub's number; `None` if no event has reported it yet.
    pub id: Option<u64>,
    /// True if no other repository had the name before it.
    pub is_first: bool,
}

impl Store {
    /// Records the current name of a repository that GitHub was queried for by `former` or `now`, and returns the number of
    /// previews that were moved. Rows that are recorded under `former` without a number belong to it, too. Of two previews
    /// of the same pull request or branch, the one under the new name stays. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn record_repo_name(
        &self,
        id: u64,
        former: &RepoName,
        now: &RepoName,
    ) -> Result<usize, StoreError> {
        let (former, now) = (former.clone(), now.clone());
        self.run("record a repository's name", move |database| {
            if is_recorded(&database.connection, id, &former, &now)? {
                return Ok(0);
            }
            database.write(Durability::Now, |transaction| {
                let is_unnumbered =
                    former != now && repositories::id_of(transaction, &former)?.is_none();
                let mut moved = set_name(transaction, id, &now)?;
                if is_unnumbered {
                    moved += move_rows(transaction, id, &former, &now)?;
                }
                repositories::set_confirmed(transaction, id)?;
                Ok(moved)
            })
        })
        .await
    }

    /// Records whether the name of a repository may have changed, if the repository is known. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn set_repo_to_check(&self, id: u64, to_check: bool) -> Result<(), StoreError> {
        let action = "mark a repository for a check";
        self.write(action, Durability::Now, move |transaction| {
            repositories::set_to_check(transaction, id, to_check)
        })
        .await
    }

    /// Returns the repositories whose names may have changed ([`Self::set_repo_to_check`]) or were taken over, by their
    /// recorded names.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn repos_to_check(&self) -> Result<Vec<RepoName>, StoreError> {
        self.read("read the repositories", repositories::to_check)
            .await
    }

    /// Returns the previews of repositories that were deleted.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn previews_of_deleted_repos(&self) -> Result<Vec<GuestName>, StoreError> {
        let action = "read the previews of deleted repositories";
        self.read(action, previews::of_deleted_repos).await
    }

    /// Returns the identity of the repository that has a name.
    ///
    /// # Errors
    /// Only if the database cannot be read.
    pub async fn repo_identity(&self, name: &RepoName) -> Result<RepoIdentity, StoreError> {
        let name = name.clone();
        self.read("read a repository", move |connection| {
            let first = repositories::first_id_of(connection, &name)?;
            let id = repositories::id_of(connection, &name)?;
            Ok(RepoIdentity {
                id,
                is_first: first.is_none() || first == id,
            })
        })
        .await
    }

    /// Records that a repository was deleted: its previews should be removed, and its pending deliveries are superseded.
    /// Returns the previews. Durable.
    ///
    /// # Errors
    /// Only if the database cannot be written.
    pub async fn mark_repo_deleted(
        &self,
        id: u64,
        name: &RepoName,
    ) -> Result<Vec<GuestName>, StoreError> {
        let name = name.clone();
        let action = "record the deletion of a repository";
        self.write(action, Durability::Now, move |transaction| {
            let name = match repositories::name_of(transaction, id)? {
                Some(recorded) => recorded,
                // Rows under a name without a number belong to the repository.
                None if repositories::id_of(transaction, &name)?.is_none() => {
                    set_name(transaction, id, &name)?;
                    name
                }
                None => return Ok(Vec::new()),
            };
            repositories::set_deleted(transaction, id)?;
            deliveries::override_present_of_repo(transaction, &name)?;
            previews::set_absent_of_repo(transaction, &name)
        })
        .await
    }
}

/// Returns an event under the recorded name of its repository. An event that GitHub wrote before a rename can arrive
/// after it.
pub(super) fn under_recorded_name(
    transaction: &Transaction<'_>,
    event: &DeliveryEvent,
) -> Result<DeliveryEvent, QueryError> {
    let name = &event.pull_request().repo;
    let Some(id) = event.repo_id() else {
        return Ok(event.clone());
    };
    let name = match repositories::name_of(transaction, id)? {
        Some(recorded) if recorded == *name || repositories::had_name(transaction, id, name)? => {
            recorded
        }
        recorded => {
            set_name(transaction, id, name)?;
            if recorded.is_some() {
                // Either name may be the newer one.
                repositories::set_to_check(transaction, id, true)?;
            }
            name.clone()
        }
    };
    Ok(event.clone().with_repo(name))
}

/// Reports whether GitHub wrote an event before its repository was deleted.
pub(super) fn is_deleted(
    connection: &Connection,
    event: &DeliveryEvent,
) -> Result<bool, QueryError> {
    let Some(id) = event.repo_id() else {
        return Ok(false);
    };
    let deleted_at = repositories::deleted_at(connection, id)?;
    Ok(deleted_at
        .is_some_and(|deleted| event.updated_at().is_none_or(|updated| updated <= deleted)))
}

/// Reports whether [`Store::record_repo_name`] would change no row.
fn is_recorded(
    connection: &Connection,
    id: u64,
    former: &RepoName,
    now: &RepoName,
) -> Result<bool, QueryError> {
    Ok(repositories::is_settled(connection, id, now)?
        && (former == now || repositories::id_of(connection, former)?.is_some()))
}

/// Gives a repository a name, and a placeholder to the one that had it. Returns the number of previews that follow.
fn set_name(transaction: &Transaction<'_>, id: u64, now: &RepoName) -> Result<usize, QueryError> {
    let former = repositories::name_of(transaction, id)?;
    if let Some(holder) = repositories::id_of(transaction, now)?
        && holder != id
    {
        let (end, _) = now.name().split_at(now.name().len().min(KEPT_NAME));
        let placeholder = placeholder(&format!("{end}.{holder}"))?;
        repositories::set_unknown_name(transaction, holder, &placeholder)?;
        move_rows(transaction, holder, now, &placeholder)?;
    }
    repositories::upsert(transaction, id, now)?;
    tokens::adopt_repo(transaction, id, now)?;
    match former {
        Some(former) if former != *now => move_rows(transaction, id, &former, now),
        _ => Ok(0),
    }
}

/// Moves previews, deliveries and tokens to another name, and returns the number of previews. Previews that the other name has
/// already are duplicates: they are to be removed.
fn move_rows(
    transaction: &Transaction<'_>,
    id: u64,
    former: &RepoName,
    now: &RepoName,
) -> Result<usize, QueryError> {
    for slug in previews::duplicates(transaction, former, now)? {
        let placeholder = placeholder(&format!("{slug}.{id}"))?;
        previews::move_duplicate(transaction, &slug, &placeholder)?;
    }
    tokens::adopt_repo(transaction, id, former)?;
    tokens::rename_repo(transaction, id, now)?;
    deliveries::rename_repo(transaction, former, now)?;
    previews::rename_repo(transaction, former, now)
}

/// Returns a name that no repository on GitHub has.
fn placeholder(name: &str) -> Result<RepoName, QueryError> {
    RepoName::parse(&format!("{UNKNOWN_OWNER}/{name}"))
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()).into())
}
