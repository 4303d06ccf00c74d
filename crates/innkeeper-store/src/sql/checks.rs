//! Table `checks`: checks of commits on GitHub that have not ended there.

use innkeeper_model::preview::{CommitSha, PullRequest, Situation};
use rusqlite::{Connection, Transaction};

use crate::codec::{Columns, Number, Text};
use crate::error::QueryError;
use crate::sql;

/// The maximum number of rows. GitHub would refuse checks long before.
const KEPT: u32 = 10_000;

/// A check of a commit that has not ended on GitHub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCheck {
    /// The pull request.
    pub pull_request: PullRequest,
    /// The check's name.
    pub name: String,
    /// The commit.
    pub sha: CommitSha,
    /// The situation to report. `None` while a preview reports its own.
    pub situation: Option<Situation>,
}

/// Returns all open checks.
pub(crate) fn list(connection: &Connection) -> Result<Vec<OpenCheck>, QueryError> {
    let query = "SELECT * FROM checks ORDER BY repo, number, name, sha";
    sql::all(connection, query, (), |row| {
        Ok(OpenCheck {
            pull_request: PullRequest {
                repo: row.text("repo")?,
                number: row.number("number")?,
            },
            name: row.get("name")?,
            sha: row.text("sha")?,
            situation: row.opt_text("situation")?,
        })
    })
}

/// Records an open check in place of the same one.
pub(crate) fn replace(transaction: &Transaction<'_>, check: &OpenCheck) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "INSERT OR REPLACE INTO checks (repo, number, name, sha, situation)
         SELECT ?1, ?2, ?3, ?4, ?5 WHERE (SELECT count(*) FROM checks) < ?6",
        (
            Text(&check.pull_request.repo),
            Number(check.pull_request.number),
            &check.name,
            Text(&check.sha),
            check.situation.map(Text),
            KEPT,
        ),
    )?;
    Ok(())
}

/// Deletes a check that has ended, unless it is to report another situation by now.
pub(crate) fn delete(transaction: &Transaction<'_>, check: &OpenCheck) -> Result<(), QueryError> {
    sql::execute(
        transaction,
        "DELETE FROM checks
         WHERE repo = ?1 AND number = ?2 AND name = ?3 AND sha = ?4 AND situation IS ?5",
        (
            Text(&check.pull_request.repo),
            Number(check.pull_request.number),
            &check.name,
            Text(&check.sha),
            check.situation.map(Text),
        ),
    )?;
    Ok(())
}
