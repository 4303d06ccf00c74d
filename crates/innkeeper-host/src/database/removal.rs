//! Removes a preview's database and role, after everything that prevents PostgreSQL from dropping them.
//!
//! `DROP DATABASE … WITH (FORCE)` ends sessions, but fails for a template, prepared transactions, logical replication slots
//! in use and subscriptions. The owner of a database can create several of these. Removal:
//!
//! ```text
//! close to all but superusers, remove mark → end sessions → roll back prepared transactions,
//! drop subscriptions → close to all → end sessions, release slots → DROP
//! ```
//!
//! All steps are idempotent. An interrupted removal leaves a database without its mark, which the next `ensure` opens again
//! and the next `remove` drops.

use std::time::Duration;

use innkeeper_model::{DaemonId, GuestName};
use tokio::time::{Instant, sleep};

use super::error::DatabaseError;
use super::session::Session;
use super::sql::{self, identifier, literal};
use super::{MAINTENANCE, Owner, PostgresDatabases, blocking, foreign};
use super::{owner_of_database, owner_of_role};

/// Time limit for ended sessions to release their slots.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval at which blocking sessions are ended while a statement waits.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(250);

impl PostgresDatabases {
    /// Removes a preview's database, role and password.
    pub(super) async fn remove_all(&self, slug: &GuestName) -> Result<(), DatabaseError> {
        let _permit = self.permits.acquire().await;
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        let owner = owner_of_role(&session, &self.config.identity, slug, &name).await?;
        if owner == Owner::ThisDaemon {
            if owner_of_database(&session, &name).await? == Owner::ThisDaemon {
                self.drop_database(&session, slug, &name).await?;
            }
            self.drop_role(&session, &name).await?;
        }
        let (passwords, slug) = (self.passwords.clone(), slug.clone());
        blocking(move || Ok(passwords.remove(&slug)?)).await
    }

    /// Drops the database of a role that this daemon owns, and everything that blocks the drop.
    pub(super) async fn drop_database(
        &self,
        session: &Session,
        slug: &GuestName,
        name: &str,
    ) -> Result<(), DatabaseError> {
        match owner_of_database(session, name).await? {
            Owner::Absent => return Ok(()),
            Owner::Other => return Err(foreign("database", name)),
            Owner::ThisDaemon => {}
        }
        tracing::info!(
            preview = slug.as_str(),
            database = name,
            "dropping database"
        );
        let database = identifier(name);
        // PostgreSQL allows only DROP for a database that it could not finish dropping.
        if !is_invalid(session, name).await? {
            // RESET ALL: the owner's settings would otherwise apply to the daemon's session below.
            let close = format!(
                "COMMENT ON DATABASE {database} IS NULL;
                 ALTER DATABASE {database} IS_TEMPLATE false ALLOW_CONNECTIONS true CONNECTION LIMIT 0;
                 ALTER DATABASE {database} RESET ALL"
            );
            self.run_unblocked(session, "close database", name, name, &close)
                .await?;
            end_sessions(session, name).await?;
            self.release_contents(session, name).await?;
            // From now on, even a superuser's replication client cannot reconnect.
            let shut = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
            self.run_unblocked(session, "close database", name, name, &shut)
                .await?;
            end_sessions(session, name).await?;
        }
        let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        self.run_unblocked(session, "drop database", name, name, &drop)
            .await
    }

    /// Rolls back prepared transactions and drops subscriptions. Both require a session in the database.
    async fn release_contents(&self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        let action = "query prepared transactions and subscriptions in database";
        let sql = "SELECT gid, NULL::text FROM pg_prepared_xacts WHERE database = $1 UNION ALL \
                   SELECT subname, coalesce(subslotname, '') FROM pg_subscription \
                   JOIN pg_database ON pg_database.oid = subdbid WHERE datname = $1";
        let rows = session.rows(action, name, sql, &[&name]).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let inside = self.session(name).await?;
        for row in rows {
            let (object, slot): (String, Option<String>) = (row.get(0), row.get(1));
            let Some(slot) = slot else {
                let roll_back = format!("ROLLBACK PREPARED {}", literal(&object));
                inside
                    .run("roll back prepared transaction in", name, &roll_back)
                    .await?;
                continue;
            };
            // Keeps the publisher's slot: dropping it would fail if the publisher is down.
            if !slot.is_empty() {
                tracing::warn!(
                    database = name,
                    subscription = object,
                    slot,
                    "dropping a subscription; drop its replication slot on the publisher, which keeps WAL for it"
                );
            }
            let subscription = identifier(&object);
            let drop = format!(
                "ALTER SUBSCRIPTION {subscription} DISABLE;
                 ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE);
                 DROP SUBSCRIPTION {subscription}"
            );
            self.run_unblocked(&inside, "drop subscription in", name, name, &drop)
                .await?;
        }
        Ok(())
    }

    /// Drops a role. A role with rights or objects in any database cannot be dropped, and other previews may have given it
    /// some: revokes the rights and reassigns the objects to that database's owner.
    async fn drop_role(&self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        let role = identifier(name);
        for (database, owner) in
            databases_with_rights_of(session, self.config.identity.daemon(), name).await?
        {
            let mut disown = format!("DROP OWNED BY {role}");
            if let Some(owner) = owner {
                let other = identifier(&database);
                // Its owner may have closed it, or set an option that makes connections fail.
                let open = format!(
                    "ALTER DATABASE {other} ALLOW_CONNECTIONS true;
                     ALTER DATABASE {other} RESET local_preload_libraries"
                );
                self.run_unblocked(session, "open database", &database, name, &open)
                    .await?;
                disown = format!(
                    "REASSIGN OWNED BY {role} TO {}; {disown}",
                    identifier(&owner)
                );
            }
            let inside = self.session(&database).await?;
            self.run_unblocked(&inside, "revoke rights of role", name, name, &disown)
                .await?;
        }
        let drop = format!("DROP ROLE {role}");
        self.run_unblocked(session, "drop role", name, name, &drop)
            .await
    }

    /// Runs statements and ends sessions that block them by a lock: any session in the database `target`, and sessions of
    /// previews.
    async fn run_unblocked(
        &self,
        session: &Session,
        action: &'static str,
        name: &str,
        target: &str,
        sql: &str,
    ) -> Result<(), DatabaseError> {
        let pid = session.backend(name).await?;
        let daemon = self.config.identity.daemon();
        let unblock = async {
            sleep(UNBLOCK_INTERVAL).await;
            let other = self.session(MAINTENANCE).await?;
            loop {
                let is_managed = sql::is_mark_of(daemon, "shobj_description(r.oid, 'pg_authid')");
                let sql = format!(
                    "SELECT pg_terminate_backend(a.pid) FROM unnest(pg_blocking_pids($1)) AS b (pid) \
                     JOIN pg_stat_activity a ON a.pid = b.pid JOIN pg_roles r ON r.oid = a.usesysid \
                     WHERE a.datname = $2 OR {is_managed}"
                );
                other
                    .rows("end sessions that block", name, &sql, &[&pid, &target])
                    .await?;
                sleep(UNBLOCK_INTERVAL).await;
            }
        };
        let run = session.run(action, name, sql);
        tokio::pin!(run);
        tokio::select! {
            biased;
            done = &mut run => done,
            // Without a second session, the statement waits up to its lock timeout.
            failed = unblock => {
                drop::<Result<std::convert::Infallible, DatabaseError>>(failed);
                run.await
            }
        }
    }
}

/// Ends all other sessions in a database, and waits until its logical replication slots are released.
async fn end_sessions(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    loop {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')";
        let action = "end sessions in database";
        let sessions = session.rows(action, name, sql, &[&name]).await?.len();
        let sql = "SELECT FROM pg_replication_slots WHERE database = $1 AND active";
        let action = "query replication slots of database";
        let slots = session.rows(action, name, sql, &[&name]).await?.len();
        // After the deadline, DROP reports the remaining ones.
        if sessions + slots == 0 || Instant::now() > deadline {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Reports whether PostgreSQL started to drop this database but could not finish (`datconnlimit = -2`).
pub(super) async fn is_invalid(session: &Session, name: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT FROM pg_database WHERE datname = $1 AND datconnlimit = -2";
    let row = session.row("query database", name, sql, &[&name]).await?;
    Ok(row.is_some())
}

/// Lists the databases in which a role has rights, each with its owner if that is a preview. Rights on databases themselves
/// can be revoked from any database.
///
/// Excludes databases of others in which the role owns objects: no preview can have caused that. The error of `DROP ROLE`
/// then names these objects to the administrator.
async fn databases_with_rights_of(
    session: &Session,
    daemon: &DaemonId,
    name: &str,
) -> Result<Vec<(String, Option<String>)>, DatabaseError> {
    let is_managed = sql::is_mark_of(daemon, "shobj_description(datdba, 'pg_authid')");
    let sql = format!(
        "SELECT datname, CASE WHEN {is_managed} \
             THEN pg_get_userbyid(datdba)::text END FROM pg_shdepend \
         JOIN pg_roles ON pg_roles.oid = refobjid JOIN pg_database ON pg_database.oid = dbid \
         OR dbid = 0 AND datname = current_database() \
         WHERE refclassid = 'pg_authid'::regclass AND rolname = $1 AND datconnlimit <> -2 \
         GROUP BY datname, datdba, datallowconn \
         HAVING {is_managed} OR datallowconn AND bool_and(dbid = 0 OR deptype <> 'o')"
    );
    let rows = session
        .rows("query rights of role", name, &sql, &[&name])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
