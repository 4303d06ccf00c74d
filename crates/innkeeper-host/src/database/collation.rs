//! Finds databases whose collation version differs from the system library's (PostgreSQL 15 and newer).
//!
//! An upgrade of glibc or ICU can change the order of texts, which breaks existing indexes. PostgreSQL warns at each
//! connection and refuses to copy such a database.

use innkeeper_model::api::Verdict;

use super::Check;
use super::error::{DatabaseError, collation_remedy};
use super::finding::check;
use super::session::Session;

/// First version of PostgreSQL that records a database's collation version.
const SINCE: i32 = 150_000;

/// Maximum number of databases that a finding names.
const MAX_NAMED: usize = 5;

/// A database's collation version and the system library's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) database: String,
    pub(super) recorded: String,
    pub(super) actual: String,
}

/// Returns the databases that do not match, or only the one named `name`.
pub(super) async fn mismatches(
    session: &Session,
    name: Option<&str>,
) -> Result<Vec<Mismatch>, DatabaseError> {
    let sql = "SELECT current_setting('server_version_num')::int";
    let version = session.row("query", "PostgreSQL", sql, &[]).await?;
    if version.is_none_or(|row| row.get::<_, i32>(0) < SINCE) {
        return Ok(Vec::new());
    }
    let sql = "SELECT datname::text, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database \
               WHERE datcollversion <> pg_database_collation_actual_version(oid) AND datconnlimit <> -2 \
               AND ($1::text IS NULL OR datname = $1) ORDER BY datname";
    let rows = session
        .rows("query collations of", "databases", sql, &[&name])
        .await?;
    let mismatches = rows.iter().map(|row| Mismatch {
        database: row.get(0),
        recorded: row.get(1),
        actual: row.get(2),
    });
    Ok(mismatches.collect())
}

/// Reports the databases that do not match.
pub(super) async fn findings(session: &Session) -> Result<Option<Check>, DatabaseError> {
    Ok(finding(&mismatches(session, None).await?))
}

fn finding(mismatches: &[Mismatch]) -> Option<Check> {
    let first = mismatches.first()?;
    let mut names: Vec<_> = mismatches
        .iter()
        .take(MAX_NAMED)
        .map(|mismatch| format!("'{}'", mismatch.database))
        .collect();
    if let more @ 1.. = mismatches.len().saturating_sub(MAX_NAMED) {
        names.push(format!("{more} more"));
    }
    let finding = format!(
        "the collation version of {} differs from the system's ({} instead of {}): text indexes may be corrupt",
        names.join(", "),
        first.recorded,
        first.actual
    );
    let mut remedy = collation_remedy(&first.database, false);
    if mismatches.len() > 1 {
        remedy.push_str(" Repeat this for each of the others.");
    }
    Some(check(Verdict::Warning, finding, &remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_names_databases_versions_and_statements() {
        let one = |n: usize| Mismatch {
            database: format!("db{n}"),
            recorded: "2.31".to_owned(),
            actual: "2.36".to_owned(),
        };
        assert!(finding(&[]).is_none());
        let check = finding(&[one(0)]).expect("a finding");
        assert_eq!(
            check.finding,
            "the collation version of 'db0' differs from the system's (2.31 instead of 2.36): text indexes may be corrupt"
        );
        assert_eq!(
            check.remedy.as_deref(),
            Some(
                "In psql, as the administrator: `\\connect \"db0\"`, `REINDEX DATABASE \"db0\"`, `ALTER DATABASE \"db0\" \
                 REFRESH COLLATION VERSION`."
            )
        );
        let many: Vec<_> = (0..7).map(one).collect();
        let check = finding(&many).expect("a finding");
        assert!(check.finding.contains("'db4', 2 more differs"), "{check:?}");
    }
}
