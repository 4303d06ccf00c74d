//! Removes a preview's database and role, and first everything that would keep PostgreSQL from dropping them.
//!
//! `DROP DATABASE … WITH (FORCE)` ends sessions, but refuses a template, prepared transactions, logical
//! replication slots in use and subscriptions. The owner of a database can make several of these. Removal:
//!
//! ```text
//! closed to all but superusers, mark taken off → sessions ended → prepared transactions rolled back,
//! subscriptions dropped → closed to all → sessions ended, slots released → DROP
//! ```
//!
//! Each step can be repeated. An interrupted removal leaves a database without its mark, which the next
//! `ensure` opens again and the next `remove` drops.

use std::time::Duration;

use innkeeper_model::{DaemonId, GuestName};
use tokio::time::{Instant, sleep};

use super::error::DatabaseError;
use super::session::Session;
use super::sql::{self, identifier, literal};
use super::{MAINTENANCE, Owner, PostgresDatabases, blocking, foreign};
use super::{owner_of_database, owner_of_role};

/// How long ended sessions may take to release their slots.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(20);

/// The interval at which blocking sessions are ended while a statement waits.
const UNBLOCK_INTERVAL: Duration = Duration::from_millis(250);

impl PostgresDatabases {
    /// Removes a preview's database, role and password.
    pub(super) async fn unmake(&self, slug: &GuestName) -> Result<(), DatabaseError> {
        let _place = self.places.acquire().await;
        let name = sql::name_of(slug);
        let session = self.lock(&name).await?;
        if owner_of_role(&session, &self.config.identity, slug, &name).await? == Owner::Us {
            if owner_of_database(&session, &name).await? == Owner::Us {
                self.drop_database(&session, slug, &name).await?;
            }
            self.drop_role(&session, &name).await?;
        }
        let (passwords, slug) = (self.passwords.clone(), slug.clone());
        blocking(move || Ok(passwords.remove(&slug)?)).await
    }

    /// Drops the database of a role of ours with everything that holds it.
    pub(super) async fn drop_database(
        &self,
        session: &Session,
        slug: &GuestName,
        name: &str,
    ) -> Result<(), DatabaseError> {
        match owner_of_database(session, name).await? {
            Owner::Nobody => return Ok(()),
            Owner::Stranger => return Err(foreign("database", name)),
            Owner::Us => {}
        }
        tracing::info!(
            preview = slug.as_str(),
            database = name,
            "dropping database"
        );
        let database = identifier(name);
        // PostgreSQL refuses everything but DROP for a database whose removal it could not finish.
        if !is_invalid(session, name).await? {
            // RESET ALL: settings of the owner would otherwise apply to our own session below.
            let close = format!(
                "COMMENT ON DATABASE {database} IS NULL;
                 ALTER DATABASE {database} IS_TEMPLATE false ALLOW_CONNECTIONS true CONNECTION LIMIT 0;
                 ALTER DATABASE {database} RESET ALL"
            );
            self.run_unblocked(session, "close database", name, name, &close)
                .await?;
            end_sessions(session, name).await?;
            self.release_contents(session, name).await?;
            // Even a superuser's replication client does not come back now.
            let shut = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
            self.run_unblocked(session, "close database", name, name, &shut)
                .await?;
            end_sessions(session, name).await?;
        }
        let drop = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        self.run_unblocked(session, "drop database", name, name, &drop)
            .await
    }

    /// Rolls back prepared transactions and drops subscriptions. Both only work from inside the database.
    async fn release_contents(&self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        let action = "look for prepared transactions and subscriptions in database";
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
            // The publisher may be gone, so its slot is not dropped with the subscription.
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

    /// Drops a role of ours. Another preview may have given it rights or objects without its knowledge, and a
    /// role that has either anywhere cannot be dropped: rights are revoked, objects go to that database's owner.
    async fn drop_role(&self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        let role = identifier(name);
        for (database, owner) in
            databases_with_rights_of(session, self.config.identity.daemon(), name).await?
        {
            let mut disown = format!("DROP OWNED BY {role}");
            if let Some(owner) = owner {
                let other = identifier(&database);
                // Its owner may have closed it, or made connections to it fail with a setting.
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
            self.run_unblocked(&inside, "take rights from role", name, name, &disown)
                .await?;
        }
        let drop = format!("DROP ROLE {role}");
        self.run_unblocked(session, "drop role", name, name, &drop)
            .await
    }

    /// Runs statements and ends the sessions that make them wait for a lock: any session in the database
    /// `target`, and sessions of previews in their own databases.
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
                let is_ours = sql::is_mark_of(daemon, "shobj_description(r.oid, 'pg_authid')");
                let sql = format!(
                    "SELECT pg_terminate_backend(a.pid) FROM unnest(pg_blocking_pids($1)) AS b (pid) \
                     JOIN pg_stat_activity a ON a.pid = b.pid JOIN pg_roles r ON r.oid = a.usesysid \
                     WHERE a.datname = $2 OR {is_ours}"
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
            // Without a second session the statement waits as long as its lock timeout allows.
            failed = unblock => {
                drop::<Result<std::convert::Infallible, DatabaseError>>(failed);
                run.await
            }
        }
    }
}

/// Ends every session in a database except our own, and waits until its logical replication slots are released.
async fn end_sessions(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    loop {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')";
        let action = "end sessions in database";
        let sessions = session.rows(action, name, sql, &[&name]).await?.len();
        let sql = "SELECT FROM pg_replication_slots WHERE database = $1 AND active";
        let action = "look for replication slots of database";
        let slots = session.rows(action, name, sql, &[&name]).await?.len();
        // DROP reports what is left after the deadline.
        if sessions + slots == 0 || Instant::now() > deadline {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Whether PostgreSQL began to drop this database and could not finish (`datconnlimit = -2`).
pub(super) async fn is_invalid(session: &Session, name: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT FROM pg_database WHERE datname = $1 AND datconnlimit = -2";
    let row = session.row("look at database", name, sql, &[&name]).await?;
    Ok(row.is_some())
}

/// The databases in which a role has rights, each with its owner if that is a preview. Rights to databases
/// themselves can be revoked from anywhere.
///
/// Excludes databases that are no preview of this daemon's when the role owns something in them: a preview cannot have
/// given it that, and the error of `DROP ROLE` names it to the server's owner.
async fn databases_with_rights_of(
    session: &Session,
    daemon: &DaemonId,
    name: &str,
) -> Result<Vec<(String, Option<String>)>, DatabaseError> {
    let is_ours = sql::is_mark_of(daemon, "shobj_description(datdba, 'pg_authid')");
    let sql = format!(
        "SELECT datname, CASE WHEN {is_ours} \
             THEN pg_get_userbyid(datdba)::text END FROM pg_shdepend \
         JOIN pg_roles ON pg_roles.oid = refobjid JOIN pg_database ON pg_database.oid = dbid \
         OR dbid = 0 AND datname = current_database() \
         WHERE refclassid = 'pg_authid'::regclass AND rolname = $1 AND datconnlimit <> -2 \
         GROUP BY datname, datdba, datallowconn \
         HAVING {is_ours} OR datallowconn AND bool_and(dbid = 0 OR deptype <> 'o')"
    );
    let rows = session
        .rows("look for rights of role", name, &sql, &[&name])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
