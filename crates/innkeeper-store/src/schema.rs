//! The schema and its migrations.
//!
//! A file's version is its `PRAGMA user_version`: the number of migrations that were applied to it. A released migration is
//! never changed; a change of the schema is a new migration at the end.
//!
//! Conventions of all tables:
//! - Times are microseconds since 1970-01-01T00:00:00Z. They are for people. Rows that expire by age have another column
//!   with the running time (`crate::clock`) at which their age began; its name ends in `_running`.
//! - Names, paths and enums are stored as in the API's JSON without quotes, compound values as the API's JSON. Only
//!   failures and events may gain new values without a migration: an older version reads unknown ones as text.
//! - `events.operation`, `events.guest` and `operations.guest` are no foreign keys: history outlives its objects.

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// One step from a version to the next.
pub(crate) struct Migration {
    /// The subject, for the log.
    pub(crate) name: &'static str,
    /// The statements, run in one transaction.
    pub(crate) sql: &'static str,
}

/// "Innk" in ASCII. It identifies the file to `file` and to [`Database::open`](crate::database::Database::open).
pub(crate) const APPLICATION_ID: i64 = 0x496e_6e6b;

/// All migrations, the oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "guests, slots, operations, events, closures",
        sql: include_str!("schema/1.sql"),
    },
    Migration {
        name: "deliveries, previews, evaluations",
        sql: include_str!("schema/2.sql"),
    },
    Migration {
        name: "previews' guests between two versions",
        sql: include_str!("schema/3.sql"),
    },
    Migration {
        name: "approvals by label",
        sql: include_str!("schema/4.sql"),
    },
    Migration {
        name: "snapshots",
        sql: include_str!("schema/5.sql"),
    },
    Migration {
        name: "commits announced as waiting for approval",
        sql: include_str!("schema/6.sql"),
    },
    Migration {
        name: "running time",
        sql: include_str!("schema/7.sql"),
    },
    Migration {
        name: "an index for intents of the same time",
        sql: include_str!("schema/8.sql"),
    },
    Migration {
        name: "the daemon's identity",
        sql: include_str!("schema/9.sql"),
    },
    Migration {
        name: "the running time when previews, evaluations and deliveries begin to age",
        sql: include_str!("schema/10.sql"),
    },
    Migration {
        name: "repositories by GitHub's number",
        sql: include_str!("schema/11.sql"),
    },
    Migration {
        name: "files of destroyed agents",
        sql: include_str!("schema/12.sql"),
    },
    Migration {
        name: "pings of webhooks",
        sql: include_str!("schema/13.sql"),
    },
    Migration {
        name: "commands in comments, requested previews",
        sql: include_str!("schema/14.sql"),
    },
    Migration {
        name: "previews whose file or branch is gone",
        sql: include_str!("schema/15.sql"),
    },
    Migration {
        name: "how commits of previews come up",
        sql: include_str!("schema/16.sql"),
    },
    Migration {
        name: "previews of several configurations",
        sql: include_str!("schema/17.sql"),
    },
    Migration {
        name: "titles and authors of pull requests",
        sql: include_str!("schema/18.sql"),
    },
    Migration {
        name: "visits of previews, prefixes of extra hosts from before reservations",
        sql: include_str!("schema/19.sql"),
    },
    Migration {
        name: "guests with several slots",
        sql: include_str!("schema/20.sql"),
    },
    Migration {
        name: "changes of agents' closures, declared agents",
        sql: include_str!("schema/21.sql"),
    },
    Migration {
        name: "levels of guests",
        sql: include_str!("schema/22.sql"),
    },
    Migration {
        name: "guests' own systems",
        sql: include_str!("schema/23.sql"),
    },
    Migration {
        name: "failed wakes, interrupted rollbacks",
        sql: include_str!("schema/24.sql"),
    },
    Migration {
        name: "seats",
        sql: include_str!("schema/25.sql"),
    },
    Migration {
        name: "idle policies and keepalives",
        sql: include_str!("schema/26.sql"),
    },
    Migration {
        name: "tokens, the audit log, owners of agents",
        sql: include_str!("schema/27.sql"),
    },
    Migration {
        name: "warm seats",
        sql: include_str!("schema/28.sql"),
    },
    Migration {
        name: "secrets of which guests have a former value",
        sql: include_str!("schema/29.sql"),
    },
    Migration {
        name: "people and their sessions",
        sql: include_str!("schema/30.sql"),
    },
    Migration {
        name: "visitors of previews",
        sql: include_str!("schema/31.sql"),
    },
    Migration {
        name: "repositories of tokens, details of audit entries, owners of previews",
        sql: include_str!("schema/32.sql"),
    },
];

/// Returns the version of a file that all of `migrations` were applied to.
pub(crate) fn version_after(migrations: &[Migration]) -> i64 {
    i64::try_from(migrations.len()).unwrap_or(i64::MAX)
}

/// Returns the version of a file.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", (), |row| row.get(0))
}

/// Applies the missing migrations, each in a transaction of its own: a crash leaves the file at one version or the next,
/// never in between. The file must not be newer than `migrations`.
pub(crate) fn migrate(
    connection: &mut Connection,
    migrations: &[Migration],
) -> rusqlite::Result<()> {
    let applied = usize::try_from(version(connection)?).unwrap_or(0);
    for (index, migration) in migrations.iter().enumerate().skip(applied) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        apply(&transaction, migration, index + 1)?;
        transaction.commit()?;
        tracing::info!(
            version = index + 1,
            name = migration.name,
            "migrated the database"
        );
    }
    Ok(())
}

fn apply(
    transaction: &Transaction<'_>,
    migration: &Migration,
    version: usize,
) -> rusqlite::Result<()> {
    transaction.execute_batch(migration.sql)?;
    // These pragmas take no parameters, and are part of the transaction.
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version};"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Migration] = &[
        Migration {
            name: "one",
            sql: "CREATE TABLE one (a TEXT) STRICT; INSERT INTO one VALUES ('kept')",
        },
        Migration {
            name: "two",
            sql: "ALTER TABLE one ADD COLUMN b TEXT",
        },
    ];

    #[test]
    fn migrate_applies_missing_migrations_only() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, &STEPS[..1]).expect("first");
        migrate(&mut connection, STEPS).expect("second");
        migrate(&mut connection, STEPS).expect("nothing left to do");
        assert_eq!(version(&connection).expect("version"), 2);
        let row: (String, Option<String>) = connection
            .query_row("SELECT a, b FROM one", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .expect("one row");
        assert_eq!(row, ("kept".to_owned(), None));
    }

    #[test]
    fn failed_migration_leaves_the_former_version() {
        let broken = [
            Migration {
                name: STEPS[0].name,
                sql: STEPS[0].sql,
            },
            Migration {
                name: "broken",
                sql: "ALTER TABLE one ADD COLUMN b TEXT; SELECT nonsense",
            },
        ];
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, &broken).expect_err("must fail");
        assert_eq!(version(&connection).expect("version"), 1);
        assert!(
            connection.prepare("SELECT b FROM one").is_err(),
            "half of it was applied"
        );
        migrate(&mut connection, STEPS).expect("goes on from there");
    }
}
