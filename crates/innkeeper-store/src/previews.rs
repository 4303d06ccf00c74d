//! What should be true of each preview, and what is known of it.
//!
//! The slug belongs to the pull request from the first delivery on until the preview was seen gone; which
//! slug it is never follows from anything but this table.

use innkeeper_model::preview::{
    BranchName, CommitSha, Meta, PreviewRecord, PreviewState, PullRequest, PullRequestEvent,
    RepoName,
};
use innkeeper_model::{Failure, GuestName, StorePath};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, named_params};
use serde::{Deserialize, Serialize};

use crate::codec::{self, Json, Number, Time, Word};
use crate::connection::Store;
use crate::database::Durability;
use crate::deliveries;
use crate::error::{QueryError, StoreError};
use crate::running_time::RunningTime;

/// Whether a preview should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Its wanted commit should be served.
    Present,
    /// Nothing of it should be left; then the record goes too.
    Absent,
}

/// The record of a preview with all that only the daemon needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// What everybody may know.
    pub record: PreviewRecord,
    /// Whether it should be there.
    pub desired: Presence,
    /// What the wanted commit's configuration was evaluated as: the key of an
    /// [`Evaluation`](crate::Evaluation).
    pub evaluation: Option<String>,
    /// The closure of the wanted commit, once it is known.
    pub closure: Option<StorePath>,
    /// The meta of the wanted commit, once it is known.
    pub meta: Option<Meta>,
    /// The closure that is live.
    pub live_closure: Option<StorePath>,
    /// The meta that is live.
    pub live_meta: Option<Meta>,
    /// Whether another version than the live one may be in the guest.
    pub dirty: bool,
    /// Whether a label approved the commit in `approved_sha`.
    pub approved_by_label: bool,
    /// The commit that was announced on GitHub as waiting for approval, if any.
    pub announced_sha: Option<CommitSha>,
    /// The last delivery that had arrived before the announcement, by its [`Delivery::seq`](crate::Delivery::seq).
    pub announced_after: i64,
    /// The running time from which its age counts: when it was last used, or when it expired.
    pub active_running: RunningTime,
    /// GitHub's number of our comment on the pull request.
    pub comment_id: Option<u64>,
    /// GitHub's number of our deployment.
    pub deployment_id: Option<u64>,
}

/// How a commit was approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// By a label, and for as long as it is there.
    Label,
    /// On the host.
    Host,
}

/// A preview to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPreview {
    /// The repository.
    pub repo: RepoName,
    /// The pull request's number; nothing for one that is made by hand.
    pub number: Option<u64>,
    /// The head's branch.
    pub branch: BranchName,
    /// Where the head is; nothing when that repository is gone.
    pub head_repo: Option<RepoName>,
    /// The commit that should be live.
    pub wanted_sha: CommitSha,
}

impl NewPreview {
    /// The preview that an event wants.
    #[must_use]
    pub fn of(event: &PullRequestEvent) -> Self {
        Self {
            repo: event.pull_request.repo.clone(),
            number: Some(event.pull_request.number),
            branch: event.head_branch.clone(),
            head_repo: event.head_repo.clone(),
            wanted_sha: event.head_sha.clone(),
        }
    }

    fn owner(&self) -> String {
        owner(&self.repo, self.number, &self.branch)
    }
}

/// Something that changed of a preview. See [`Store::set_preview`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviewFact {
    /// Whether it should be there. An intent.
    Desired(Presence),
    /// What should be served. An intent.
    Head {
        /// The repository; nothing when it is gone.
        repo: Option<RepoName>,
        /// The branch.
        branch: BranchName,
        /// The commit.
        sha: CommitSha,
    },
    /// How far it is.
    State(PreviewState),
    /// What the wanted commit's configuration was evaluated and built to.
    Evaluated {
        /// The key of the evaluation.
        key: String,
        /// The closure.
        closure: StorePath,
        /// The meta.
        meta: Box<Meta>,
    },
    /// What is served from now on. Recorded before the old version is given up, so an intent.
    Live {
        /// The commit.
        sha: CommitSha,
        /// The closure.
        closure: StorePath,
        /// The meta.
        meta: Box<Meta>,
    },
    /// Nothing is served any more.
    NotLive,
    /// Whether another version than the live one may be in the guest. An intent: recorded before that version's
    /// setup begins, and taken back when one of the two has come up.
    Dirty(bool),
    /// GitHub's number of our comment, or that there is none. An intent: a comment that was forgotten would
    /// be written twice.
    Comment(Option<u64>),
    /// GitHub's number of our deployment, or that there is none. An intent, for the same reason.
    Deployment(Option<u64>),
    /// Why it is not as wanted, or that nothing stands in the way any more.
    Fault(Option<Failure>),
    /// The delivery that was acted on last, by its id.
    LastDelivery(String),
    /// It was used at this time. Its age counts from now on.
    Active(Timestamp),
    /// It was not used for too long and is stopped; its files and database stay. An intent. Its age counts from now on,
    /// until it is removed.
    Expired,
}

impl PreviewFact {
    fn durability(&self) -> Durability {
        match self {
            Self::Desired(_)
            | Self::Head { .. }
            | Self::Live { .. }
            | Self::Dirty(_)
            | Self::Comment(_)
            | Self::Deployment(_)
            | Self::Expired => Durability::Now,
            Self::State(_)
            | Self::Evaluated { .. }
            | Self::NotLive
            | Self::Fault(_)
            | Self::LastDelivery(_)
            | Self::Active(_) => Durability::Soon,
        }
    }

    /// The columns it is kept in.
    fn columns(&self) -> Vec<(&'static str, Box<dyn ToSql + '_>)> {
        match self {
            Self::Desired(presence) => vec![("want", Box::new(Word(presence)))],
            Self::Head { repo, branch, sha } => vec![
                ("head_repo", Box::new(repo.as_ref().map(Word))),
                ("branch", Box::new(Word(branch))),
                ("wanted_sha", Box::new(Word(sha))),
            ],
            Self::State(state) => vec![("state", Box::new(Word(state)))],
            Self::Evaluated { key, closure, meta } => vec![
                ("evaluation", Box::new(key)),
                ("closure", Box::new(Word(closure))),
                ("meta", Box::new(Json(meta))),
            ],
            Self::Live { sha, closure, meta } => vec![
                ("live_sha", Box::new(Word(sha))),
                ("live_closure", Box::new(Word(closure))),
                ("live_meta", Box::new(Json(meta))),
            ],
            Self::NotLive => vec![
                ("live_sha", Box::new(None::<String>)),
                ("live_closure", Box::new(None::<String>)),
                ("live_meta", Box::new(None::<String>)),
            ],
            Self::Dirty(is) => vec![("disturbed", Box::new(is))],
            Self::Comment(id) => vec![("comment_id", Box::new(id.map(Number)))],
            Self::Deployment(id) => vec![("deployment_id", Box::new(id.map(Number)))],
            Self::Fault(fault) => vec![("fault", Box::new(fault.as_ref().map(Json)))],
            Self::LastDelivery(id) => vec![("last_delivery", Box::new(id))],
            Self::Active(time) => vec![("last_activity", Box::new(Time(*time)))],
            Self::Expired => [
                Self::State(PreviewState::Expired),
                Self::NotLive,
                Self::Dirty(false),
                Self::Fault(None),
            ]
            .iter()
            .flat_map(Self::columns)
            .collect(),
        }
    }

    /// Whether the preview's age counts from this fact on.
    fn restarts_age(&self) -> bool {
        matches!(self, Self::Active(_) | Self::Expired)
    }
}

impl Store {
    /// Records a preview with the first of `slugs` that neither a preview nor a guest has, and that is no extra host
    /// of a preview, or returns the one that the pull request has already, as it is; see also [`claim`]. A branch
    /// that has a preview gets no other by hand. Durable.
    ///
    /// # Errors
    /// [`StoreError::SlugsTaken`], [`StoreError::BranchHasPreview`].
    pub async fn claim_preview(
        &self,
        new: NewPreview,
        slugs: Vec<GuestName>,
    ) -> Result<Preview, StoreError> {
        self.run("record a preview", move |database| {
            database.require_space()?;
            database.write(Durability::Now, |transaction| {
                if let Some(number) = new.number
                    && let Some(known) = find_of(transaction, &new.repo, number)?
                {
                    return Ok(known);
                }
                if new.number.is_none()
                    && let Some(slug) = slug_of_branch(transaction, &new, "TRUE")?
                {
                    let owner = new.owner();
                    return Err(StoreError::BranchHasPreview { owner, slug }.into());
                }
                match claim(transaction, &new, &slugs)? {
                    Some(slug) => expect(transaction, &slug),
                    None => Err(StoreError::SlugsTaken {
                        owner: new.owner(),
                        candidates: slugs,
                    }
                    .into()),
                }
            })
        })
        .await
    }

    /// Records what changed of a preview, all or nothing, and returns it as it is now. Durable if an intent
    /// is among the changes; see [`PreviewFact`].
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn set_preview(
        &self,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        let durability = durability(&facts);
        self.run("record what changed of a preview", move |database| {
            database.write(durability, |transaction| {
                set_all(transaction, &slug, &facts)
            })
        })
        .await
    }

    /// Records what changed of a preview because nobody used it, like [`Self::set_preview`], unless it was used, changed
    /// or removed since it was read as `seen`, or a delivery of its pull request is pending. Then nothing is recorded and
    /// nothing returned.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn set_preview_if_unused(
        &self,
        seen: &Preview,
        facts: Vec<PreviewFact>,
    ) -> Result<Option<Preview>, StoreError> {
        let seen = seen.clone();
        let durability = durability(&facts);
        self.run("record what changed of a preview", move |database| {
            database.write(durability, |transaction| {
                let slug = &seen.record.slug;
                if find(transaction, slug)?.as_ref() != Some(&seen) {
                    return Ok(None);
                }
                if let Some(pull_request) = seen.record.pull_request()
                    && deliveries::has_pending(transaction, &pull_request)?
                {
                    return Ok(None);
                }
                set_all(transaction, slug, &facts).map(Some)
            })
        })
        .await
    }

    /// Records what a delivery says of a preview, like [`Self::set_preview`], while the delivery is pending.
    /// Afterwards nothing is recorded and nothing returned: somebody else had the last word.
    ///
    /// # Errors
    /// [`StoreError::DeliveryNotFound`], [`StoreError::PreviewNotFound`].
    pub async fn set_preview_for_delivery(
        &self,
        id: &str,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Option<Preview>, StoreError> {
        let (id, slug) = (id.to_owned(), slug.clone());
        let durability = durability(&facts);
        self.run("record what a delivery says", move |database| {
            database.write(durability, |transaction| {
                if !deliveries::is_pending(transaction, &id)? {
                    return Ok(None);
                }
                set_all(transaction, &slug, &facts).map(Some)
            })
        })
        .await
    }

    /// Records what somebody on the host wants of a preview. The deliveries of its pull request that want it
    /// to be there, and were not acted on to the end, are superseded in the same transaction: they are from
    /// before. One that says `closed` stays, since nobody can want a preview of what is closed. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn override_preview(
        &self,
        slug: &GuestName,
        facts: Vec<PreviewFact>,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        self.run("record what somebody wants of a preview", move |database| {
            database.write(Durability::Now, |transaction| {
                let preview = set_all(transaction, &slug, &facts)?;
                if let Some(pull_request) = preview.record.pull_request() {
                    deliveries::overrule(transaction, &pull_request)?;
                }
                Ok(preview)
            })
        })
        .await
    }

    /// Records that somebody with write access approves this commit, and no other. It need not be the wanted one:
    /// the delivery that wants it may be on its way. But the approval of the wanted one is not replaced by that of
    /// another, and a label changes nothing of what the host approved. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn approve(
        &self,
        slug: &GuestName,
        sha: &CommitSha,
        by: Approval,
    ) -> Result<(), StoreError> {
        let (slug, sha) = (slug.clone(), sha.clone());
        self.run("record an approval", move |database| {
            database.write(Durability::Now, |transaction| {
                transaction
                    .prepare_cached(
                        "UPDATE previews SET approved_sha = ?2,
                         approved_by_label = ?3 AND (approved_by_label OR approved_sha IS NOT ?2)
                         WHERE slug = ?1 AND (wanted_sha = ?2 OR approved_sha IS NOT wanted_sha)",
                    )?
                    .execute((Word(&slug), Word(&sha), by == Approval::Label))?;
                expect(transaction, &slug).map(drop)
            })
        })
        .await
    }

    /// The number of the last delivery that arrived; 0 when there was none.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn last_delivery_seq(&self) -> Result<i64, StoreError> {
        self.run("read the last delivery", |database| {
            let last = database.connection.query_row(
                "SELECT coalesce(max(seq), 0) FROM deliveries",
                (),
                |row| row.get(0),
            );
            last.map_err(QueryError::from)
        })
        .await
    }

    /// Records that GitHub shows this commit as waiting for approval, and that deliveries up to `after` had arrived
    /// before. A commit that was announced already keeps its first announcement.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn record_announcement(
        &self,
        slug: &GuestName,
        sha: &CommitSha,
        after: i64,
    ) -> Result<(), StoreError> {
        let (slug, sha) = (slug.clone(), sha.clone());
        self.run("record what was announced", move |database| {
            database.write(Durability::Soon, |transaction| {
                transaction
                    .prepare_cached(
                        "UPDATE previews SET announced_sha = ?2, announced_after = ?3
                         WHERE slug = ?1 AND announced_sha IS NOT ?2",
                    )?
                    .execute((Word(&slug), Word(&sha), after))?;
                expect(transaction, &slug).map(drop)
            })
        })
        .await
    }

    /// Records that no commit is approved any more and why, and that none is served: the preview waits for its turn
    /// to be stopped. Durable.
    ///
    /// # Errors
    /// [`StoreError::PreviewNotFound`].
    pub async fn withdraw_approval(
        &self,
        slug: &GuestName,
        why: Failure,
    ) -> Result<Preview, StoreError> {
        let slug = slug.clone();
        let facts = [
            PreviewFact::NotLive,
            PreviewFact::Dirty(false),
            PreviewFact::State(PreviewState::Queued),
            PreviewFact::Fault(Some(why)),
        ];
        self.run("record that nothing is approved", move |database| {
            database.write(Durability::Now, |transaction| {
                set(transaction, &slug, "approved_sha", &None::<String>)?;
                set(transaction, &slug, "approved_by_label", &false)?;
                set_all(transaction, &slug, &facts)
            })
        })
        .await
    }

    /// Deletes a preview's record, which frees its slug. To be called when every resource of the preview has
    /// been seen gone. Durable. The absence of the preview is success.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn delete_preview(&self, slug: &GuestName) -> Result<(), StoreError> {
        let slug = slug.clone();
        self.run("delete a preview's record", move |database| {
            database.write(Durability::Now, |transaction| {
                transaction
                    .prepare_cached("DELETE FROM previews WHERE slug = ?1")?
                    .execute([Word(&slug)])?;
                Ok(())
            })
        })
        .await
    }

    /// The record of a preview.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn preview(&self, slug: &GuestName) -> Result<Option<Preview>, StoreError> {
        let slug = slug.clone();
        self.run("read a preview's record", move |database| {
            find(&database.connection, &slug)
        })
        .await
    }

    /// The record of a pull request's preview.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn preview_of(
        &self,
        pull_request: &PullRequest,
    ) -> Result<Option<Preview>, StoreError> {
        let PullRequest { repo, number } = pull_request.clone();
        self.run("read a preview's record", move |database| {
            find_of(&database.connection, &repo, number)
        })
        .await
    }

    /// The records of all previews, by slug.
    ///
    /// # Errors
    /// Only what the disk or SQLite says.
    pub async fn previews(&self) -> Result<Vec<Preview>, StoreError> {
        self.run("read the previews' records", |database| {
            let previews = database
                .connection
                .prepare_cached("SELECT * FROM previews ORDER BY slug")?
                .query_map((), read)?
                .collect::<Result<_, _>>()?;
            Ok(previews)
        })
        .await
    }
}

/// Records a preview with the first slug that is free, and returns that slug; nothing if none is. The pull
/// request must have no preview. If somebody made one of its branch by hand, the pull request takes that.
pub(crate) fn claim(
    transaction: &Transaction<'_>,
    new: &NewPreview,
    slugs: &[GuestName],
) -> Result<Option<GuestName>, QueryError> {
    if let Some(number) = new.number
        && let Some(slug) = slug_of_branch(transaction, new, "number IS NULL AND want = 'present'")?
    {
        set(transaction, &slug, "number", &Number(number))?;
        return Ok(Some(slug));
    }
    for slug in slugs {
        if is_free(transaction, slug)? {
            insert(transaction, new, slug)?;
            return Ok(Some(slug.clone()));
        }
    }
    Ok(None)
}

/// The slug of a pull request's preview.
pub(crate) fn slug_of(
    connection: &Connection,
    pull_request: &PullRequest,
) -> Result<Option<GuestName>, QueryError> {
    let slug: Option<Word<_>> = connection
        .prepare_cached("SELECT slug FROM previews WHERE repo = ?1 AND number = ?2")?
        .query_row(
            (Word(&pull_request.repo), Number(pull_request.number)),
            |row| row.get(0),
        )
        .optional()?;
    Ok(slug.map(|word| word.0))
}

/// The oldest preview of the same branch for which a condition holds. Branches of forks are not the repository's.
fn slug_of_branch(
    connection: &Connection,
    new: &NewPreview,
    condition: &'static str,
) -> Result<Option<GuestName>, QueryError> {
    if new.head_repo.as_ref() != Some(&new.repo) {
        return Ok(None);
    }
    let slug: Option<Word<_>> = connection
        .prepare_cached(&format!(
            "SELECT slug FROM previews
             WHERE repo = ?1 AND head_repo = ?1 COLLATE NOCASE AND branch = ?2 AND {condition}
             ORDER BY created_at LIMIT 1"
        ))?
        .query_row((Word(&new.repo), Word(&new.branch)), |row| row.get(0))
        .optional()?;
    Ok(slug.map(|word| word.0))
}

/// Refuses a name that a preview has: its guest may not be there yet, and nobody else may take the name.
pub(crate) fn refuse_name(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    match find(connection, name)? {
        None => Ok(()),
        Some(preview) => Err(StoreError::NameOfPreview {
            name: name.clone(),
            owner: owner(
                &preview.record.repo,
                preview.record.pull_request,
                &preview.record.branch,
            ),
        }
        .into()),
    }
}

fn owner(repo: &RepoName, number: Option<u64>, branch: &BranchName) -> String {
    match number {
        Some(number) => format!("{repo}#{number}"),
        None => format!("{repo}, branch {:?}", branch.as_str()),
    }
}

fn is_free(connection: &Connection, slug: &GuestName) -> Result<bool, QueryError> {
    let taken = connection
        .prepare_cached(
            "SELECT 1 FROM previews WHERE slug = ?1 UNION ALL SELECT 1 FROM guests WHERE name = ?1",
        )?
        .exists([Word(slug)])?;
    Ok(!taken && !is_extra_host(connection, slug)?)
}

/// Whether a preview answers to this label besides its slug: the extra hosts of `web-7` end in `-web-7`.
fn is_extra_host(connection: &Connection, label: &GuestName) -> Result<bool, QueryError> {
    let previews = connection
        .prepare_cached("SELECT * FROM previews WHERE ?1 LIKE '%-' || slug")?
        .query_map([Word(label)], read)?
        .collect::<Result<Vec<_>, _>>()?;
    let answers = |preview: &Preview, meta: &Meta| {
        let mut hosts = meta.extra_hosts.iter();
        hosts.any(|host| host.label(&preview.record.slug).as_ref() == Ok(label))
    };
    Ok(previews.iter().any(|preview| {
        let mut metas = preview.meta.iter().chain(&preview.live_meta);
        metas.any(|meta| answers(preview, meta))
    }))
}

fn insert(
    transaction: &Transaction<'_>,
    new: &NewPreview,
    slug: &GuestName,
) -> Result<(), QueryError> {
    transaction
        .prepare_cached(
            "INSERT INTO previews (slug, repo, number, branch, head_repo, wanted_sha,
                                   state, want, last_activity, created_at, active_running)
             VALUES (:slug, :repo, :number, :branch, :head_repo, :wanted_sha,
                     :state, :want, :now, :now, (SELECT micros FROM running_time))",
        )?
        .execute(named_params! {
            ":slug": Word(slug),
            ":repo": Word(&new.repo),
            ":number": new.number.map(Number),
            ":branch": Word(&new.branch),
            ":head_repo": new.head_repo.as_ref().map(Word),
            ":wanted_sha": Word(&new.wanted_sha),
            ":state": Word(PreviewState::Queued),
            ":want": Word(Presence::Present),
            ":now": Time::now(),
        })?;
    Ok(())
}

fn durability(facts: &[PreviewFact]) -> Durability {
    let is_intent = facts
        .iter()
        .any(|fact| fact.durability() == Durability::Now);
    if is_intent {
        Durability::Now
    } else {
        Durability::Soon
    }
}

fn set_all(
    connection: &Connection,
    slug: &GuestName,
    facts: &[PreviewFact],
) -> Result<Preview, QueryError> {
    for (column, value) in facts.iter().flat_map(PreviewFact::columns) {
        set(connection, slug, column, &*value)?;
    }
    if facts.iter().any(PreviewFact::restarts_age) {
        connection
            .prepare_cached(
                "UPDATE previews SET active_running = (SELECT micros FROM running_time) WHERE slug = ?1",
            )?
            .execute([Word(slug)])?;
    }
    expect(connection, slug)
}

/// Sets one column. Which one is never a caller's text.
fn set(
    connection: &Connection,
    slug: &GuestName,
    column: &'static str,
    value: &dyn ToSql,
) -> Result<(), QueryError> {
    connection
        .prepare_cached(&format!(
            "UPDATE previews SET {column} = ?2 WHERE slug = ?1"
        ))?
        .execute((Word(slug), value))?;
    Ok(())
}

fn find(connection: &Connection, slug: &GuestName) -> Result<Option<Preview>, QueryError> {
    let preview = connection
        .prepare_cached("SELECT * FROM previews WHERE slug = ?1")?
        .query_row([Word(slug)], read)
        .optional()?;
    Ok(preview)
}

fn find_of(
    connection: &Connection,
    repo: &RepoName,
    number: u64,
) -> Result<Option<Preview>, QueryError> {
    let preview = connection
        .prepare_cached("SELECT * FROM previews WHERE repo = ?1 AND number = ?2")?
        .query_row((Word(repo), Number(number)), read)
        .optional()?;
    Ok(preview)
}

fn expect(connection: &Connection, slug: &GuestName) -> Result<Preview, QueryError> {
    find(connection, slug)?.ok_or_else(|| StoreError::PreviewNotFound { slug: slug.clone() }.into())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Preview> {
    fn word<T: serde::de::DeserializeOwned>(
        row: &Row<'_>,
        column: &str,
    ) -> rusqlite::Result<Option<T>> {
        Ok(row.get::<_, Option<Word<_>>>(column)?.map(|word| word.0))
    }
    fn json<T: serde::de::DeserializeOwned>(
        row: &Row<'_>,
        column: &str,
    ) -> rusqlite::Result<Option<T>> {
        Ok(row.get::<_, Option<Json<_>>>(column)?.map(|json| json.0))
    }
    let number = |column| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<Number>>(column)?.map(|number| number.0))
    };
    let fault: Option<String> = row.get("fault")?;
    let record = PreviewRecord {
        slug: row.get::<_, Word<_>>("slug")?.0,
        repo: row.get::<_, Word<_>>("repo")?.0,
        pull_request: number("number")?,
        branch: row.get::<_, Word<_>>("branch")?.0,
        head_repo: word(row, "head_repo")?,
        wanted_sha: row.get::<_, Word<_>>("wanted_sha")?.0,
        live_sha: word(row, "live_sha")?,
        approved_sha: word(row, "approved_sha")?,
        state: row.get::<_, Word<_>>("state")?.0,
        fault: fault.as_deref().map(codec::failure),
        last_delivery: row.get("last_delivery")?,
        created_at: row.get::<_, Time>("created_at")?.0,
        last_activity: row.get::<_, Time>("last_activity")?.0,
    };
    Ok(Preview {
        record,
        desired: row.get::<_, Word<_>>("want")?.0,
        evaluation: row.get("evaluation")?,
        closure: word(row, "closure")?,
        meta: json(row, "meta")?,
        live_closure: word(row, "live_closure")?,
        live_meta: json(row, "live_meta")?,
        dirty: row.get("disturbed")?,
        approved_by_label: row.get("approved_by_label")?,
        announced_sha: word(row, "announced_sha")?,
        announced_after: row.get("announced_after")?,
        active_running: row.get("active_running")?,
        comment_id: number("comment_id")?,
        deployment_id: number("deployment_id")?,
    })
}
