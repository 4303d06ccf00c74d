//! Which repository a name stands for. GitHub identifies repositories by number: names change, and are used again by
//! others. Previews and deliveries are recorded under the current name of their repository, and follow it.
//!
//! A name that another repository has taken over leaves the former one without a known name until GitHub is queried:
//! its rows get a name that GitHub gives to nobody ([`NOWHERE`]).

use innkeeper_model::GuestName;
use innkeeper_model::preview::{PullRequestEvent, RepoName};
use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::codec::{Number, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::error::{QueryError, StoreError};

/// The owner of repositories whose name is unknown. No owner on GitHub ends with a hyphen.
const NOWHERE: &str = "renamed-";

/// How much of a former name is kept in the one that stands in for it, in bytes.
const KEPT_NAME: usize = 60;

/// What is known of the repository that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepoIdentity {
    /// GitHub's number of it; nothing when it was not seen since numbers are recorded.
    pub id: Option<u64>,
    /// Whether no other repository had the name before it.
    pub is_first: bool,
}

impl Store {
    /// Records the name that a repository has, by GitHub's answer to a query for it or for `former`, and returns how
    /// many previews changed their name with it. What is recorded under `former` without a number is its, too; of two
    /// previews of the same pull request or branch, the one under the new name stays. Durable.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn record_repo_name(
        &self,
        id: u64,
        former: &RepoName,
        now: &RepoName,
    ) -> Result<usize, StoreError> {
        let (former, now) = (former.clone(), now.clone());
        self.run("record a repository's name", move |database| {
            if is_settled(&database.connection, id, &former, &now)? {
                return Ok(0);
            }
            database.write(Durability::Now, |transaction| {
                let is_unknown = former != now && id_of(transaction, &former)?.is_none();
                let mut moved = set_name(transaction, id, &now)?;
                if is_unknown {
                    moved += move_rows(transaction, id, &former, &now)?;
                }
                transaction
                    .prepare_cached(
                        "UPDATE repositories SET to_check = 0, deleted_at = NULL WHERE id = ?1",
                    )?
                    .execute([Number(id)])?;
                Ok(moved)
            })
        })
        .await
    }

    /// Marks a repository, if it is known, as one whose name may have changed, or as looked for. Durable.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn set_repo_to_check(&self, id: u64, to_check: bool) -> Result<(), StoreError> {
        self.run("record that a name may have changed", move |database| {
            database.write(Durability::Now, |transaction| {
                transaction
                    .prepare_cached("UPDATE repositories SET to_check = ?2 WHERE id = ?1")?
                    .execute((Number(id), to_check))?;
                Ok(())
            })
        })
        .await
    }

    /// The repositories whose names may have changed ([`Self::set_repo_to_check`]) or were taken over, by the names that they
    /// are recorded under.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn repos_to_check(&self) -> Result<Vec<RepoName>, StoreError> {
        self.run("read the repositories", |database| {
            let names = database
                .connection
                .prepare_cached(
                    "SELECT name FROM repositories WHERE to_check = 1 AND deleted_at IS NULL ORDER BY id",
                )?
                .query_map((), |row| Ok(row.get::<_, Word<_>>(0)?.0))?
                .collect::<Result<_, _>>()?;
            Ok(names)
        })
        .await
    }

    /// The previews of repositories that were deleted.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn previews_of_deleted_repos(&self) -> Result<Vec<GuestName>, StoreError> {
        self.run("read the previews of deleted repositories", |database| {
            let slugs = database
                .connection
                .prepare_cached(
                    "SELECT slug FROM repositories JOIN previews ON previews.repo = repositories.name
                     WHERE deleted_at IS NOT NULL AND want = 'absent'",
                )?
                .query_map((), |row| Ok(row.get::<_, Word<_>>(0)?.0))?
                .collect::<Result<_, _>>()?;
            Ok(slugs)
        })
        .await
    }

    /// The repository that has a name.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn repo_identity(&self, name: &RepoName) -> Result<RepoIdentity, StoreError> {
        let name = name.clone();
        self.run("read a repository", move |database| {
            let connection = &database.connection;
            let first: Option<Number> = connection
                .prepare_cached(
                    "SELECT id FROM repository_names WHERE name = ?1 ORDER BY seq LIMIT 1",
                )?
                .query_row([Word(&name)], |row| row.get(0))
                .optional()?;
            let id = id_of(connection, &name)?;
            Ok(RepoIdentity {
                id,
                is_first: first.is_none_or(|first| Some(first.0) == id),
            })
        })
        .await
    }

    /// Records that a repository was deleted: its previews should go, and deliveries from before count no more. Returns
    /// the previews. Durable.
    ///
    /// # Errors
    /// Only what the disk or SQLite reports.
    pub async fn mark_repo_deleted(
        &self,
        id: u64,
        name: &RepoName,
    ) -> Result<Vec<GuestName>, StoreError> {
        let name = name.clone();
        self.run("record that a repository was deleted", move |database| {
            database.write(Durability::Now, |transaction| {
                let name = match name_of(transaction, id)? {
                    Some(known) => known,
                    // What was recorded under the name before numbers were is its.
                    None if id_of(transaction, &name)?.is_none() => {
                        set_name(transaction, id, &name)?;
                        name
                    }
                    None => return Ok(Vec::new()),
                };
                transaction
                    .prepare_cached("UPDATE repositories SET deleted_at = ?2 WHERE id = ?1")?
                    .execute((Number(id), Time::now()))?;
                transaction
                    .prepare_cached(
                        "UPDATE deliveries SET state = 'superseded', not_before = NULL, finished_at = ?2
                         WHERE repo = ?1 AND state = 'pending' AND intent = 'present'",
                    )?
                    .execute((Word(&name), Time::now()))?;
                let slugs = transaction
                    .prepare_cached(
                        "UPDATE previews SET want = 'absent' WHERE repo = ?1 RETURNING slug",
                    )?
                    .query_map([Word(&name)], |row| Ok(row.get::<_, Word<_>>(0)?.0))?
                    .collect::<Result<_, _>>()?;
                Ok(slugs)
            })
        })
        .await
    }
}

/// An event under the name that its repository is recorded with. One that GitHub wrote before a change of the name can
/// arrive after it.
pub(crate) fn current(
    transaction: &Transaction<'_>,
    event: &PullRequestEvent,
) -> Result<PullRequestEvent, QueryError> {
    let name = &event.pull_request.repo;
    let Some(id) = event.repo_id else {
        return Ok(event.clone());
    };
    let known = name_of(transaction, id)?;
    let name = match known {
        Some(known) if known == *name || had_name(transaction, id, name)? => known,
        known => {
            set_name(transaction, id, name)?;
            if known.is_some() {
                // Either name may be the newer one.
                transaction
                    .prepare_cached("UPDATE repositories SET to_check = 1 WHERE id = ?1")?
                    .execute([Number(id)])?;
            }
            name.clone()
        }
    };
    Ok(event.clone().with_repo(name))
}

/// Whether GitHub wrote an event before its repository was deleted.
pub(crate) fn is_deleted(
    connection: &Connection,
    event: &PullRequestEvent,
) -> Result<bool, QueryError> {
    let Some(id) = event.repo_id else {
        return Ok(false);
    };
    let deleted_at: Option<Option<Time>> = connection
        .prepare_cached("SELECT deleted_at FROM repositories WHERE id = ?1")?
        .query_row([Number(id)], |row| row.get(0))
        .optional()?;
    Ok(deleted_at
        .flatten()
        .is_some_and(|deleted| event.updated_at.is_none_or(|updated| updated <= deleted.0)))
}

/// Whether nothing is left to record when a repository is seen under a name.
fn is_settled(
    connection: &Connection,
    id: u64,
    former: &RepoName,
    now: &RepoName,
) -> Result<bool, QueryError> {
    let is_known = connection
        .prepare_cached(
            "SELECT 1 FROM repositories
             WHERE id = ?1 AND name = ?2 AND to_check = 0 AND deleted_at IS NULL",
        )?
        .exists((Number(id), Word(now)))?;
    Ok(is_known && (former == now || id_of(connection, former)?.is_some()))
}

fn name_of(connection: &Connection, id: u64) -> Result<Option<RepoName>, QueryError> {
    let name: Option<Word<RepoName>> = connection
        .prepare_cached("SELECT name FROM repositories WHERE id = ?1")?
        .query_row([Number(id)], |row| row.get(0))
        .optional()?;
    Ok(name.map(|name| name.0))
}

fn id_of(connection: &Connection, name: &RepoName) -> Result<Option<u64>, QueryError> {
    let id: Option<Number> = connection
        .prepare_cached("SELECT id FROM repositories WHERE name = ?1")?
        .query_row([Word(name)], |row| row.get(0))
        .optional()?;
    Ok(id.map(|id| id.0))
}

fn had_name(connection: &Connection, id: u64, name: &RepoName) -> Result<bool, QueryError> {
    let had = connection
        .prepare_cached("SELECT 1 FROM repository_names WHERE name = ?1 AND id = ?2")?
        .exists((Word(name), Number(id)))?;
    Ok(had)
}

/// Gives a repository a name; the one that had it so far has none that is known. Returns how many previews follow.
fn set_name(transaction: &Transaction<'_>, id: u64, now: &RepoName) -> Result<usize, QueryError> {
    let former = name_of(transaction, id)?;
    if let Some(holder) = id_of(transaction, now)?
        && holder != id
    {
        let (end, _) = now.name().split_at(now.name().len().min(KEPT_NAME));
        let nowhere = nowhere(&format!("{end}.{holder}"))?;
        transaction
            .prepare_cached("UPDATE repositories SET name = ?2, to_check = 1 WHERE id = ?1")?
            .execute((Number(holder), Word(&nowhere)))?;
        move_rows(transaction, holder, now, &nowhere)?;
    }
    transaction
        .prepare_cached("INSERT OR IGNORE INTO repository_names (name, id) VALUES (?1, ?2)")?
        .execute((Word(now), Number(id)))?;
    transaction
        .prepare_cached(
            "INSERT INTO repositories (id, name) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name",
        )?
        .execute((Number(id), Word(now)))?;
    match former {
        Some(former) if former != *now => move_rows(transaction, id, &former, now),
        _ => Ok(0),
    }
}

/// Records previews and deliveries under another name, and returns how many previews there are. Duplicates of previews
/// that are under the other name already are to be removed. A fork whose repository had the other name stays a fork.
fn move_rows(
    transaction: &Transaction<'_>,
    id: u64,
    former: &RepoName,
    now: &RepoName,
) -> Result<usize, QueryError> {
    let duplicates: Vec<GuestName> = transaction
        .prepare_cached(
            "SELECT slug FROM previews WHERE repo = ?1 AND EXISTS (
                 SELECT 1 FROM previews AS other WHERE other.repo = ?2
                 AND (other.number = previews.number
                      OR previews.number IS NULL AND other.branch = previews.branch))",
        )?
        .query_map((Word(former), Word(now)), |row| {
            Ok(row.get::<_, Word<_>>(0)?.0)
        })?
        .collect::<Result<_, _>>()?;
    for slug in duplicates {
        let nowhere = nowhere(&format!("{slug}.{id}"))?;
        transaction
            .prepare_cached(
                "UPDATE previews SET repo = ?2, head_repo = NULL, want = 'absent' WHERE slug = ?1",
            )?
            .execute((Word(&slug), Word(&nowhere)))?;
    }
    transaction
        .prepare_cached("UPDATE deliveries SET repo = ?2 WHERE repo = ?1")?
        .execute((Word(former), Word(now)))?;
    let moved = transaction
        .prepare_cached(
            "UPDATE previews SET repo = ?2, head_repo = CASE
                 WHEN head_repo = ?1 COLLATE NOCASE THEN ?2
                 WHEN head_repo = ?2 COLLATE NOCASE THEN NULL
                 ELSE head_repo END
             WHERE repo = ?1",
        )?
        .execute((Word(former), Word(now)))?;
    Ok(moved)
}

fn nowhere(name: &str) -> Result<RepoName, QueryError> {
    RepoName::parse(&format!("{NOWHERE}/{name}"))
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()).into())
}
