//! Table `previews`.
//!
//! A slug belongs to its pull request from the first delivery until the preview's record is deleted. Only this table
//! decides which slug that is.

use innkeeper_model::GuestName;
use innkeeper_model::preview::sources::SourcePath;
use innkeeper_model::preview::{
    CommitSha, Meta, PreviewRecord, PreviewState, PullRequest, RepoName,
};
use rusqlite::{Connection, Row, ToSql, Transaction, named_params};

use crate::codec::{Columns, Json, Number, Text, Time};
use crate::error::{QueryError, StoreError};
use crate::preview::{self, Approval, NewPreview, Presence, Preview, PreviewFact};
use crate::sql::{self, rollout};

pub(crate) fn find(
    connection: &Connection,
    slug: &GuestName,
) -> Result<Option<Preview>, QueryError> {
    let query = "SELECT * FROM previews WHERE slug = ?1";
    sql::first(connection, query, [Text(slug)], read)
}

/// Returns a preview, or fails with [`StoreError::PreviewNotFound`].
pub(crate) fn require(connection: &Connection, slug: &GuestName) -> Result<Preview, QueryError> {
    find(connection, slug)?.ok_or_else(|| StoreError::PreviewNotFound { slug: slug.clone() }.into())
}

/// Deletes the record of a pull request's preview that wants this commit, if no commit with a `preview-config.nix` was
/// ever found. Returns whether it was deleted.
pub(crate) fn delete_unseen(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    sha: &CommitSha,
) -> Result<bool, QueryError> {
    let delete = "DELETE FROM previews
         WHERE slug = ?1 AND wanted_sha = ?2 AND NOT config_seen AND number IS NOT NULL";
    Ok(sql::execute(transaction, delete, (Text(slug), Text(sha)))? > 0)
}

/// Returns the preview of a pull request.
pub(crate) fn find_of(
    connection: &Connection,
    repo: &RepoName,
    number: u64,
) -> Result<Option<Preview>, QueryError> {
    let query = "SELECT * FROM previews WHERE repo = ?1 AND number = ?2";
    sql::first(connection, query, (Text(repo), Number(number)), read)
}

pub(crate) fn list(connection: &Connection) -> Result<Vec<Preview>, QueryError> {
    sql::all(connection, "SELECT * FROM previews ORDER BY slug", (), read)
}

/// Returns the slug of a pull request's preview.
pub(crate) fn slug_of(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<Option<GuestName>, QueryError> {
    let query = "SELECT slug FROM previews WHERE repo = ?1 AND number = ?2";
    let parameters = (Text(repo), Number(*number));
    sql::first(connection, query, parameters, |row| row.text(0))
}

/// Returns the delivery whose wish the record of a pull request's preview contains.
pub(crate) fn last_delivery_of(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<Option<String>, QueryError> {
    let query = "SELECT last_delivery FROM previews WHERE repo = ?1 AND number = ?2";
    let parameters = (Text(repo), Number(*number));
    Ok(sql::first(connection, query, parameters, |row| row.get(0))?.flatten())
}

/// Returns the slug of the oldest preview of the same branch. Branches of forks are not the repository's.
pub(crate) fn slug_of_branch(
    connection: &Connection,
    new: &NewPreview,
) -> Result<Option<GuestName>, QueryError> {
    oldest_of_branch(connection, new, "TRUE")
}

/// Returns the slug of the oldest preview of the same branch that was created by hand and is to stay.
pub(crate) fn manual_slug_of_branch(
    connection: &Connection,
    new: &NewPreview,
) -> Result<Option<GuestName>, QueryError> {
    oldest_of_branch(
        connection,
        new,
        "number IS NULL AND additional_to IS NULL AND want = 'present'",
    )
}

fn oldest_of_branch(
    connection: &Connection,
    new: &NewPreview,
    condition: &'static str,
) -> Result<Option<GuestName>, QueryError> {
    if new.head_repo.as_ref() != Some(&new.repo) {
        return Ok(None);
    }
    let query = format!(
        "SELECT slug FROM previews
         WHERE repo = ?1 AND head_repo = ?1 COLLATE NOCASE AND branch = ?2 AND {condition}
         ORDER BY created_at LIMIT 1"
    );
    let parameters = (Text(&new.repo), Text(&new.branch));
    sql::first(connection, &query, parameters, |row| row.text(0))
}

/// Fails with [`StoreError::NameOfPreview`] if a preview has this name, also as an extra host. Its guest may not exist
/// yet.
pub(crate) fn refuse_name(connection: &Connection, name: &GuestName) -> Result<(), QueryError> {
    let found = match find(connection, name)? {
        None => with_extra_host(connection, name)?,
        found => found,
    };
    match found {
        None => Ok(()),
        Some(Preview { record, .. }) => Err(StoreError::NameOfPreview {
            name: name.clone(),
            owner: preview::owner(&record.repo, record.pull_request, &record.branch),
        }
        .into()),
    }
}

/// Reports whether a slug belongs to no preview and no guest, and is no extra host of a preview.
pub(crate) fn is_free(connection: &Connection, slug: &GuestName) -> Result<bool, QueryError> {
    let taken = sql::exists(
        connection,
        "SELECT 1 FROM previews WHERE slug = ?1 UNION ALL SELECT 1 FROM guests WHERE name = ?1",
        [Text(slug)],
    )?;
    Ok(!taken && with_extra_host(connection, slug)?.is_none())
}

/// Returns the preview with this extra host. Those of `web-7` end in `-web-7`.
fn with_extra_host(
    connection: &Connection,
    label: &GuestName,
) -> Result<Option<Preview>, QueryError> {
    let query = "SELECT * FROM previews WHERE ?1 LIKE '%-' || slug";
    let previews = sql::all(connection, query, [Text(label)], read)?;
    let serves = |preview: &Preview, meta: &Meta| {
        let mut hosts = meta.extra_hosts.iter();
        hosts.any(|host| host.label(&preview.record.slug).as_ref() == Ok(label))
    };
    Ok(previews.into_iter().find(|preview| {
        let mut metas = preview.meta.iter().chain(&preview.live_meta);
        metas.any(|meta| serves(preview, meta))
    }))
}

/// Reports whether a preview of the repository, or of any with `None`, had an extra host with this prefix before prefixes
/// were reserved.
pub(crate) fn has_older_prefix(
    connection: &Connection,
    repo: Option<&RepoName>,
    prefix: &GuestName,
) -> Result<bool, QueryError> {
    let query = "SELECT 1 FROM older_prefixes WHERE coalesce(repo = ?1, true) AND prefix = ?2";
    sql::exists(connection, query, (repo.map(Text), Text(prefix)))
}

/// Returns the previews of repositories that were deleted.
pub(crate) fn of_deleted_repos(connection: &Connection) -> Result<Vec<GuestName>, QueryError> {
    sql::all(
        connection,
        "SELECT slug FROM repositories JOIN previews ON previews.repo = repositories.name
         WHERE deleted_at IS NOT NULL AND want = 'absent'",
        (),
        |row| row.text(0),
    )
}

pub(crate) fn insert(
    transaction: &Transaction<'_>,
    new: &NewPreview,
    slug: &GuestName,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT INTO previews (slug, repo, number, branch, head_repo, wanted_sha,
                               state, want, last_activity, created_at, active_running,
                               began_at, state_since)
         VALUES (:slug, :repo, :number, :branch, :head_repo, :wanted_sha,
                 :state, :want, :now, :now, (SELECT micros FROM running_time), :now, :now)",
        named_params! {
            ":slug": Text(slug),
            ":repo": Text(&new.repo),
            ":number": new.number.map(Number),
            ":branch": Text(&new.branch),
            ":head_repo": new.head_repo.as_ref().map(Text),
            ":wanted_sha": Text(&new.wanted_sha),
            ":state": Text(PreviewState::Queued),
            ":want": Text(Presence::Present),
            ":now": Time::now(),
        },
    )?;
    Ok(())
}

/// Returns the additional previews of a pull request.
pub(crate) fn additional(
    connection: &Connection,
    PullRequest { repo, number }: &PullRequest,
) -> Result<Vec<Preview>, QueryError> {
    let query = "SELECT * FROM previews WHERE repo = ?1 AND additional_to = ?2 ORDER BY slug";
    sql::all(connection, query, (Text(repo), Number(*number)), read)
}

/// Inserts an additional preview of a pull request, for a configuration.
pub(crate) fn insert_additional(
    transaction: &Transaction<'_>,
    first: &PreviewRecord,
    config: &SourcePath,
    slug: &GuestName,
) -> Result<(), QueryError> {
    let new = NewPreview {
        repo: first.repo.clone(),
        number: None,
        branch: first.branch.clone(),
        head_repo: first.head_repo.clone(),
        wanted_sha: first.wanted_sha.clone(),
    };
    insert(transaction, &new, slug)?;
    set(transaction, slug, "config_path", &Text(config))?;
    set(
        transaction,
        slug,
        "additional_to",
        &first.pull_request.map(Number),
    )
}

/// Copies the approval of a pull request's first preview to an additional one.
pub(crate) fn copy_approval(
    transaction: &Transaction<'_>,
    first: &Preview,
    slug: &GuestName,
) -> Result<(), QueryError> {
    let approved = first.record.approved_sha.as_ref().map(Text);
    set(transaction, slug, "approved_sha", &approved)?;
    set(
        transaction,
        slug,
        "approved_by_label",
        &first.approved_by_label,
    )
}

/// Gives a preview that was created by hand to a pull request.
pub(crate) fn set_number(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    number: u64,
) -> Result<(), QueryError> {
    set(transaction, slug, "number", &Number(number))?;
    // The pull request has the branch.
    set(transaction, slug, "removal_running", &None::<i64>)
}

/// Applies changes and returns the preview after them.
pub(crate) fn apply(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    facts: &[PreviewFact],
) -> Result<Preview, QueryError> {
    for fact in facts {
        rollout::apply(transaction, slug, fact)?;
    }
    for (column, value) in facts.iter().flat_map(columns) {
        set(transaction, slug, column, &*value)?;
    }
    for fact in facts {
        match fact {
            PreviewFact::Dropped(_) | PreviewFact::BranchGone(true) => {
                begin_grace(transaction, slug)?;
            }
            PreviewFact::ConfigFound | PreviewFact::BranchGone(false) => {
                set(transaction, slug, "removal_running", &None::<i64>)?;
            }
            _ => {}
        }
    }
    if facts.iter().any(PreviewFact::restarts_age) {
        let update = "UPDATE previews SET active_running = (SELECT micros FROM running_time) WHERE slug = ?1";
        sql::execute(transaction, update, [Text(slug)])?;
    }
    require(transaction, slug)
}

/// Begins the grace period before a removal, unless it has begun.
fn begin_grace(transaction: &Transaction<'_>, slug: &GuestName) -> Result<(), QueryError> {
    let update = "UPDATE previews SET removal_running = coalesce(removal_running, (SELECT micros FROM running_time))
         WHERE slug = ?1";
    sql::execute(transaction, update, [Text(slug)])?;
    Ok(())
}

/// Returns the columns that a change sets, with their values.
fn columns(fact: &PreviewFact) -> Vec<(&'static str, Box<dyn ToSql + '_>)> {
    let null = || -> Box<dyn ToSql> { Box::new(None::<String>) };
    match fact {
        PreviewFact::Desired(presence) => vec![("want", Box::new(Text(presence)))],
        PreviewFact::Head { repo, branch, sha } => vec![
            ("head_repo", Box::new(repo.as_ref().map(Text))),
            ("branch", Box::new(Text(branch))),
            ("wanted_sha", Box::new(Text(sha))),
        ],
        PreviewFact::State(state) => vec![("state", Box::new(Text(state)))],
        PreviewFact::Evaluated { key, closure, meta } => vec![
            ("evaluation", Box::new(key)),
            ("closure", Box::new(Text(closure))),
            ("meta", Box::new(Json(meta))),
        ],
        PreviewFact::Live { sha, closure, meta } => vec![
            ("live_sha", Box::new(Text(sha))),
            ("live_closure", Box::new(Text(closure))),
            ("live_meta", Box::new(Json(meta))),
        ],
        PreviewFact::NotLive => vec![
            ("live_sha", null()),
            ("live_closure", null()),
            ("live_meta", null()),
        ],
        PreviewFact::Attempt | PreviewFact::CameUp => Vec::new(),
        PreviewFact::Changes(changes) => {
            vec![("changes", Box::new(changes.as_ref().map(Json)))]
        }
        PreviewFact::Dirty(dirty) => vec![("disturbed", Box::new(dirty))],
        PreviewFact::Comment(id) => vec![("comment_id", Box::new(id.map(Number)))],
        PreviewFact::Deployment(id) => vec![("deployment_id", Box::new(id.map(Number)))],
        PreviewFact::Details(details) => vec![("details", Box::new(Json(details)))],
        PreviewFact::Visibility(visibility) => {
            vec![("visibility", Box::new(visibility.as_ref().map(Text)))]
        }
        PreviewFact::Owner(actor) => vec![("owner", Box::new(actor))],
        PreviewFact::Fault(fault) => vec![("fault", Box::new(fault.as_ref().map(Json)))],
        PreviewFact::LastDelivery(id) => vec![("last_delivery", Box::new(id))],
        PreviewFact::Active(time) => vec![("last_activity", Box::new(Time(*time)))],
        PreviewFact::Request(request) => vec![("request", Box::new(request.as_ref().map(Text)))],
        PreviewFact::ResetDatabase(reset) => vec![("reset_database", Box::new(reset))],
        PreviewFact::Visited(time) => vec![("visited_at", Box::new(Time(*time)))],
        PreviewFact::ConfigFound => vec![("config_seen", Box::new(true))],
        PreviewFact::BranchGone(_) => Vec::new(),
        PreviewFact::Dropped(failure) => {
            let mut columns = stopped(PreviewState::Dropped);
            columns.retain(|(column, _)| *column != "fault");
            columns.push(("fault", Box::new(Json(failure))));
            columns
        }
        PreviewFact::Stopped => stopped(PreviewState::Stopped),
        PreviewFact::Expired => stopped(PreviewState::Expired),
    }
}

/// Returns the columns of a preview that is stopped, and the values that they get.
fn stopped(state: PreviewState) -> Vec<(&'static str, Box<dyn ToSql>)> {
    vec![
        ("state", Box::new(Text(state))),
        ("live_sha", Box::new(None::<String>)),
        ("live_closure", Box::new(None::<String>)),
        ("live_meta", Box::new(None::<String>)),
        ("disturbed", Box::new(false)),
        ("fault", Box::new(None::<String>)),
    ]
}

/// Approves a commit, unless that would replace the approval of the wanted one by that of another. A label does not
/// replace an approval from the host.
pub(crate) fn approve(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    sha: &CommitSha,
    by: Approval,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE previews SET approved_sha = ?2,
         approved_by_label = ?3 AND (approved_by_label OR approved_sha IS NOT ?2)
         WHERE slug = ?1 AND (wanted_sha = ?2 OR approved_sha IS NOT wanted_sha)",
        (Text(slug), Text(sha), by == Approval::Label),
    )?;
    Ok(())
}

/// Removes the approval of any commit.
pub(crate) fn clear_approval(
    transaction: &Transaction<'_>,
    slug: &GuestName,
) -> Result<(), QueryError> {
    set(transaction, slug, "approved_sha", &None::<String>)?;
    set(transaction, slug, "approved_by_label", &false)
}

/// Records the announcement of a commit that was not announced yet.
pub(crate) fn announce(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    sha: &CommitSha,
    after: i64,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE previews SET announced_sha = ?2, announced_after = ?3
         WHERE slug = ?1 AND announced_sha IS NOT ?2",
        (Text(slug), Text(sha), after),
    )?;
    Ok(())
}

/// Records that the previews of a repository should be removed, and returns their slugs.
pub(crate) fn set_absent_of_repo(
    transaction: &Transaction<'_>,
    repo: &RepoName,
) -> Result<Vec<GuestName>, QueryError> {
    let update = "UPDATE previews SET want = 'absent' WHERE repo = ?1 RETURNING slug";
    sql::all(transaction, update, [Text(repo)], |row| row.text(0))
}

/// Returns the previews under one name of a repository whose pull request or branch has a preview under the other.
pub(crate) fn duplicates(
    connection: &Connection,
    former: &RepoName,
    now: &RepoName,
) -> Result<Vec<GuestName>, QueryError> {
    sql::all(
        connection,
        "SELECT slug FROM previews WHERE repo = ?1 AND EXISTS (
             SELECT 1 FROM previews AS other WHERE other.repo = ?2
             AND (other.number = previews.number
                  OR previews.number IS NULL AND other.branch = previews.branch))",
        (Text(former), Text(now)),
        |row| row.text(0),
    )
}

/// Moves a duplicate to a name that no repository has, and records that it should be removed.
pub(crate) fn move_duplicate(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    repo: &RepoName,
) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "UPDATE previews SET repo = ?2, head_repo = NULL, want = 'absent' WHERE slug = ?1",
        (Text(slug), Text(repo)),
    )?;
    Ok(())
}

/// Moves the previews of a repository to its new name and returns their number. A fork whose repository had the other
/// name stays a fork.
pub(crate) fn rename_repo(
    transaction: &Transaction<'_>,
    former: &RepoName,
    now: &RepoName,
) -> Result<usize, QueryError> {
    sql::execute(
        transaction,
        "UPDATE OR REPLACE older_prefixes SET repo = ?2 WHERE repo = ?1",
        (Text(former), Text(now)),
    )?;
    sql::execute(
        transaction,
        "UPDATE previews SET repo = ?2, head_repo = CASE
             WHEN head_repo = ?1 COLLATE NOCASE THEN ?2
             WHEN head_repo = ?2 COLLATE NOCASE THEN NULL
             ELSE head_repo END
         WHERE repo = ?1",
        (Text(former), Text(now)),
    )
}

pub(crate) fn delete(transaction: &Transaction<'_>, slug: &GuestName) -> Result<(), QueryError> {
    let delete = "DELETE FROM previews WHERE slug = ?1";
    sql::execute(transaction, delete, [Text(slug)])?;
    Ok(())
}

/// Sets one column. The column is never a caller's text.
fn set(
    transaction: &Transaction<'_>,
    slug: &GuestName,
    column: &'static str,
    value: &dyn ToSql,
) -> Result<(), QueryError> {
    let update = format!("UPDATE previews SET {column} = ?2 WHERE slug = ?1");
    sql::execute(transaction, &update, (Text(slug), value))?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Preview> {
    let record = PreviewRecord {
        slug: row.text("slug")?,
        repo: row.text("repo")?,
        pull_request: match row.opt_number("number")? {
            Some(number) => Some(number),
            None => row.opt_number("additional_to")?,
        },
        branch: row.text("branch")?,
        head_repo: row.opt_text("head_repo")?,
        wanted_sha: row.text("wanted_sha")?,
        live_sha: row.opt_text("live_sha")?,
        approved_sha: row.opt_text("approved_sha")?,
        state: row.text("state")?,
        fault: row.opt_failure("fault")?,
        last_delivery: row.get("last_delivery")?,
        created_at: row.time("created_at")?,
        last_activity: row.time("last_activity")?,
        rollout: rollout::read(row)?,
        config_path: row.opt_text("config_path")?,
        owner: row.get("owner")?,
    };
    Ok(Preview {
        record,
        desired: row.text("want")?,
        evaluation: row.get("evaluation")?,
        closure: row.opt_text("closure")?,
        meta: row.opt_json("meta")?,
        live_closure: row.opt_text("live_closure")?,
        live_meta: row.opt_json("live_meta")?,
        dirty: row.get("disturbed")?,
        request: row.opt_text("request")?,
        reset_database: row.get("reset_database")?,
        approved_by_label: row.get("approved_by_label")?,
        announced_sha: row.opt_text("announced_sha")?,
        announced_after: row.get("announced_after")?,
        visited_at: row.opt_time("visited_at")?,
        config_seen: row.get("config_seen")?,
        removal_running: row.get("removal_running")?,
        active_running: row.get("active_running")?,
        comment_id: row.opt_number("comment_id")?,
        deployment_id: row.opt_number("deployment_id")?,
        details: row.opt_json("details")?.unwrap_or_default(),
        visibility: row.opt_text("visibility")?,
    })
}
